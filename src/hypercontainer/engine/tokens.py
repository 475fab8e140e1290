# SPDX-License-Identifier: Apache-2.0
"""Tokens: made, listed, revoked, and known again.

A token is `hyper_ID_SECRET`. Of the secret, 256 random bits, only the SHA-256 is kept: it needs no
slow hash, since nobody can guess it.
"""

from __future__ import annotations

import hashlib
import hmac
import secrets
from collections.abc import Callable
from datetime import timedelta

import msgspec
from msgspec import UNSET

from ..errors import Conflict, InvalidArgument, NotFound, PermissionDenied, Unauthorized
from ..model.moments import read_moment
from ..model.principal import NOWHERE, Principal, widened
from ..model.tenancy import OF_PROJECTS, OF_ROLE, User
from ..model.tokens import NewToken, Token, TokenInfo, TokenRequest
from ..state import changes as rows
from ..state.journal import Journal
from ..sys import clock
from . import naming
from .events import Events
from .principal import current, owned
from .tenants import Tenants, pick

_PREFIX = "hyper"
_ID_BYTES, _SECRET_BYTES = 6, 32
_LOGINS = 20  # of one user that are good at a time: the oldest makes room
_WRITTEN_EVERY = 60 * 10**9  # nanoseconds between two writes of when a token was used


