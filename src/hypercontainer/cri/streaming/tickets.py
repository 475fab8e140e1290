# SPDX-License-Identifier: Apache-2.0
"""What a URL of the streaming server stands for: it is given out, and taken once, within a minute."""

from __future__ import annotations

import asyncio
import secrets
from dataclasses import dataclass

from ...errors import NotFound, Unavailable

LIFETIME = 60.0  # seconds
TICKETS_MAX = 1000  # that wait
_BYTES = 24  # of chance in a token


@dataclass(frozen=True)
class CommandTicket:
    """Exec, or attach where there is no command."""

    container: str
    command: tuple[str, ...] = ()
    tty: bool = False
    stdin: bool = False
    stdout: bool = False
    stderr: bool = False


@dataclass(frozen=True)
class PortTicket:
    """Port-forward; which ports, clients of SPDY say later."""

    pod: str
    ports: tuple[int, ...] = ()


Ticket = CommandTicket | PortTicket


def kind_of(ticket: Ticket) -> str:
    """The first part of its path."""
    if isinstance(ticket, PortTicket):
        return "portforward"
    return "exec" if ticket.command else "attach"


class Tickets:
    """Those that wait, oldest first."""

    def __init__(self) -> None:
        self._waiting: dict[str, tuple[float, Ticket]] = {}

    def issue(self, ticket: Ticket) -> str:
        """Its token. :raise Unavailable: very many wait."""
        self._forget()
        if len(self._waiting) >= TICKETS_MAX:
            raise Unavailable(f"{TICKETS_MAX} streams were asked for and are not begun", hint="try again in a minute")
        token = secrets.token_urlsafe(_BYTES)
        self._waiting[token] = (asyncio.get_running_loop().time() + LIFETIME, ticket)
        return token

    def redeem(self, kind: str, token: str) -> Ticket:
        """:raise NotFound: it was never given out, was taken before, or has expired."""
        self._forget()
        found = self._waiting.pop(token, None)
        if found is None or kind_of(found[1]) != kind:
            raise NotFound("this address is none, was used before, or has expired", hint="ask for another one")
        return found[1]

    def _forget(self) -> None:
        now = asyncio.get_running_loop().time()
        for token in [t for t, (until, _) in self._waiting.items() if until <= now]:
            del self._waiting[token]
