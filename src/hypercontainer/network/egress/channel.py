# SPDX-License-Identifier: Apache-2.0
"""A connection with a memory: what was read to find out what it is can be put back."""

from __future__ import annotations

import asyncio
import contextlib
import socket
import ssl

CHUNK = 64 << 10  # bytes
IDLE = 3600.0  # seconds without a byte in either direction, after which a connection is none


class Closed(Exception):
    """The other end is gone, or has not moved for too long."""


class Channel:
    """A TCP connection."""

    def __init__(self, reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        self._reader = reader
        self._writer = writer
        self._put_back = b""

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
                return await self._reader.read(CHUNK)
        except OSError as error:
            if isinstance(error, TimeoutError):
                raise
            raise Closed from error

    def unread(self, data: bytes) -> None:
        """The next `read` gives this first."""
        self._put_back = data + self._put_back

    async def write(self, data: bytes, timeout: float = IDLE) -> None:
        """:raise Closed: the connection broke, or takes nothing."""
        try:
            self._writer.write(data)
            async with asyncio.timeout(timeout):
                await self._writer.drain()
        except (OSError, RuntimeError) as error:
            raise Closed from error

    async def end(self) -> None:
        """Nothing more is written; what the other end writes may yet come."""
        with contextlib.suppress(OSError, RuntimeError):
            self._writer.write_eof()

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

    copies = {asyncio.ensure_future(copy(one, other)), asyncio.ensure_future(copy(other, one))}
    try:
        done, _ = await asyncio.wait(copies, return_when=asyncio.FIRST_EXCEPTION)
    finally:
        for task in copies:
            task.cancel()
        await asyncio.gather(*copies, return_exceptions=True)
    for task in done:
        if task.exception():
            raise Closed from task.exception()
