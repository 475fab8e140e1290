# SPDX-License-Identifier: Apache-2.0
"""A client of SPDY/3.1, for tests: it opens streams, and hears what comes on them."""

from __future__ import annotations

import asyncio
import contextlib
import socket
import struct
import zlib
from collections.abc import AsyncIterator, Callable
from urllib.parse import urlsplit

from hypercontainer.cri.streaming.spdy_headers import DICTIONARY

LIMIT = 60.0  # seconds for what is awaited


class Refused(Exception):
    """The head of an answer that is no upgrade."""


class SpdyClient:
    """Writes and reads frames by its own means: of ours it has the dictionary alone."""

    def __init__(self, read: Callable[[], object], write: Callable[[bytes], object]) -> None:
        """`read` gives bytes, b"" at the end; both are awaited."""
        self._read, self._write = read, write
        self._deflate = zlib.compressobj(9, zdict=DICTIONARY)
        self._inflate = zlib.decompressobj(zdict=DICTIONARY)
        self._next = 1
        self.heard: dict[int, bytearray] = {}
        self.over: set[int] = set()  # streams that the server has ended
        self.replied: set[int] = set()
        self.reset: dict[int, int] = {}
        self.pings: list[int] = []
        self.gone_away = False
        self.ended = asyncio.Event()
        self.head = ""  # of the answer of HTTP
        self._moved = asyncio.Event()

    async def open(self, **headers: str) -> int:
        """A stream with these headers; its number."""
        stream, self._next = self._next, self._next + 2
        self.heard[stream] = bytearray()
        await self.raw(self.opened(stream, headers))
        return stream

    def opened(self, stream: int, headers: dict[str, str]) -> bytes:
        block = struct.pack(">I", len(headers))
        for text in (t.encode() for pair in headers.items() for t in pair):
            block += struct.pack(">I", len(text)) + text
        packed = self._deflate.compress(block) + self._deflate.flush(zlib.Z_SYNC_FLUSH)
        return struct.pack(">HHIIIH", 0x8003, 1, len(packed) + 10, stream, 0, 0) + packed

    async def send(self, stream: int, data: bytes, *, fin: bool = False) -> None:
        await self.raw(struct.pack(">II", stream, fin << 24 | len(data)) + data)

    async def ping(self, number: int) -> None:
        await self.raw(struct.pack(">HHII", 0x8003, 6, 4, number))

    async def cancel(self, stream: int) -> None:
        await self.raw(struct.pack(">HHIII", 0x8003, 3, 8, stream, 5))

    async def raw(self, data: bytes) -> None:
        await self._write(data)  # type: ignore[misc]

    async def until(self, what: Callable[[], bool]) -> None:
        """Until it is so, or there is nothing more to come."""
        async with asyncio.timeout(LIMIT):
            while not what():
                assert not self.ended.is_set(), f"the server has gone: {self.heard}, {self.reset}"
                self._moved.clear()
                await self._moved.wait()

    async def listen(self) -> None:
        buffer = bytearray()
        while data := await self._read():  # type: ignore[misc]
            buffer += data
            while len(buffer) >= 8 and len(buffer) >= (size := 8 + int.from_bytes(buffer[5:8])):
                frame = bytes(buffer[:size])
                del buffer[:size]
                self._taken(frame)
                self._moved.set()
        self.ended.set()
        self._moved.set()

    def _taken(self, frame: bytes) -> None:
        first, flags = int.from_bytes(frame[:4]), frame[4]
        number = int.from_bytes(frame[8:12])
        if not first >> 31:
            self.heard[first] += frame[8:]
            if flags & 1:
                self.over.add(first)
            return
        kind = first & 0xFFFF
        assert first >> 16 == 0x8003, frame
        if kind == 2:
            assert self._inflate.decompress(frame[12:])[:4] == bytes(4)
            self.replied.add(number)
        elif kind == 3:
            self.reset[number] = int.from_bytes(frame[12:16])
        elif kind == 6:
            self.pings.append(number)
        elif kind == 7:
            self.gone_away = True


@contextlib.asynccontextmanager
async def listening(client: SpdyClient) -> AsyncIterator[SpdyClient]:
    """While it hears what comes."""
    task = asyncio.create_task(client.listen())
    try:
        yield client
    finally:
        task.cancel()
        with contextlib.suppress(asyncio.CancelledError):
            await task


@contextlib.asynccontextmanager
async def upgraded(url: str, *protocols: str, limit: int = 1 << 16) -> AsyncIterator[SpdyClient]:
    """As kubectl before 1.31 upgrades. :raise Refused: the server does not."""
    parts = urlsplit(url)
    reader, writer = await asyncio.open_connection(parts.hostname, parts.port, limit=limit)
    try:
        head = f"POST {parts.path} HTTP/1.1\r\nHost: {parts.netloc}\r\nConnection: Upgrade\r\nUpgrade: SPDY/3.1\r\n"
        head += "".join(f"X-Stream-Protocol-Version: {p}\r\n" for p in protocols)
        writer.write(head.encode() + b"\r\n")
        async with asyncio.timeout(LIMIT):
            answer = (await reader.readuntil(b"\r\n\r\n")).decode()
            if not answer.startswith("HTTP/1.1 101 "):
                raise Refused(answer + (await reader.read(1 << 16)).decode())

        async def write(data: bytes) -> None:
            writer.write(data)
            await writer.drain()

        client = SpdyClient(lambda: reader.read(1 << 16), write)
        client.head = answer
        async with listening(client):
            yield client
    finally:
        # A reset: an end would have to wait until the server has taken what was sent before (socket(7), SO_LINGER).
        sock = writer.get_extra_info("socket")
        sock.setsockopt(socket.SOL_SOCKET, socket.SO_LINGER, struct.pack("ii", 1, 0))
        writer.transport.abort()
