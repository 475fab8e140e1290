# SPDX-License-Identifier: Apache-2.0
"""Who asks: a user of this host by the unix socket, the holder of a token, or of a client's certificate."""

from __future__ import annotations

import asyncio
import contextlib
import logging
from collections import defaultdict
from collections.abc import Callable, Iterator, Mapping, Sequence
from contextvars import ContextVar
from dataclasses import dataclass, field
from typing import Any

from aiohttp import web
from msgspec import UNSET

from ..engine.principal import asked_by, current
from ..engine.tenancy.entry import Entry
from ..engine.tokens import Tokens
from ..errors import InvalidArgument, PermissionDenied, Unauthorized
from ..model.principal import NOWHERE, Principal, Scope, widened
from ..sys.peer import peer_uid
from .auditing import ticket
from .logging_in import LoggingIn

log = logging.getLogger(__name__)
_BEARER = "bearer "
_DAY = 86400.0  # seconds; no request lasts longer by a token that ends
ANYBODY = "*"  # in place of a certificate's name
PROJECT = "Hyper-Project"  # header: name or id of the project that a request is for
NOBODY = Principal("nobody", NOWHERE, frozenset())  # who logs in
OPEN: web.AppKey[frozenset[tuple[str, str]]] = web.AppKey("open", frozenset)  # methods and paths for everybody
_asking: ContextVar[asyncio.BaseTransport | None] = ContextVar("asking", default=None)  # by which the request came


@dataclass(frozen=True)
class Identity:
    """By what callers are known."""

    tokens: Tokens | None = None
    certificates: Mapping[str, Sequence[Scope]] = field(default_factory=dict)  # common name, or ANYBODY, -> scopes
    entry: Entry | None = None  # without one there are no projects
    provider: LoggingIn | None = None  # of those who log in elsewhere
    _open: dict[str, set[asyncio.BaseTransport]] = field(default_factory=lambda: defaultdict(set))

    def __post_init__(self) -> None:
        if self.tokens:
            self.tokens.on_revoke = self.close_all

    def of(self, request: web.Request) -> Principal:
        """Who asks, in which project. A token goes before all else, so a user of this host can do less than they might.

        :raise Unauthorized: it cannot be told, or the token is none. :raise NotFound: they have no such project.
        :raise Conflict: several have that name.
        """
        return self._enter(self._known(request), request.headers.get(PROJECT, ""))

    def of_token(self, token: str, project: str = "") -> Principal:
        """Its holder, in this project; "" is the one that they have. Raises what `of` does."""
        if self.tokens is None:
            raise Unauthorized("nobody is known by a token here")
        return self._enter(self.tokens.authenticate(token), project)

    def _enter(self, who: Principal, project: str) -> Principal:
        return self.entry.enter(who, project) if self.entry else who

    def note(self, who: Principal) -> None:
        """The audit log has who it is, and in which project."""
        found = ticket()
        found.who, found.project = who.name, who.tenant or ""
        found.user = self.entry.user(who) if self.entry else ""

    def _known(self, request: web.Request) -> Principal:
        given = request.headers.getall("Authorization", [])
        if given:
            if self.tokens is None or len(given) > 1 or not given[0].lower().startswith(_BEARER):
                raise Unauthorized(
                    "the header Authorization is not understood", hint="send `Authorization: Bearer TOKEN`"
                )
            return self.tokens.authenticate(given[0][len(_BEARER) :].strip())
        transport = request.transport
        sock = transport.get_extra_info("socket") if transport else None
        if sock is not None and (uid := peer_uid(sock)) is not None:
            return Principal(f"uid:{uid}")
        if transport and (name := common_name(transport.get_extra_info("peercert"))):
            _check_site(request)
            user = self.entry.of_certificate(name) if self.entry and name not in self.certificates else None
            return user or Principal(f"cert:{name}", scopes=widened(self._scopes(name)))
        raise Unauthorized(
            "nobody is known by this connection", hint="give a token (HYPER_TOKEN), or a client's certificate"
        )

    @contextlib.contextmanager
    def held(self, request: web.Request, who: Principal) -> Iterator[None]:
        """While a request is answered: its connection is closed when its token is revoked, or ends, and when its user
        becomes another role."""
        transport = request.transport
        if self.tokens is None or transport is None or not who.name.startswith(("token:", "user:")):
            yield
            return
        life = self.tokens.life_left(who.name)
        timer = None if life is None else asyncio.get_running_loop().call_later(min(life, _DAY), transport.abort)
        self._open[who.name].add(transport)
        own = _asking.set(transport)
        try:
            yield
        finally:
            _asking.reset(own)
            if timer:
                timer.cancel()
            self._open[who.name].discard(transport)
            if not self._open[who.name]:
                del self._open[who.name]

    def close_all(self, principal: str) -> None:
        """What is open of a principal, but for the connection by which it has just ended itself."""
        for transport in self._open.pop(principal, ()):
            if isinstance(transport, asyncio.Transport) and transport is not _asking.get():
                transport.abort()

    def _scopes(self, name: str) -> Sequence[Scope]:
        """By default `operate` where hyperd knows of no users; a user who was removed is none."""
        if name in self.certificates or ANYBODY in self.certificates:
            return self.certificates.get(name, self.certificates.get(ANYBODY, ()))
        return () if self.entry is None or self.entry.knows_anybody() else ("operate",)