class Tokens:
    """The only holder of tokens' records."""

    def __init__(self, journal: Journal, events: Events, tenants: Tenants) -> None:
        self._journal, self._tenants = journal, tenants
        self._events = events
        self._tokens = {t.id: t for t in journal.database.tokens()}
        self._used_written: dict[str, int] = {}  # id -> nanoseconds since the epoch
        self.on_revoke: Callable[[str], None] = lambda principal: None  # called with the name of a principal that was

    def create(self, request: TokenRequest) -> NewToken:
        """The secret is told here, and never again.

        :raise Conflict: the name is taken. :raise PermissionDenied: it could do more than who asks, or its user.
        :raise NotFound: no such member of the project. :raise NoSpace: the disk is full.
        """
        user = self._member(request) if request.user else None
        naming.check("token", request.name)
        if naming.find(self._tokens.values(), request.name):
            raise Conflict(f"the name {request.name!r} is taken by another token", hint="choose another, or revoke it")
        if beyond := widened(request.scopes) - current().scopes:
            raise PermissionDenied(
                f"{current().name} may not give the scope {', '.join(sorted(beyond))}, without having it itself"
            )
        if current().tenant and (beyond := frozenset(request.scopes) - OF_PROJECTS):
            raise PermissionDenied(f"a project's token never has the scope {', '.join(sorted(beyond))}")
        id_, secret = secrets.token_hex(_ID_BYTES), secrets.token_urlsafe(_SECRET_BYTES)
        expires = f"{clock.now() + timedelta(seconds=request.life):%Y-%m-%dT%H:%M:%S.%fZ}" if request.life else ""
        token = Token(
            id=id_, name=request.name, created_at=clock.stamp(), digest=_digest(secret),
            scopes=sorted(set(request.scopes)), expires_at=expires, user=user.id if user else "", **owned(),
        )  # fmt: skip
        self._journal.write_now(rows.put(token))
        self._tokens[id_] = token
        self._events.publish("token", "create", id_, name=token.name, scopes=",".join(token.scopes))
        return NewToken(token=self._told(token), secret=f"{_PREFIX}_{id_}_{secret}")

    def create_login(self, user: User, life: float) -> NewToken:
        """One that is the user, in all their projects, for so many seconds: by it they are logged in.

        :raise NoSpace: the disk is full.
        """
        logins = sorted((t for t in self._tokens.values() if is_login(t)), key=lambda t: t.created_at)
        own = [t for t in logins if t.user == user.id and not _expired(t)]
        self._revoke([*(t for t in logins if _expired(t)), *own[: max(0, len(own) - _LOGINS + 1)]])
        id_, secret = secrets.token_hex(_ID_BYTES), secrets.token_urlsafe(_SECRET_BYTES)
        token = Token(
            id=id_, name=f"login-{id_}", created_at=clock.stamp(), digest=_digest(secret), scopes=[],
            expires_at=f"{clock.now() + timedelta(seconds=life):%Y-%m-%dT%H:%M:%S.%fZ}", user=user.id,
            owner=f"user:{user.name}", tenant=NOWHERE,
        )  # fmt: skip
        self._journal.write_now(rows.put(token))
        self._tokens[id_] = token
        self._events.publish("token", "create", id_, tenant=UNSET, name=token.name, user=user.name)
        return NewToken(token=self._told(token), secret=f"{_PREFIX}_{id_}_{secret}")

    def end_login(self, principal: str) -> None:
        """Log out who is logged in by it. :raise InvalidArgument: it is no log-in, but another token, or none."""
        token = self._tokens.get(principal.removeprefix("token:"))
        if token is None or not is_login(token):
            raise InvalidArgument("this is no log-in", hint="a token is revoked by `hyperctl token revoke`")
        self._revoke([token])

    def _seen(self) -> list[Token]:
        """Those of the tenant that asks; the host's administrator sees log-ins, too."""
        who = current()
        logins = "admin" in who.scopes and who.tenant is UNSET
        return [*naming.mine(self._tokens.values()), *(t for t in self._tokens.values() if logins and is_login(t))]

    def all(self) -> list[TokenInfo]:
        """Newest first."""
        return [self._told(t) for t in sorted(self._seen(), key=lambda t: t.created_at, reverse=True)]

    def _member(self, request: TokenRequest) -> User:
        project = self._tenants.project(current().tenant)
        if project is None:
            raise InvalidArgument("a user's token is one in a project", hint="say which, with --project NAME")
        members = [u for u in self._tenants.users() if self._tenants.role(u.id, project.organisation)]
        user = pick(members, request.user)
        role = self._tenants.role(user.id, project.organisation) if user else None
        if user is None or role is None:
            raise NotFound(f"no such member: {request.user}", hint="see `hyperctl organisation inspect`")
        if beyond := widened(request.scopes) - OF_ROLE[role]:
            raise PermissionDenied(f"{user.name}, who is {role}, does not have the scope {', '.join(sorted(beyond))}")
        return user

    def revoke(self, key: str) -> TokenInfo:
        """By name or id; from now on it is not known, and the connections of its holder are closed.

        :raise NotFound: there is none. :raise NoSpace: the disk is full: it is good still.
        """
        token = pick(self._seen(), key)
        if token is None:
            raise NotFound(f"no such token: {key}", hint="see `hyperctl token ls`")
        self._revoke([token])
        return self._told(token)

    def revoke_all(self, which: Callable[[Token], bool]) -> None:
        """Those of whoever goes. :raise NoSpace: the disk is full: all are good still."""
        self._revoke([t for t in self._tokens.values() if which(t)])

    def close_all(self, which: Callable[[Token], bool]) -> None:
        """What is open by those whose user may do other things from now on; they stay good."""
        for token in [t for t in self._tokens.values() if which(t)]:
            self.on_revoke(_principal(token).name)

    def _revoke(self, tokens: list[Token]) -> None:
        self._journal.write_now(*map(rows.remove, tokens))  # a revocation that a crash takes back would be none
        for token in tokens:
            del self._tokens[token.id]
            self._used_written.pop(token.id, None)
            self.on_revoke(_principal(token).name)
            self._events.publish("token", "revoke", token.id, name=token.name)

    def authenticate(self, text: str) -> Principal:
        """Whose it is.

        :raise Unauthorized: nobody's, or not any more; the same words for all, which tell nothing of a guess.
        """
        prefix, _, rest = text.partition("_")
        id_, _, secret = rest.partition("_")
        token = self._tokens.get(id_) if prefix == _PREFIX else None
        if token is None or not hmac.compare_digest(token.digest, _digest(secret)) or _expired(token):
            raise Unauthorized(
                "the token is not known, or is good no more", hint="have one made by `hyperctl token create`"
            )
        self._used(token)
        return _principal(token)

    def _used(self, token: Token) -> None:
        """In memory at once; in the record at most once a minute, as a request need not wait for a disk."""
        token = msgspec.structs.replace(token, last_used_at=clock.stamp())
        self._tokens[token.id] = token
        now = clock.now_ns()
        if abs(now - self._used_written.get(token.id, 0)) >= _WRITTEN_EVERY:  # a clock may be set back
            self._used_written[token.id] = now
            self._journal.write(rows.put(token))

    def _told(self, token: Token) -> TokenInfo:
        user = self._tenants.user(token.user)
        return TokenInfo(
            id=token.id, name=token.name, created_at=token.created_at, scopes=token.scopes,
            expires_at=token.expires_at, expired=_expired(token), last_used_at=token.last_used_at, owner=token.owner,
            user=user.name if user else "",
        )  # fmt: skip

    def life_left(self, principal: str) -> float | None:
        """Seconds until its token ends; None when it has no token, or one without an end."""
        token = self._tokens.get(principal.removeprefix("token:"))
        return (read_moment(token.expires_at) - clock.now_ns()) / 1e9 if token and token.expires_at else None


def is_login(token: Token) -> bool:
    """Whether it is a user who has logged in, and of no project."""
    return token.tenant == NOWHERE


def _principal(token: Token) -> Principal:
    person = token.owner if is_login(token) else ""
    return Principal(f"token:{token.id}", token.tenant, widened(token.scopes), token.user, person=person)


def _digest(secret: str) -> str:
    return hashlib.sha256(secret.encode("utf-8", "surrogateescape")).hexdigest()


def _expired(token: Token) -> bool:
    return bool(token.expires_at) and read_moment(token.expires_at) <= clock.now_ns()
