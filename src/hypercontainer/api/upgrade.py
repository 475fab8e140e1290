# SPDX-License-Identifier: Apache-2.0
"""An attached client of REST: frames both ways, after `Upgrade: tcp`.

Both directions carry frames with Docker's 8-byte header:

    type:u8  0 0 0  length:u32 big-endian  payload

    to the client   1 stdout, 2 stderr, 3 status (JSON, see `Ended`; or {"error": {...}}), last
    to the daemon   0 stdin (empty: end of input), 4 window size (JSON: {"rows": n, "columns": n})
"""

from __future__ import annotations

import asyncio
import contextlib
from typing import Annotated

import msgspec
from aiohttp import web
from msgspec import Meta

from ..engine.attach.peer import End, Input, InputEnd, Resize, Said, frame
from ..errors import InvalidArgument
from ..model.base import Model
from ..model.frames import HEADER, RESIZE, STATUS, STDIN
from ..model.trace import Span
from ..serving.listener import Connection
from ..sys import tasks
from ..sys.documents import UNREADABLE
from .router import error_body

_PAUSE_ABOVE = 256 << 10  # bytes of input that wait for the session
_FRAME_MAX = 1 << 20
_LINGER = 2.0  # seconds that a client has to close after the last word
_DROPPED_MAX = 8 << 20  # bytes that it may send meanwhile


CELLS_MAX = 0xFFFF  # ioctl_tty(2): struct winsize has 16 bits for each
Cells = Annotated[int, Meta(ge=0, le=CELLS_MAX)]


class WindowSize(Model, frozen=True, kw_only=True):
    """A terminal's size in characters."""

    rows: Cells
    columns: Cells


class Ended(Model, frozen=True, kw_only=True):
    """The last frame; `message` says why, when that was not the program."""

    exit_code: int
    message: str = ""
    detached: bool = False  # by the keys: the process goes on
    trace: list[Span] = msgspec.field(default_factory=list)


class FrameInput:
    """Takes over a connection's bytes; aiohttp calls `feed_data` and `feed_eof`."""

    def __init__(self, transport: asyncio.Transport) -> None:
        self._transport = transport
        self._buffer = bytearray()
        self._frames: asyncio.Queue[tuple[int, bytes] | None] = asyncio.Queue()
        self._waiting = 0
        self._droppable: int | None = None  # bytes, where no input is wanted any more
        self._over = asyncio.Event()
        self.ended = False  # aiohttp has lost the connection

    def feed_data(self, data: bytes) -> tuple[bool, bytes]:
        if self._droppable is not None:
            self._drop(len(data))
            return False, b""
        self._buffer += data
        while len(self._buffer) >= HEADER.size:
            kind, length = HEADER.unpack_from(self._buffer)
            if length > _FRAME_MAX:
                self._transport.abort()
                break
            if len(self._buffer) < HEADER.size + length:
                break
            payload = bytes(self._buffer[HEADER.size : HEADER.size + length])
            del self._buffer[: HEADER.size + length]
            self._frames.put_nowait((kind, payload))
            self._waiting += length
        if self._waiting > _PAUSE_ABOVE:
            self._transport.pause_reading()
        return False, b""

    def _drop(self, count: int) -> None:
        self._droppable = (self._droppable or 0) - count
        if self._droppable < 0:
            self._over.set()

    def feed_eof(self) -> None:
        self.ended = True
        self._frames.put_nowait(None)
        self._over.set()

    def set_exception(self, exc: BaseException, *_: object) -> None:
        self._frames.put_nowait(None)
        self._over.set()

    async def over(self) -> None:
        """Until the client has ended its half, or has sent more than anybody would; what comes is dropped."""
        self._droppable = _DROPPED_MAX
        self._buffer.clear()
        connection = self._transport.get_protocol()
        if isinstance(connection, Connection):
            connection.keeps_half = self._over.set
        with contextlib.suppress(RuntimeError):
            self._transport.resume_reading()
        try:
            await self._over.wait()
        except asyncio.CancelledError:
            if not self.ended:
                raise
            # aiohttp ends who handles the request of a client that has gone: as it should have.
            if task := asyncio.current_task():
                task.uncancel()

    async def next(self) -> tuple[int, bytes] | None:
        """A frame; None when the client has gone."""
        frame_ = await self._frames.get()
        if frame_ is None:
            return None
        self._waiting -= len(frame_[1])
        if self._waiting <= _PAUSE_ABOVE and not self._transport.is_closing():
            with contextlib.suppress(RuntimeError):
                self._transport.resume_reading()
        return frame_


class UpgradedPeer:
    """The client of a request."""

    def __init__(self, request: web.Request, headers: dict[str, str], trace: list[Span] | None = None) -> None:
        """`trace` is told at the end."""
        self.response = web.StreamResponse(status=101, headers={"Connection": "Upgrade", "Upgrade": "tcp", **headers})
        self._request = request
        self._trace = trace or []
        self._input: FrameInput | None = None

    @property
    def gone(self) -> bool:
        """aiohttp tells the input before it cancels who handles the request; when the daemon ends, after that."""
        return self._input is not None and self._input.ended

    async def open(self) -> None:
        transport = self._request.transport
        if not isinstance(transport, asyncio.Transport):
            raise ConnectionResetError("the client has gone")
        self._input = FrameInput(transport)
        await self.response.prepare(self._request)
        self._request.protocol.set_parser(self._input)  # type: ignore[arg-type]

    async def receive(self) -> Said | None:
        assert self._input is not None
        while found := await self._input.next():
            kind, payload = found
            if kind == STDIN:
                return Input(payload) if payload else InputEnd()
            if kind == RESIZE:
                try:
                    size = msgspec.json.decode(payload, type=WindowSize)
                except UNREADABLE as error:
                    raise InvalidArgument(f"a window's size is not understood: {error}") from None
                return Resize(size.rows, size.columns)
        return None

    async def send(self, stream: int, data: bytes) -> None:
        await self.response.write(frame(stream, data))

    async def finish(self, end: End) -> None:
        status = {"error": error_body(end.error)} if end.error else self._ended(end)
        with contextlib.suppress(ConnectionError):
            await self.response.write(frame(STATUS, msgspec.json.encode(status)))
            await self.response.write_eof()
        if (transport := self._request.transport) and self._input:
            await self._linger(transport, self._input)
            transport.close()

    async def _linger(self, transport: asyncio.Transport, incoming: FrameInput) -> None:
        """What a client still sends when we close resets its connection, and with that goes what it has not read."""
        with contextlib.suppress(OSError, TimeoutError):
            if transport.can_write_eof() and not transport.is_closing():
                transport.write_eof()
                await tasks.within(incoming.over(), _LINGER)

    def _ended(self, end: End) -> Ended:
        return Ended(exit_code=end.exit_code or 0, message=end.message, detached=end.detached, trace=self._trace)
