# SPDX-License-Identifier: Apache-2.0
"""The framed stream of attach and exec, after `Upgrade: tcp`.

Both directions carry frames with Docker's 8-byte header:

    type:u8  0 0 0  length:u32 big-endian  payload

    to the client   1 stdout, 2 stderr, 3 status (JSON: {"exitCode": n, "message": "why"} or {"error": {...}}), last
    to the daemon   0 stdin (empty: end of input), 4 window size (JSON: {"rows": n, "columns": n})
"""

from __future__ import annotations

import asyncio
import contextlib
import struct
from collections.abc import AsyncIterator

import msgspec
from aiohttp import web

from ..engine.streams import FanOut, Reader
from ..errors import HyperError
from ..model.base import Model
from ..model.trace import Span

STDIN, STDOUT, STDERR, STATUS, RESIZE = range(5)
HEADER = struct.Struct(">B3xI")
_PAUSE_ABOVE = 256 << 10  # bytes of input that wait for the guest
_FRAME_MAX = 1 << 20


class WindowSize(Model, frozen=True, kw_only=True):
    """A terminal's size in characters."""

    rows: int
    columns: int


class Ended(Model, frozen=True, kw_only=True):
    """The last frame; `message` says why, when that was not the program."""

    exit_code: int
    message: str = ""
    trace: list[Span] = msgspec.field(default_factory=list)


class FrameInput:
    """Takes over a connection's bytes; aiohttp calls `feed_data` and `feed_eof`."""

    def __init__(self, transport: asyncio.Transport) -> None:
        self._transport = transport
        self._buffer = bytearray()
        self._frames: asyncio.Queue[tuple[int, bytes] | None] = asyncio.Queue()
        self._waiting = 0

    def feed_data(self, data: bytes) -> tuple[bool, bytes]:
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

    def feed_eof(self) -> None:
        self._frames.put_nowait(None)

    def set_exception(self, exc: BaseException, *_: object) -> None:
        self._frames.put_nowait(None)

    async def frames(self) -> AsyncIterator[tuple[int, bytes]]:
        while (frame := await self._frames.get()) is not None:
            self._waiting -= len(frame[1])
            if self._waiting <= _PAUSE_ABOVE and not self._transport.is_closing():
                with contextlib.suppress(RuntimeError):
                    self._transport.resume_reading()
            yield frame


class UpgradedStream:
    """One attached client."""

    def __init__(self, request: web.Request, headers: dict[str, str]) -> None:
        self._request = request
        self._response = web.StreamResponse(status=101, headers={"Connection": "Upgrade", "Upgrade": "tcp", **headers})
        self._input: FrameInput | None = None

    async def open(self) -> web.StreamResponse:
        transport = self._request.transport
        assert isinstance(transport, asyncio.Transport)
        self._input = FrameInput(transport)
        await self._response.prepare(self._request)
        self._request.protocol.set_parser(self._input)  # type: ignore[arg-type]
        return self._response

    async def send(self, kind: int, payload: bytes) -> None:
        await self._response.write(HEADER.pack(kind, len(payload)) + payload)

    async def send_status(self, status: object) -> None:
        with contextlib.suppress(ConnectionError):
            await self.send(STATUS, msgspec.json.encode(status))
            await self._response.write_eof()
        if self._request.transport:
            self._request.transport.close()

    async def copy_output(self, reader: Reader, wanted: frozenset[int]) -> None:
        async for stream, data in reader:
            if stream in wanted:
                await self.send(stream, data)

    async def copy_input(self, fan_out: FanOut, *, close_stdin: bool) -> None:
        """Until the client leaves. Input for a process that has not started waits for it."""
        assert self._input is not None
        async for kind, payload in self._input.frames():
            await fan_out.started.wait()
            handle = fan_out.handle
            if handle is None:
                continue
            if kind == STDIN and payload:
                await handle.write_stdin(payload)
            elif kind == STDIN and close_stdin:
                handle.close_stdin()
            elif kind == RESIZE:
                size = msgspec.json.decode(payload, type=WindowSize)
                with contextlib.suppress(HyperError):  # it may have ended, or have no terminal
                    await handle.resize(size.rows, size.columns)
