# SPDX-License-Identifier: Apache-2.0
"""A browser's request: who it is, what project it is about, and what came with it."""

from __future__ import annotations

from collections.abc import Awaitable, Callable
from dataclasses import dataclass
from typing import Any
from urllib.parse import parse_qsl, urlsplit

from aiohttp import web

from .. import __version__
from ..engine.engine import Engine
from ..engine.principal import current
from ..errors import InvalidArgument, PermissionDenied
from ..model.principal import Scope
from ..model.units import parse_count
from ..serving.bodies import BODIES
from ..serving.identity import require
from . import render
from .sessions import Session

NONE = "-"  # in the place of a project's id: what is in none, for the host's administrator
_FORM_MAX, _FORM = 64 << 10, "application/x-www-form-urlencoded"  # bytes, and how they come
ITEMS = (
    ("containers", "Containers"),
    ("workloads", "Deployments"),
    ("images", "Images"),
    ("volumes", "Volumes"),
    ("networks", "Networks"),
    ("snapshots", "Snapshots"),
    ("events", "Events"),
    ("quota", "Quota"),
    ("usage", "Usage"),
)
_OF_OWNERS = (("members", "Members"), ("tokens", "Tokens"))
_OF_AUDITORS = (("events", "Events"), ("usage", "Usage"), ("audit", "Audit log"))
_OF_CLUSTER = (("cluster", "Cluster"),)  # where there is one
_OF_HOST = (("host", "Host"), ("organisations", "Organisations"))  # for the host's administrator, outside projects


@dataclass(frozen=True)
class Call:
    """What a handler works with; the engine knows who asks, and in which project."""

    engine: Engine
    request: web.Request
    session: Session
    form: dict[str, str]

    @property
    def name(self) -> str:
        return self.request.match_info["name"]

    @property
    def project(self) -> str:
        """As it stands in addresses."""
        return self.request.match_info.get("project", "")

    def path(self, *parts: str) -> str:
        """Of a page of this project."""
        return "/".join(("/p", self.project, *parts))

    def page(self, template: str, **values: Any) -> web.Response:
        """A whole page; for a request of htmx only what stands in the page's middle."""
        fragment = "HX-Request" in self.request.headers and "HX-Boosted" not in self.request.headers
        found = self.engine.tenants.project(current().tenant)
        return render.page(
            template, base="bare.html" if fragment else "page.html", call=self, items=self._items(),
            version=__version__, project_name=found.name if found else "no project", who=current().name,
            scopes=current().scopes, csrf=self.session.csrf, here=self.request.path, **values,
        )  # fmt: skip

    def _items(self) -> tuple[tuple[str, str], ...]:
        scopes = current().scopes
        if "read" not in scopes:
            return _OF_AUDITORS if "audit" in scopes else ()
        of_cluster = _OF_CLUSTER if self.engine.cluster.active else ()
        of_owners = _OF_OWNERS[self.project == NONE :] if "manage" in scopes else ()
        of_auditors = _OF_AUDITORS[-1:] if "audit" in scopes else ()
        of_host = _OF_HOST if self.project == NONE and "admin" in scopes else ()
        return (*ITEMS, *of_cluster, *of_owners, *of_auditors, *of_host)

    def see(self, *parts: str) -> web.Response:
        """What was asked is done: look there. htmx takes a header of its own for it."""
        to = self.path(*parts)
        if "HX-Request" in self.request.headers:
            return web.Response(headers={"HX-Redirect": to})
        return web.Response(status=303, headers={"Location": to})

    def check_form(self) -> None:
        """:raise PermissionDenied: it is not from a page of this session."""
        self.session.check_form(self.form.get("csrf", "") or self.request.headers.get("X-CSRF", ""))

    def number(self, name: str) -> int:
        """A field of the form; 0 where it is empty. :raise InvalidArgument: no number."""
        return parse_count(self.form.get(name, "").strip() or "0", name)


async def form_of(request: web.Request) -> dict[str, str]:
    """Its fields. :raise HTTPException: there is too much of it, it does not come, or comes in another way.

    :raise InvalidArgument: what is in it cannot be told. :raise PermissionDenied: it is of another site.
    """
    check_origin(request)
    if request.body_exists and request.content_type != _FORM:
        raise web.HTTPUnsupportedMediaType
    sent = await request.app[BODIES].read(request, _FORM_MAX)
    try:
        return dict(parse_qsl(sent.decode(), keep_blank_values=True, errors="strict"))
    except ValueError:
        raise InvalidArgument("the form cannot be read: it is no UTF-8") from None


def check_origin(request: web.Request) -> None:
    """A websocket, and a form, are of this site: browsers say of which they are (RFC 6455, 10.2).

    :raise PermissionDenied: of another one.
    """
    origin = request.headers.get("Origin")
    if origin and urlsplit(origin).netloc != request.host:
        raise PermissionDenied("this is asked by a page of another site")


Handler = Callable[[Call], Awaitable[web.StreamResponse]]


@dataclass(frozen=True)
class Page:
    """An address, and what answers there."""

    method: str
    path: str
    handler: Handler
    scope: Scope
    takes_form: bool = True  # else its body is the handler's, who reads it as it comes


class Pages:
    """Those of a module."""

    def __init__(self) -> None:
        self.all: list[Page] = []

    def get(self, path: str, scope: Scope = "read", *also: Scope) -> Callable[[Handler], Handler]:
        """What only shows something."""
        return self._add("GET", path, scope, *also)

    def post(self, path: str, scope: Scope = "operate", *, form: bool = True) -> Callable[[Handler], Handler]:
        """What changes something: its form has the session's word, or the header X-CSRF has it."""
        return self._add("POST", path, scope, form=form)

    def _add(
        self, method: str, path: str, scope: Scope, *also: Scope, form: bool = True
    ) -> Callable[[Handler], Handler]:
        def add(handler: Handler) -> Handler:
            async def answer(call: Call) -> web.StreamResponse:
                if method == "POST":
                    call.check_form()
                require(scope, *also)
                return await handler(call)

            self.all.append(Page(method, f"/p/{{project}}{path}", answer, scope, form))
            return handler

        return add
