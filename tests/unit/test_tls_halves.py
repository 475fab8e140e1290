# SPDX-License-Identifier: Apache-2.0
"""TLS as it is served: each side's half ends by itself, a pause loses nothing, nobody holds a connection up."""

from __future__ import annotations

import asyncio
import socket
import ssl
from collections.abc import AsyncIterator, Callable
from contextlib import asynccontextmanager, suppress
from pathlib import Path

import pytest

from hypercontainer.serving.listener import Connection, Listener, ListenLimits
from tests.certificates import Authority

DEADLINE = 20.0


class Server(asyncio.Protocol):
    """What is served: it keeps what comes, and says what it is told to."""

    def __init__(self, connected: asyncio.Queue[Server]) -> None:
        self._connected = connected
        self.got = bytearray()
        self.pause_at: int | None = None
        self.moved, self.half, self.lost = asyncio.Event(), asyncio.Event(), asyncio.Event()
        self.transport: asyncio.Transport

    def connection_made(self, transport: asyncio.BaseTransport) -> None:
        assert isinstance(transport, asyncio.Transport)
        self.transport = transport
        connection = transport.get_protocol()
        assert isinstance(connection, Connection)
        connection.keeps_half = self.half.set
        self._connected.put_nowait(self)

    def data_received(self, data: bytes) -> None:
        self.got += data
        if self.pause_at is not None and len(self.got) >= self.pause_at:
            self.transport.pause_reading()
        self.moved.set()

    def connection_lost(self, exc: Exception | None) -> None:
        self.lost.set()

    async def until(self, what: Callable[[Server], bool]) -> None:
        async with asyncio.timeout(DEADLINE):
            while not what(self):
                self.moved.clear()
                await self.moved.wait()


class Client:
    """TLS over a socket, of which it can end one half, as Go's programs do and Python's streams do not."""

    def __init__(self, context: ssl.SSLContext, reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        self._in, self._out = ssl.MemoryBIO(), ssl.MemoryBIO()
        self.tls = context.wrap_bio(self._in, self._out, server_hostname="localhost")
        self._reader, self.writer = reader, writer

    async def _do(self, what: Callable[[], bytes | None]) -> bytes | None:
        while True:
            try:
                return what()
            except ssl.SSLWantReadError:
                self._flush()
                async with asyncio.timeout(DEADLINE):
                    data = await self._reader.read(1 << 16)
                self._in.write(data) if data else self._in.write_eof()
            finally:
                self._flush()

    def _flush(self) -> None:
        self.writer.write(self._out.read())

    async def shake(self) -> None:
        await self._do(self.tls.do_handshake)  # type: ignore[func-returns-value]

    async def read(self) -> bytes:
        """b"" when the server has ended its half."""
        with suppress(ssl.SSLZeroReturnError):
            return await self._do(lambda: self.tls.read(1 << 16)) or b""
        return b""

    def send(self, data: bytes) -> None:
        rest = memoryview(data)
        while rest:
            rest = rest[self.tls.write(rest) :]
        self._flush()

    def end(self) -> None:
        with suppress(ssl.SSLWantReadError):
            self.tls.unwrap()
        self._flush()


@asynccontextmanager
async def connected(directory: Path) -> AsyncIterator[tuple[Client, Server]]:
    async with listening(directory) as (listener, servers, context, port):
        reader, writer = await asyncio.open_connection("127.0.0.1", port)
        client = Client(context, reader, writer)
        await client.shake()
        client.send(b"!")
        async with asyncio.timeout(DEADLINE):
            server = await servers.get()
        yield client, server
        writer.close()
        async with asyncio.timeout(DEADLINE):
            await server.lost.wait()
        assert listener.connections == 0


@asynccontextmanager
async def listening(
    directory: Path, limits: ListenLimits | None = None
) -> AsyncIterator[tuple[Listener, asyncio.Queue[Server], ssl.SSLContext, int]]:
    ca = Authority(directory)
    pair = ca.sign("server", server=True)
    tls = ssl.SSLContext(ssl.PROTOCOL_TLS_SERVER)
    tls.load_cert_chain(pair.cert, pair.key)
    servers: asyncio.Queue[Server] = asyncio.Queue()

    with socket.create_server(("127.0.0.1", 0)) as sock:
        listener = Listener(sock, lambda: Server(servers), limits or ListenLimits(), tls)
        listener.start()
        yield listener, servers, ca.client(), sock.getsockname()[1]
        await listener.close()


async def test_the_client_ends_its_half_and_reads_on(tmp_path: Path) -> None:
    async with connected(tmp_path) as (client, server):
        client.send(b"all of it")
        client.end()
        async with asyncio.timeout(DEADLINE):
            await server.half.wait()
        assert bytes(server.got) == b"!all of it"
        server.transport.write(b"late " * 100_000)
        server.transport.write_eof()
        got = b""
        while piece := await client.read():
            got += piece
        assert got == b"late " * 100_000


async def test_the_server_ends_its_half_and_reads_on(tmp_path: Path) -> None:
    async with connected(tmp_path) as (client, server):
        await server.until(lambda s: len(s.got) == 1)
        server.transport.write(b"bye")
        server.transport.write_eof()
        assert (await client.read(), await client.read()) == (b"bye", b"")
        client.send(b"late")
        await server.until(lambda s: s.got.endswith(b"late"))


async def test_who_closes_has_gone(tmp_path: Path) -> None:
    """With a word or without: the half that was left is of no use."""
    for word in (True, False):
        async with connected(tmp_path / str(word)) as (client, server):
            if word:
                client.end()
            client.writer.close()
            async with asyncio.timeout(DEADLINE):
                await server.lost.wait()
            assert server.transport.is_closing()


async def test_a_pause_loses_nothing(tmp_path: Path) -> None:
    data = bytes(range(256)) * 8192  # 2 MiB
    async with connected(tmp_path) as (client, server):
        server.pause_at = 1000
        client.send(data)
        client.end()
        while len(server.got) < len(data) + 1:
            seen = len(server.got)
            server.pause_at = seen + 100_000
            server.transport.resume_reading()
            await server.until(lambda s, seen=seen: len(s.got) > seen)  # type: ignore[misc]
        assert bytes(server.got) == b"!" + data
        server.transport.resume_reading()
        async with asyncio.timeout(DEADLINE):
            await server.half.wait()


async def test_what_is_no_tls_is_let_go(tmp_path: Path) -> None:
    async with listening(tmp_path) as (listener, _, _, port):
        reader, writer = await asyncio.open_connection("127.0.0.1", port)
        writer.write(b"GET / HTTP/1.1\r\nHost: x\r\n\r\n")
        async with asyncio.timeout(DEADLINE):
            await reader.read()
        writer.close()
        async with asyncio.timeout(DEADLINE):
            while listener.connections:
                await asyncio.sleep(0)


@pytest.mark.parametrize("half", [b"", b"\x16\x03\x01\x02\x00\x01"])
async def test_a_handshake_that_does_not_go_on_is_ended(tmp_path: Path, half: bytes) -> None:
    async with listening(tmp_path, ListenLimits(handshake_time=0.2)) as (listener, _, _, port):
        reader, writer = await asyncio.open_connection("127.0.0.1", port)
        writer.write(half)
        async with asyncio.timeout(DEADLINE):
            with suppress(ConnectionError):
                assert await reader.read() == b""
        writer.close()
        async with asyncio.timeout(DEADLINE):
            while listener.connections:
                await asyncio.sleep(0)
