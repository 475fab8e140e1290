# SPDX-License-Identifier: Apache-2.0
"""A connection that an operation takes from HTTP: after the head of its answer, bytes both ways until one side ends.

Either side may end its half first, and go on to read. aiohttp knows no such thing: it takes the end of what comes for
the end of the client, so the listener's connection is told otherwise (`listener.Connection.keeps_half`).
"""

from __future__ import annotations

import asyncio
import contextlib
import select
from collections import deque

from aiohttp import web

from ..sys import tasks
from .listener import Connection

_PAUSE_ABOVE = 256 << 10  # bytes that wait for who reads
_LINGER = 5.0  # seconds that a client has to end its half, when we have ended ours


class Hijacked(web.StreamResponse):
    """The head, and then bytes as they are: neither a length nor chunks."""

    _length_check = False

    def __init__(self, request: web.Request, content_type: str, protocol: str = "tcp") -> None:
        """As Docker: 101 for a client that asks for an upgrade to this protocol, 200 for one that does not."""
        upgrades = request.headers.get("Upgrade", "").lower() == protocol
        fields = {"Connection": "Upgrade", "Upgrade": protocol} if upgrades else {}
        super().__init__(status=101 if upgrades else 200, headers={**fields, "Content-Type": content_type})
        if upgrades:
            self.set_status(101, "UPGRADED")
        self.force_close()
        self._request = request
        self._incoming: Incoming | None = None

    async def open(self) -> None:
        """:raise ConnectionError: the client has gone."""
        transport = self._request.transport
        if not isinstance(transport, asyncio.Transport):
            raise ConnectionResetError("the client has gone")
        self._incoming = Incoming(transport)
        await self.prepare(self._request)
        self._request.protocol.set_parser(self._incoming)  # type: ignore[arg-type]

    async def read(self) -> bytes | None:
        """What comes next; b"" once, when the client has ended its half; None when it has gone."""
        assert self._incoming is not None
        return await self._incoming.read()

    async def end(self) -> None:
        """Our half, then the connection: what the client still sends is not read, and would reset it."""
        incoming, transport = self._incoming, self._request.transport
        if incoming is None or transport is None:
            return
        with contextlib.suppress(ConnectionError, TimeoutError):
            await self.write_eof()
            if transport.can_write_eof():
                transport.write_eof()
                await tasks.within(incoming.over(), _LINGER)
        transport.close()


class Incoming:
    """Takes over what comes; aiohttp calls `feed_data`, `feed_eof` and `set_exception`, as of a parser."""

    def __init__(self, transport: asyncio.Transport) -> None:
        self._transport = transport
        self._pieces: deque[bytes] = deque()
        self._waiting = 0
        self._moved = asyncio.Event()
        self._half = False  # the client has ended its half
        self._told = False  # of that, who reads
        self._gone = False
        self._dropping = False
        self._poll: select.epoll | None = None
        connection = transport.get_protocol()
        if isinstance(connection, Connection):
            connection.keeps_half = self.half_closed

    def feed_data(self, data: bytes) -> tuple[bool, bytes]:
        if not self._dropping:
            self._pieces.append(data)
            self._waiting += len(data)
            self._moved.set()
        if self._waiting > _PAUSE_ABOVE:
            self._transport.pause_reading()
        return False, b""

    def feed_eof(self) -> None:
        self._gone = True
        self._moved.set()
        if self._poll:
            asyncio.get_running_loop().remove_reader(self._poll.fileno())
            self._poll.close()
            self._poll = None

    def set_exception(self, exc: BaseException, *_: object) -> None:
        self.feed_eof()

    def half_closed(self) -> None:
        """Nothing comes any more; whether the client is still there says its socket, which nobody reads by now."""
        self._half = True
        self._moved.set()
        with contextlib.suppress(OSError):  # without it, the next byte for the client tells
            self._poll = select.epoll()
            self._poll.register(self._transport.get_extra_info("socket").fileno(), 0)  # EPOLLHUP, EPOLLERR: always
            asyncio.get_running_loop().add_reader(self._poll.fileno(), self._transport.abort)

    async def read(self) -> bytes | None:
        while not self._pieces:
            if self._gone:
                return None
            if self._half and not self._told:
                self._told = True
                return b""
            self._moved.clear()
            await self._moved.wait()
        data = self._pieces.popleft()
        self._take(len(data))
        return data

    def _take(self, count: int) -> None:
        self._waiting -= count
        if self._waiting <= _PAUSE_ABOVE and not self._transport.is_closing():
            with contextlib.suppress(RuntimeError):
                self._transport.resume_reading()

    async def over(self) -> None:
        """Until the client has ended its half; what comes is dropped."""
        self._dropping = True
        self._pieces.clear()
        self._take(self._waiting)
        while not (self._half or self._gone):
            self._moved.clear()
            await self._moved.wait()
