# SPDX-License-Identifier: Apache-2.0
"""Each request has an id, and its lines in the audit log."""

from __future__ import annotations

import secrets
from contextvars import ContextVar
from dataclasses import dataclass, field
from typing import Any, Literal
from urllib.parse import unquote_plus

from aiohttp import web

from ..engine.audit import AuditLog
from ..model.audit import AuditEntry
from ..model.moments import write_moment
from ..sys import clock

HEADER = "Hyper-Request-Id"
AUDIT = web.AppKey("audit", AuditLog)
_TEXT_MAX = 1024  # characters of a path, and of a query
# What people put secrets into though it is no place for them: values of build arguments, a URL's password, `ENV`.
_PRIVATE = ("buildargs", "changes", "remote", "fromsrc")


def shown(query: str) -> str:
    """A query as it may be written down: of parameters that may hold secrets only that they were there."""
    pairs = [pair.partition("=") for pair in query.split("&")]
    hidden = [unquote_plus(key).strip().lower() in _PRIVATE for key, _, _ in pairs]
    return "&".join(f"{k}=..." if hide else f"{k}{is_}{v}" for (k, is_, v), hide in zip(pairs, hidden, strict=True))


@dataclass
class Ticket:
    """A request that is being answered, and what has become known of it."""

    id: str = field(default_factory=lambda: secrets.token_hex(8))
    begun: float = 0.0  # by the loop's clock
    who: str = ""  # principal
    user: str = ""  # name
    project: str = ""  # id
    code: str = ""  # of the error


_ticket: ContextVar[Ticket | None] = ContextVar("ticket", default=None)


def ticket() -> Ticket:
    """Of the request that the running code answers; an empty one where there is none."""
    return _ticket.get() or Ticket(id="-")


@web.middleware
async def audited(request: web.Request, handler: Any) -> web.StreamResponse:
    """The outermost: it sees also what is refused before it is known who asks."""
    made, status = Ticket(begun=clock.seconds()), 0
    _ticket.set(made)  # not reset: a plain answer is prepared when its handler is done
    try:
        response: web.StreamResponse = await handler(request)
        status = response.status
        return response
    finally:
        _write(request, made, "end", status)


async def prepared(request: web.Request, response: web.StreamResponse) -> None:
    """When an answer's head is about to be sent."""
    if found := _ticket.get():
        response.headers[HEADER] = found.id
        if not isinstance(response, web.Response):  # a stream, which may take long
            _write(request, found, "begin", response.status)


def _write(request: web.Request, of: Ticket, phase: Literal["begin", "end"], status: int) -> None:
    audit = request.app.get(AUDIT)
    if audit is None:
        return
    transport = request.transport
    peer = transport.get_extra_info("peername") if transport else None
    audit.write(
        AuditEntry(
            time=write_moment(clock.now_ns()), request=of.id, phase=phase, principal=of.who, user=of.user,
            project=of.project, peer=f"{peer[0]}" if isinstance(peer, tuple) and peer else "",
            method=request.method[:_TEXT_MAX],
            path=request.path[:_TEXT_MAX], query=shown(request.query_string)[:_TEXT_MAX], status=status, code=of.code,
            milliseconds=round((clock.seconds() - of.begun) * 1000, 3),
        )
    )  # fmt: skip
