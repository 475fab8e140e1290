# SPDX-License-Identifier: Apache-2.0
"""Who is logged in: sessions of browsers, kept in memory, each with the token by which it was begun.

A session's cookie is 256 random bits, of which the SHA-256 is kept. What its holder may do is asked of the token at
each request, so one that is revoked ends its sessions, too. What is open by a session, such as a terminal, ends with
it. Rules after OWASP's Session Management Cheat Sheet.
"""

from __future__ import annotations

import asyncio
import contextlib
import hashlib
import hmac
import secrets
from collections import OrderedDict
from collections.abc import Iterator
from dataclasses import dataclass, field

from aiohttp import web

from ..errors import PermissionDenied, Unauthorized
from ..sys import clock

LIFE = 12 * 3600.0  # seconds
IDLE = 3600.0
_MOST, _OF_ONE = 10_000, 100  # in all, and by one token: the one that was used longest ago makes room
_COOKIE = "hyper_session"


@dataclass
class Session:
    """Of one browser."""

    token: str
    begun: float  # seconds, by a clock that nobody sets
    used: float
    csrf: str = field(default_factory=lambda: secrets.token_urlsafe(32))  # forms have it, other sites do not
    _open: set[asyncio.Transport] = field(default_factory=set)  # connections by which it is answered

    @property
    def is_over(self) -> bool:
        """In time; who has a page open that is still being answered uses it."""
        now = clock.seconds()
        return now - self.begun > LIFE or (now - self.used > IDLE and not self._open)

    def check_form(self, given: str) -> None:
        """:raise PermissionDenied: it is not from a page of this session."""
        if not hmac.compare_digest(given.encode(), self.csrf.encode()):
            raise PermissionDenied("this form is not from a page of your session", hint="load the page again")

    @contextlib.contextmanager
    def held(self, transport: asyncio.BaseTransport | None) -> Iterator[None]:
        """While a request is answered: its connection is closed when the session ends."""
        if not isinstance(transport, asyncio.Transport):
            yield
            return
        left = max(0.0, self.begun + LIFE - clock.seconds())
        timer = asyncio.get_running_loop().call_later(left, transport.abort)
        self._open.add(transport)
        try:
            yield
        finally:
            timer.cancel()
            self._open.discard(transport)
            self.used = clock.seconds()

    def close(self) -> None:
        """What is open by it."""
        for transport in self._open:
            transport.abort()


class Sessions:
    """Of one daemon; a restart ends them."""

    def __init__(self) -> None:
        self._sessions: OrderedDict[str, Session] = OrderedDict()  # by the digest of the cookie

    def begin(self, token: str) -> str:
        """What its cookie is."""
        cookie, now = secrets.token_urlsafe(32), clock.seconds()
        own = [key for key, session in self._sessions.items() if session.token == token]
        for key in own[: max(0, len(own) - _OF_ONE + 1)]:
            self._end(key)
        for key in list(self._sessions)[: max(0, len(self._sessions) - _MOST + 1)]:
            self._end(key)
        self._sessions[_digest(cookie)] = Session(token, now, now)
        return cookie

    def find(self, cookie: str) -> Session:
        """:raise Unauthorized: there is none, or it is over."""
        key = _digest(cookie)
        session = self._sessions.get(key)
        if session is None or session.is_over:
            self._end(key)
            raise Unauthorized("the session is over", hint="log in again")
        session.used = clock.seconds()
        self._sessions.move_to_end(key)
        return session

    def end(self, cookie: str) -> None:
        """With what is open by it. Idempotent."""
        self._end(_digest(cookie))

    def _end(self, key: str) -> None:
        if session := self._sessions.pop(key, None):
            session.close()


def name_of_cookie(request: web.Request, what: str = _COOKIE) -> str:
    """By TLS one that no page without it, and none of another host, can set (RFC 6265bis, 4.1.3.2). Cookies are of a
    host, whatever its port: with the port in its name it is not that of another console there.
    """
    place = request.transport.get_extra_info("sockname") if request.transport else None
    port = f"_{place[1]}" if isinstance(place, tuple) else ""
    return f"__Host-{what}{port}" if request.secure else f"{what}{port}"


def session_of(request: web.Request, sessions: Sessions) -> Session:
    """:raise Unauthorized: nobody is logged in."""
    return sessions.find(request.cookies.get(name_of_cookie(request), ""))


def _digest(cookie: str) -> str:
    return hashlib.sha256(cookie.encode("utf-8", "surrogateescape")).hexdigest()
