# SPDX-License-Identifier: Apache-2.0
"""A connection with a memory: what was read to find out what it is can be put back."""

from __future__ import annotations

import asyncio
import contextlib
import socket
import ssl
import struct
from collections.abc import Awaitable
from typing import TypeVar

T = TypeVar("T")
CHUNK = 64 << 10  # bytes
IDLE = 3600.0  # seconds without a byte in either direction, after which a connection is none
# Seconds between looks at a connection whose other end has said all, or may have. One that was closed there is not
# known from one that still reads, until its kernel has forgotten it and answers a probe with a reset: after a minute
# (tcp_fin_timeout). A machine that stands still answers no probe, and is waited for (at most 127 of them).
_LOOK = 2
_PROBES_MAX = 127
_STATE_CLOSED = 7  # TCP_CLOSE of linux/tcp_states.h


class Closed(Exception):
    """The other end is gone, or has not moved for too long."""


class Channel:
    """A TCP connection."""

    def __init__(self, reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        self._reader = reader
        self._writer = writer
        self._put_back = b""
        self.read_bytes = self.written_bytes = 0

    @classmethod
    async def over(cls, fd: int) -> Channel:
        """A connected socket, which is this one's from here on."""
        sock = socket.socket(fileno=fd)
        try:
            return cls(*await asyncio.open_connection(sock=sock, limit=CHUNK))
        except BaseException:
            sock.close()
            raise

    async def read(self, timeout: float = IDLE) -> bytes:
        """Some bytes, b"" at their end.

        :raise Closed: the connection broke. :raise TimeoutError: nothing came.
        """
        if self._put_back:
            found, self._put_back = self._put_back, b""
            return found
        try:
            async with asyncio.timeout(timeout):
                found = await self._reader.read(CHUNK)
        except OSError as error:
            if isinstance(error, TimeoutError):
                raise
            raise Closed from error
        self.read_bytes += len(found)
        return found

    def unread(self, data: bytes) -> None:
        """The next `read` gives this first."""
        self._put_back = data + self._put_back

    async def write(self, data: bytes, timeout: float = IDLE) -> None:
        """:raise Closed: the connection broke, or takes nothing."""
        try:
            self._writer.write(data)
            self.written_bytes += len(data)
            async with asyncio.timeout(timeout):
                await self._writer.drain()
        except (OSError, RuntimeError) as error:
            raise Closed from error

    async def end(self) -> None:
        """Nothing more is written; what the other end writes may yet come."""
        with contextlib.suppress(OSError, RuntimeError):
            self._writer.write_eof()

    async def gone(self) -> None:
        """The other end takes nothing any more: it has reset the connection, or its kernel knows of none."""
        sock: socket.socket = self._writer.get_extra_info("socket")
        with contextlib.suppress(OSError):  # it is closed here
            sock.setsockopt(socket.IPPROTO_TCP, socket.TCP_KEEPIDLE, _LOOK)
            sock.setsockopt(socket.IPPROTO_TCP, socket.TCP_KEEPINTVL, _LOOK)
            sock.setsockopt(socket.IPPROTO_TCP, socket.TCP_KEEPCNT, _PROBES_MAX)
            sock.setsockopt(socket.SOL_SOCKET, socket.SO_KEEPALIVE, 1)
            while sock.getsockopt(socket.IPPROTO_TCP, socket.TCP_INFO, 1)[0] != _STATE_CLOSED:
                await asyncio.sleep(_LOOK)

    def reset(self) -> None:
        """It ends in its midst, and the other end knows."""
        sock: socket.socket = self._writer.get_extra_info("socket")
        with contextlib.suppress(OSError):  # it is closed
            sock.setsockopt(socket.SOL_SOCKET, socket.SO_LINGER, struct.pack("ii", 1, 0))
        self._writer.transport.abort()

    def close(self) -> None:
        with contextlib.suppress(OSError, RuntimeError):
            self._writer.close()


class TlsChannel:
    """TLS over a channel, of either side."""

    def __init__(self, below: Channel, context: ssl.SSLContext, *, server_name: str = "") -> None:
        """With a server's name it is the client's side, and verifies whom it speaks to."""
        self._below = below
        self._in, self._out = ssl.MemoryBIO(), ssl.MemoryBIO()
        self._tls = context.wrap_bio(
            self._in, self._out, server_side=not server_name, server_hostname=server_name or None
        )
        self._put_back = b""

    async def shake_hands(self, timeout: float) -> None:
        """:raise ssl.SSLError: with what it failed. :raise Closed: the connection broke."""
        async with asyncio.timeout(timeout):
            while True:
                try:
                    self._tls.do_handshake()
                except ssl.SSLWantReadError:
                    await self._flush()
                    await self._take(timeout)
                    continue
                except ssl.SSLError:
                    with contextlib.suppress(Closed):
                        await self._flush()  # the alert
                    raise
                return await self._flush()

    async def _flush(self) -> None:
        if data := self._out.read():
            await self._below.write(data)

    async def _take(self, timeout: float) -> None:
        if data := await self._below.read(timeout):
            self._in.write(data)
        else:
            self._in.write_eof()

    async def read(self, timeout: float = IDLE) -> bytes:
        """As a channel's. :raise Closed: also when what came is no TLS."""
        if self._put_back:
            found, self._put_back = self._put_back, b""
            return found
        while True:
            try:
                found = self._tls.read(CHUNK)
            except ssl.SSLWantReadError:
                await self._flush()
                await self._take(timeout)
                continue
            except (ssl.SSLZeroReturnError, ssl.SSLEOFError):
                return b""
            except ssl.SSLError as error:
                raise Closed from error
            await self._flush()
            return found

    def unread(self, data: bytes) -> None:
        """The next `read` gives this first."""
        self._put_back = data + self._put_back

    async def write(self, data: bytes, timeout: float = IDLE) -> None:
        """As a channel's."""
        try:
            self._tls.write(data)
        except ssl.SSLError as error:
            raise Closed from error
        await self._flush()

    async def end(self) -> None:
        """TLS has no half that ends alone which all programs know: nothing is told before `close`."""

    async def gone(self) -> None:
        """As a channel's."""
        await self._below.gone()

    def close(self) -> None:
        self._below.close()


Stream = Channel | TlsChannel


async def pipe(one: Stream, other: Stream) -> None:
    """Everything, in both directions, until both have ended, one breaks, or nothing moves any more."""
    moved = [asyncio.get_running_loop().time()]

    async def copy(source: Stream, target: Stream) -> None:
        while True:
            try:
                data = await source.read()
            except TimeoutError:
                if asyncio.get_running_loop().time() - moved[0] >= IDLE:
                    raise
                continue
            moved[0] = asyncio.get_running_loop().time()
            if not data:
                return await target.end()
            await target.write(data)

    there, back = asyncio.ensure_future(copy(one, other)), asyncio.ensure_future(copy(other, one))
    try:
        await asyncio.gather(answered(back, there, one), answered(there, back, other))
    except (OSError, TimeoutError) as error:
        raise Closed from error
    finally:
        for task in (there, back):
            task.cancel()
        await asyncio.gather(there, back, return_exceptions=True)


async def answered(answer: Awaitable[T], said: asyncio.Future[None], stream: Stream) -> T:
    """What comes of it, unless what it answers has failed, or whom it is for is gone.

    `said` ends when all that was sent there has been passed on: until then the connection is read, and tells by itself.

    :raise Closed: it is gone.
    """

    async def gone() -> None:
        await asyncio.wait({said})
        if (error := said.exception()) and not isinstance(error, Closed):  # who is told may answer all the same
            raise error
        await stream.gone()

    waits, watch = asyncio.ensure_future(answer), asyncio.ensure_future(gone())
    try:
        await asyncio.wait({waits, watch}, return_when=asyncio.FIRST_COMPLETED)
        if not waits.done():
            watch.result()
            raise Closed
        return await waits
    finally:
        waits.cancel()
        watch.cancel()
        await asyncio.gather(waits, watch, return_exceptions=True)
