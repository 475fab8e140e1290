# SPDX-License-Identifier: Apache-2.0
"""Published ports on IPv6 loopback.

The kernel does not route from ::1 to another interface (there is no
route_localnet for IPv6), so what NAT does everywhere else a relay does here.
"""

from __future__ import annotations

import asyncio
import contextlib
from collections.abc import Callable
from typing import Any

LOOPBACK = "::1"
_CHUNK = 64 << 10
_IDLE = 60.0  # seconds after which a UDP conversation is forgotten


class Relay:
    """One port of ::1, relayed to a pod."""

    def __init__(self, protocol: str, port: int, target: tuple[str, int]) -> None:
        self._protocol = protocol
        self._port = port
        self._target = target
        self._close: Callable[[], None] = lambda: None
        self._tasks: set[asyncio.Task[None]] = set()

    async def open(self) -> None:
        """:raise OSError: when the port is taken, or there is no IPv6."""
        try:
            await self._listen()
        except BaseException:
            self.close()
            raise

    async def _listen(self) -> None:
        if self._protocol == "udp":
            transport, _ = await asyncio.get_running_loop().create_datagram_endpoint(
                lambda: _UdpRelay(self._target), local_addr=(LOOPBACK, self._port)
            )
            self._close = transport.close
        else:
            # Who is cancelled while it begins to serve has to close it.
            server = await asyncio.start_server(self._serve, LOOPBACK, self._port, start_serving=False)
            self._close = server.close
            await server.start_serving()

    def close(self) -> None:
        self._close()
        for task in self._tasks:
            task.cancel()

    async def _serve(self, reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        try:
            far_reader, far_writer = await asyncio.open_connection(*self._target)
        except OSError:
            writer.close()
            return
        both = [
            asyncio.ensure_future(copy_stream(reader, far_writer)),
            asyncio.ensure_future(copy_stream(far_reader, writer)),
        ]
        self._tasks.update(both)
        await asyncio.wait(both)
        self._tasks.difference_update(both)
        for end in (writer, far_writer):
            end.close()


async def copy_stream(reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
    """To its end, which is the other's, too; or until one of them breaks."""
    with contextlib.suppress(OSError):
        while data := await reader.read(_CHUNK):
            writer.write(data)
            await writer.drain()
        writer.write_eof()


class _UdpRelay(asyncio.DatagramProtocol):
    """A socket towards the pod for each client."""

    def __init__(self, target: tuple[str, int]) -> None:
        self._target = target
        self._transport: Any = None
        self._clients: dict[Any, asyncio.DatagramTransport] = {}

    def connection_made(self, transport: asyncio.BaseTransport) -> None:
        self._transport = transport

    def datagram_received(self, data: bytes, addr: Any) -> None:
        if addr in self._clients:
            self._clients[addr].sendto(data)
        else:
            asyncio.ensure_future(self._begin(data, addr))  # noqa: RUF006

    async def _begin(self, data: bytes, addr: Any) -> None:
        loop = asyncio.get_running_loop()
        with contextlib.suppress(OSError):
            transport, _ = await loop.create_datagram_endpoint(
                lambda: _Back(self._transport, addr), remote_addr=self._target
            )
            self._clients[addr] = transport
            transport.sendto(data)
            loop.call_later(_IDLE, self._forget, addr)

    def _forget(self, addr: Any) -> None:
        if transport := self._clients.pop(addr, None):
            transport.close()

    def connection_lost(self, exc: Exception | None) -> None:
        for addr in list(self._clients):
            self._forget(addr)


class _Back(asyncio.DatagramProtocol):
    def __init__(self, client: Any, addr: Any) -> None:
        self._client = client
        self._addr = addr

    def datagram_received(self, data: bytes, addr: Any) -> None:
        self._client.sendto(data, self._addr)
