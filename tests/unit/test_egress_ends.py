# SPDX-License-Identifier: Apache-2.0
"""Connections through a pod's proxy whose end is not told by bytes."""

from __future__ import annotations

import asyncio
import contextlib
import socket
import struct
import time
from collections.abc import Awaitable, Callable
from pathlib import Path

import pytest

from hypercontainer.network.egress import http
from hypercontainer.network.egress.channel import Channel, Closed, pipe

REQUEST = b"GET / HTTP/1.1\r\nHost: a.example\r\n\r\n"
TUNNEL = b"bytes"
CLOSE_WAIT, KEEPALIVE = "08", "02"  # a state and a timer in /proc/net/tcp
Leave = Callable[[socket.socket], None]


def reset(sock: socket.socket) -> None:
    sock.setsockopt(socket.SOL_SOCKET, socket.SO_LINGER, struct.pack("ii", 1, 0))
    sock.close()


def forgotten(sock: socket.socket) -> None:
    """It is closed, and its kernel keeps it for a second yet, not for a minute."""
    sock.setsockopt(socket.IPPROTO_TCP, socket.TCP_LINGER2, 1)
    sock.close()


def half(sock: socket.socket) -> None:
    sock.shutdown(socket.SHUT_WR)


def known(port: int, *, column: int) -> list[str]:
    """What this kernel knows of connections from a port (column 1) or to it (2): states, queues, timers (proc(5))."""
    lines = Path("/proc/net/tcp").read_text().splitlines()[1:]
    return [line.strip() for line in lines if line.split()[column].endswith(f":{port:04X}")]


async def until_forgotten(port: int) -> None:
    """A kernel that keeps what is closed for longer than it was told to is no matter of ours."""
    deadline = time.monotonic() + 25
    while found := known(port, column=1):
        if time.monotonic() > deadline:
            pytest.skip(f"this kernel does not forget a closed connection: {found}")
        await asyncio.sleep(0.1)


def asks(line: str) -> bool:
    """This kernel asks the other end of a connection, every few seconds (the timer counts hundredths)."""
    fields = line.split()
    timer, _, when = fields[5].partition(":")
    return fields[3] == CLOSE_WAIT and timer == KEEPALIVE and int(when, 16) <= 500


async def ended(over: asyncio.Event, port: int) -> None:
    """A kernel that asks and hears nothing, which is no matter of ours, is waited for no longer than this."""
    try:
        async with asyncio.timeout(20):
            await over.wait()
    except TimeoutError:
        found = known(port, column=2)
        if found and all(asks(line) for line in found):
            pytest.skip(f"this kernel is not told that a connection is gone: {found}")
        pytest.fail(f"it goes on, and the kernel knows of {found}")


async def closed(writer: asyncio.StreamWriter) -> None:
    writer.close()
    with contextlib.suppress(OSError):
        await writer.wait_closed()


async def relay(client: Channel, open_: Callable[[str, int], Awaitable[Channel]]) -> None:
    await http.Relay(client, 80, open_).run()


async def tunnel(client: Channel, open_: Callable[[str, int], Awaitable[Channel]]) -> None:
    far = await open_("a.example", 443)
    try:
        await pipe(client, far)
    finally:
        far.close()


async def led(lead: Callable[..., Awaitable[None]], sent: bytes, leave: Leave, answer: bytes) -> tuple[bytes, bool]:
    """What a client gets that sends this and leaves, when the host has got it; whether its connection broke."""
    got, asked, over, left = bytearray(), asyncio.Event(), asyncio.Event(), asyncio.Event()
    broke = False

    async def far(reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        try:
            while len(got) < len(sent) and (data := await reader.read(1000)):
                got.extend(data)
            asked.set()
            if answer:
                await reader.read()
                writer.write(answer)
            else:
                await over.wait()
        finally:
            await closed(writer)
            left.set()

    server = await asyncio.start_server(far, "127.0.0.1", 0)

    async def open_(_host: str, _port: int) -> Channel:
        return Channel(*await asyncio.open_connection(*server.sockets[0].getsockname()))

    async def front(reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        nonlocal broke
        client = Channel(reader, writer)
        try:
            await lead(client, open_)
        except Closed:
            broke = True
        finally:
            await closed(writer)
            over.set()

    listener = await asyncio.start_server(front, "127.0.0.1", 0)
    async with server, listener, asyncio.timeout(60):
        with contextlib.closing(socket.create_connection(listener.sockets[0].getsockname())) as sock:
            sock.sendall(sent)
            await asked.wait()
            port = sock.getsockname()[1]
            sock.setblocking(False)
            leave(sock)
            found = await asyncio.get_running_loop().sock_recv(sock, 1000) if answer else b""
            if leave is forgotten:
                await until_forgotten(port)
            await ended(over, port)
            await left.wait()
    return found, broke


@pytest.mark.parametrize("leave", [reset, forgotten])
@pytest.mark.parametrize(("lead", "sent"), [(relay, REQUEST), (tunnel, TUNNEL)])
def test_a_client_that_is_gone_ends_it(lead: Callable[..., Awaitable[None]], sent: bytes, leave: Leave) -> None:
    """The host has not answered yet, and may never."""
    found, broke = asyncio.run(led(lead, sent, leave, b""))
    assert (found, broke) == (b"", True)


def test_a_client_that_only_says_no_more_is_answered() -> None:
    found, broke = asyncio.run(led(tunnel, TUNNEL, half, b"answer"))
    assert (found, broke) == (b"answer", False)
