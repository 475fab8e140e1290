# SPDX-License-Identifier: Apache-2.0
"""A connection that carries frames both ways; they are drawn in `api/upgrade.py`."""

from __future__ import annotations

import asyncio
import json
from typing import Any

from ..client.base import raise_known
from ..errors import InvalidState, Unavailable
from ..model.frames import HEADER, STATUS, STDIN
from .exchange import Exchange

_PIECE = 256 << 10
_INPUT_MAX = 64 << 10  # bytes of one frame of input


class Frames:
    """What comes is asked for piece by piece; one that is not asked for holds back who sends it."""

    def __init__(self, exchange: Exchange) -> None:
        self.ended: dict[str, Any] | None = None  # the last frame, once it was seen
        self._exchange = exchange
        self._reading = asyncio.Lock()
        self._buffer = bytearray()

    def close(self) -> None:
        """End the connection, at once."""
        self._exchange.close()

    async def next(self) -> tuple[int, bytes] | None:
        """A stream's number and what it said; None at the end. A call that is given up has taken nothing.

        :raise HyperError: the last frame tells of one. :raise Unavailable: the connection broke.
        :raise InvalidState: another call reads.
        """
        if self._reading.locked():
            raise InvalidState("another call reads what comes")
        async with self._reading:
            if self.ended is not None:
                return None
            kind, payload = await self._frame()
            if kind != STATUS:
                return kind, payload
            self.ended = json.loads(payload)
            self.close()
            if "error" in self.ended:
                raise_known(self.ended["error"])
            return None

    async def _frame(self) -> tuple[int, bytes]:
        await self._fill(HEADER.size)
        kind, length = HEADER.unpack_from(self._buffer)
        await self._fill(HEADER.size + length)
        payload = bytes(self._buffer[HEADER.size : HEADER.size + length])
        del self._buffer[: HEADER.size + length]
        return kind, payload

    async def _fill(self, size: int) -> None:
        while len(self._buffer) < size:
            try:
                data = await self._exchange.reader.read(_PIECE)
            except OSError:
                data = b""
            if not data:
                raise Unavailable("hyperd closed the connection", hint="see its log; the sandbox may still run")
            self._buffer += data

    async def send_input(self, data: bytes) -> None:
        """Returns when there is room for more. :raise InvalidState: nobody takes it any more."""
        for at in range(0, len(data), _INPUT_MAX):
            await self.send(STDIN, data[at : at + _INPUT_MAX])

    async def send(self, kind: int, payload: bytes) -> None:
        """:raise InvalidState: nobody takes it any more."""
        try:
            self._exchange.writer.write(HEADER.pack(kind, len(payload)) + payload)
            await self._exchange.writer.drain()
        except OSError:
            raise InvalidState("it has ended, or its connection was closed") from None
