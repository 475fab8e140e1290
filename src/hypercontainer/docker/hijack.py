# SPDX-License-Identifier: Apache-2.0
"""An attached client of Docker's: its connection carries bytes, not HTTP, once the head of the answer was sent.

To the client: what a terminal shows as it is; else each piece behind 8 bytes that say of which stream it is
(`engine.attach.peer.frame`). To the daemon: input, whose end is that of the client's half of the connection. Sizes come
by requests of their own.
"""

from __future__ import annotations

import contextlib

from aiohttp import web

from ..engine.attach.peer import End, Input, InputEnd, Said, frame
from ..serving.hijack import Hijacked
from .faults import message_of
from .versions import ApiVersion

RAW = "application/vnd.docker.raw-stream"
MULTIPLEXED = "application/vnd.docker.multiplexed-stream"
_TYPED = ApiVersion(1, 42)  # from which on the type says how streams come
STDOUT, STDERR = 1, 2


def stream_type(tty: bool, version: ApiVersion) -> str:
    """The content type of output."""
    return RAW if tty or version < _TYPED else MULTIPLEXED


class HijackedPeer:
    """The client of a request."""

    def __init__(self, request: web.Request, version: ApiVersion, *, tty: bool, takes_input: bool) -> None:
        """Without `takes_input` what the client sends is dropped, and its end means nothing."""
        self.response = Hijacked(request, stream_type(tty, version))
        self._tty = tty
        self._takes_input = takes_input

    async def open(self) -> None:
        await self.response.open()

    async def receive(self) -> Said | None:
        while (data := await self.response.read()) is not None:
            if self._takes_input:
                return Input(data) if data else InputEnd()
        return None

    async def send(self, stream: int, data: bytes) -> None:
        await self.response.write(data if self._tty else frame(stream, data))

    async def finish(self, end: End) -> None:
        """Docker has no last word; what went wrong is shown as output."""
        with contextlib.suppress(ConnectionError):
            if end.error:
                await self.send(STDOUT, message_of(end.error).encode() + b"\r\n")
            elif end.message:
                await self.send(STDERR, end.message.encode() + b"\r\n")
        await self.response.end()
