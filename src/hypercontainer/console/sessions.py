# SPDX-License-Identifier: Apache-2.0
"""Who is logged in: sessions of browsers, kept in memory, each with the token by which it was begun.

A session's cookie is 256 random bits, of which the SHA-256 is kept. What its holder may do is asked of the token at
each request, so one that is revoked ends its sessions, too. Rules after OWASP's Session Management Cheat Sheet.
"""

from __future__ import annotations

import hashlib
import secrets
from collections import OrderedDict
from dataclasses import dataclass, field

from aiohttp import web

from ..errors import Unauthorized
from ..sys import clock

LIFE = 12 * 3600.0  # seconds
IDLE = 3600.0
_MOST = 10_000  # the one that was used longest ago makes room
_COOKIE = "hyper_session"


@dataclass
class Session:
    """Of one browser."""

    token: str
    begun: float  # seconds, by a clock that nobody sets
    used: float
    csrf: str = field(default_factory=lambda: secrets.token_urlsafe(32))  # forms have it, other sites do not


class Sessions:
    """Of one daemon; a restart ends them."""

    def __init__(self) -> None:
        self._sessions: OrderedDict[str, Session] = OrderedDict()  # by the digest of the cookie

    def begin(self, token: str) -> str:
        """What its cookie is."""
        cookie, now = secrets.token_urlsafe(32), clock.seconds()
        self._sessions[_digest(cookie)] = Session(token, now, now)
        while len(self._sessions) > _MOST:
            self._sessions.popitem(last=False)
        return cookie

    def find(self, cookie: str) -> Session:
        """:raise Unauthorized: there is none, or it is over."""
        key, now = _digest(cookie), clock.seconds()
        session = self._sessions.get(key)
        if session is None or now - session.begun > LIFE or now - session.used > IDLE:
            self._sessions.pop(key, None)
            raise Unauthorized("the session is over", hint="log in again")
        session.used = now
        self._sessions.move_to_end(key)
        return session

    def end(self, cookie: str) -> None:
        """Idempotent."""
        self._sessions.pop(_digest(cookie), None)


def name_of_cookie(*, secure: bool) -> str:
    """By TLS one that no page without it, and none of another host, can set (RFC 6265bis, 4.1.3.2)."""
    return f"__Host-{_COOKIE}" if secure else _COOKIE


def session_of(request: web.Request, sessions: Sessions) -> Session:
    """:raise Unauthorized: nobody is logged in."""
    return sessions.find(request.cookies.get(name_of_cookie(secure=request.secure), ""))


def _digest(cookie: str) -> str:
    return hashlib.sha256(cookie.encode("utf-8", "surrogateescape")).hexdigest()
