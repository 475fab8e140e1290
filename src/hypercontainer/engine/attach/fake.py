# SPDX-License-Identifier: Apache-2.0
"""An attached client without a connection: it says what it is told to, and keeps what it hears."""

from __future__ import annotations

import asyncio

from .peer import End, Said


class FakePeer:
    """`says` and `goes` are the client's doing; a `stalled` one takes nothing more."""

    def __init__(self, *, takes: int = 1 << 30) -> None:
        """`takes` are the bytes of output after which it stands still until `read_on`."""
        self.opened = False
        self.heard: list[tuple[int, bytes]] = []
        self.end: End | None = None
        self.gone = False
        self._said: asyncio.Queue[Said | Exception | None] = asyncio.Queue()
        self._room = takes
        self._moved = asyncio.Event()

    def says(self, *said: Said | Exception) -> None:
        """What it sends; an error is what its front end makes of what is not understood."""
        for one in said:
            self._said.put_nowait(one)

    def goes(self) -> None:
        """Its connection breaks."""
        self.gone = True
        self._said.put_nowait(None)
        self._moved.set()

    def read_on(self) -> None:
        """It takes everything from here on."""
        self._room = 1 << 30
        self._moved.set()

    def output(self, stream: int = 1) -> bytes:
        """All that it heard of a stream."""
        return b"".join(data for s, data in self.heard if s == stream)

    @property
    def untaken(self) -> int:
        """How much of what it said nobody has received."""
        return self._said.qsize()

    async def until(self, text: bytes, stream: int = 1) -> None:
        """Until it has heard a text."""
        while text not in self.output(stream):
            self._moved.clear()
            await self._moved.wait()

    # -- Peer -------------------------------------------------------------------

    async def open(self) -> None:
        if self.gone:
            raise ConnectionResetError("the client has gone")
        self.opened = True

    async def receive(self) -> Said | None:
        said = await self._said.get()
        if isinstance(said, Exception):
            raise said
        return said

    async def send(self, stream: int, data: bytes) -> None:
        while self._room <= 0 and not self.gone:
            self._moved.clear()
            await self._moved.wait()
        if self.gone:
            raise ConnectionResetError("the client has gone")
        self._room -= len(data)
        self.heard.append((stream, data))
        self._moved.set()

    async def finish(self, end: End) -> None:
        assert self.end is None, "it was told of the end before"
        self.end = end