def _check_site(request: web.Request) -> None:
    """A browser shows its certificate for pages of any site, too, and says so (https://www.w3.org/TR/fetch-metadata/).

    :raise PermissionDenied: another site's page asks.
    """
    if request.headers.get("Sec-Fetch-Site", "none") in ("cross-site", "same-site"):
        raise PermissionDenied("this is asked by a page of another site, by its reader's certificate")


def common_name(certificate: dict[str, Any] | None) -> str:
    """Of a certificate that was verified, as `ssl.SSLSocket.getpeercert` gives it; "" for none."""
    subject = (certificate or {}).get("subject", ())
    found = [value for part in subject for key, value in part if key == "commonName"]
    return str(found[-1]) if found else ""


IDENTITY = web.AppKey("identity", Identity)
ADMIT = web.AppKey[Callable[[Principal], None]]("admit")  # raises for who asks too often


@web.middleware
async def identified(request: web.Request, handler: Any) -> web.StreamResponse:
    """The engine knows who asks, and so does the log.

    :raise Unauthorized: nobody whom we know. :raise TooManyRequests: they ask too often.
    """
    identity = request.app.get(IDENTITY) or Identity()
    is_open = (request.method, request.path) in request.app.get(OPEN, frozenset())
    who = NOBODY if is_open else identity.of(request)
    identity.note(who)
    if (admit := request.app.get(ADMIT)) and not is_open:
        admit(who)
    with asked_by(who), identity.held(request, who):
        log.debug("%s asks for %s %s", who.name, request.method, request.path)
        response: web.StreamResponse = await handler(request)
        return response


def require_of_host() -> None:
    """:raise PermissionDenied: who asks is a project's, and this is about the host."""
    who = current()
    if who.tenant is not UNSET and "admin" not in who.scopes:
        raise PermissionDenied(f"this is about the host: it takes the scope `admin`, which {who.name} does not have")


def require(scope: Scope, *others: Scope) -> None:
    """One of them. :raise PermissionDenied: who asks has none. :raise InvalidArgument: it is not said where."""
    who = current()
    if who.scopes.isdisjoint((scope, *others)):
        if who.tenant == NOWHERE:
            raise InvalidArgument(
                "it is not said which project is meant", hint="give --project NAME, HYPER_PROJECT, or the header "
                f"{PROJECT}; see `hyperctl project ls`",
            )  # fmt: skip
        raise PermissionDenied(f"this takes the scope `{scope}`, which {who.name} does not have")
