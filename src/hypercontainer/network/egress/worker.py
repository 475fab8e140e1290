# SPDX-License-Identifier: Apache-2.0
"""The process that reads what a pod sends: `python -m hypercontainer.network.egress.worker`, started by `proxy`.

It has no network and no file. Connections are handed to it, the pod's as those to the hosts that it asks for; whether
the pod may have such a host hyperd says, which opens it.
"""

from __future__ import annotations

import asyncio
import contextlib
import os
import socket
import sys
import traceback
from pathlib import Path

import msgspec

from ...jail import seccomp
from ...sys.confine import Confinement, confine
from . import hello, http
from .channel import Channel, Closed, pipe
from .http import Relay, Tunnel
from .injection import Injection
from .messages import Job, Message, receive, send
from .refused import Refused

CALLS = Path(__file__).with_name("calls.txt")
CONNECTIONS_MAX = 256  # of a pod at once
FIRST = 15.0  # seconds until it is known what a connection is to be
_OPENING = 60.0  # seconds that hyperd has to open one
_COUNTS = 5.0  # seconds from telling hyperd of bytes to telling of more
_MEMORY = 1 << 30  # bytes of address space
_DESCRIPTORS = 4 * CONNECTIONS_MAX
_NO_LIMIT = 1 << 30
# A fatal alert, access_denied (RFC 8446, 6): what a client that began TLS is told.
_DENIED = bytes([21, 3, 3, 0, 2, 2, 49])


class Worker:
    """Serves connections until hyperd is gone."""

    def __init__(self, channel: socket.socket, injection: Injection) -> None:
        self._channel = channel
        self._injection = injection
        self._serving: dict[int, asyncio.Task[None]] = {}
        self._counted: dict[Channel, tuple[int, int]] = {}  # bytes to clients and from them, as hyperd knows them
        self._opening: dict[int, asyncio.Future[int]] = {}
        self._gone = asyncio.get_running_loop().create_future()

    async def run(self) -> None:
        """Until hyperd has closed its end."""
        loop = asyncio.get_running_loop()
        loop.add_reader(self._channel, self._hear)
        loop.call_later(_COUNTS, self._count_all)
        await self._gone

    def _count_all(self) -> None:
        for client in self._counted:
            self._count(client)
        asyncio.get_running_loop().call_later(_COUNTS, self._count_all)

    def _count(self, client: Channel) -> None:
        """Tell of what it has got and sent since it was told of before."""
        received, sent = client.written_bytes, client.read_bytes
        before = self._counted[client]
        if (received, sent) != before:
            self._counted[client] = received, sent
            send(self._channel, Message("moved", 0, received=received - before[0], sent=sent - before[1]))

    def _hear(self) -> None:
        message, fd = receive(self._channel)
        if message is None:
            self._gone.set_result(None)
            asyncio.get_running_loop().remove_reader(self._channel)
        elif message.kind == "serve":
            self._serving[message.number] = asyncio.ensure_future(self._serve(message.number, message.port, fd))
        elif message.kind == "end":
            if serving := self._serving.get(message.number):
                serving.cancel()
        elif answer := self._opening.pop(message.number, None):
            if message.kind == "opened":
                answer.set_result(fd)
            else:
                answer.set_exception(Refused(message.why, message.host, message.port))
        elif fd >= 0:  # who asked has given up
            os.close(fd)

    async def _serve(self, number: int, port: int, fd: int) -> None:
        client = None
        try:
            client = await Channel.over(fd)
            self._counted[client] = 0, 0
            await self._lead(number, client, port)
        except Refused as refused:
            message = Message("refused", number, refused.host[:253], refused.port or port, str(refused)[:500])
            send(self._channel, message)
        except (Closed, TimeoutError, OSError):
            pass
        except asyncio.CancelledError:
            if client:
                client.reset()
            raise
        except Exception as error:  # a mistake of ours, which is to be seen
            send(self._channel, Message("refused", number, port=port, why=f"its proxy has failed: {_place(error)}"))
        finally:
            if client:
                client.close()
                self._count(client)
                del self._counted[client]
            self._serving.pop(number, None)
            send(self._channel, Message("done", number))

    async def _lead(self, number: int, client: Channel, port: int) -> None:
        """To where it wants to go, as far as that may be."""

        async def open_(host: str, port: int) -> Channel:
            return await self._open(number, host, port)

        try:
            begin = await client.read(FIRST)
        except TimeoutError:
            raise Refused("it says nothing that names a host", port=port) from None
        client.unread(begin)
        if not begin:
            return
        if hello.is_tls(begin):
            await self._tunnel(client, port, open_)
        elif http.is_http(begin):
            if asked := await Relay(client, port, open_).run():
                await self._connected(client, asked, open_)
        else:
            raise Refused("it is neither TLS nor HTTP", port=port)

    async def _tunnel(self, client: Channel, port: int, open_: http.Open) -> None:
        """TLS, as it is, to the server that it names."""
        name = ""
        try:
            name = await _server_name(client)
            if self._injection.has(name, port):
                return await self._injection.serve(client, name, port, open_)
            far = await open_(name, port)
        except Refused as refused:
            with contextlib.suppress(Closed):
                await client.write(_DENIED, FIRST)
            raise Refused(str(refused), name, port) from None
        try:
            await pipe(client, far)
        finally:
            far.close()

    async def _connected(self, client: Channel, asked: Tunnel, open_: http.Open) -> None:
        """What a CONNECT carries is TLS for the same host."""
        try:
            if await _server_name(client) != asked.host:
                raise Refused("its CONNECT carries TLS for another host", asked.host, asked.port)
            if self._injection.has(asked.host, asked.port):
                return await self._injection.serve(client, asked.host, asked.port, open_)
            await pipe(client, asked.far)
        finally:
            asked.far.close()

    async def _open(self, number: int, host: str, port: int) -> Channel:
        """:raise Refused: hyperd does not."""
        answer = asyncio.get_running_loop().create_future()
        self._opening[number] = answer
        send(self._channel, Message("open", number, host, port))
        try:
            async with asyncio.timeout(_OPENING):
                fd = await answer
        finally:
            self._opening.pop(number, None)
        return await Channel.over(fd)


async def _server_name(client: Channel) -> str:
    """What its TLS asks for; all that was read can be read again. :raise Refused: nothing, or nothing in time."""
    begin = b""
    try:
        async with asyncio.timeout(FIRST):
            while (name := hello.server_name(begin)) is None:
                if not (data := await client.read()):
                    raise Refused("its TLS hello is not whole")
                begin += data
    except TimeoutError:
        raise Refused("its TLS hello is not whole") from None
    client.unread(begin)
    return name


def _place(error: Exception) -> str:
    """What it is, and of which line. Its text may quote a header, with a secret in it."""
    *_, (frame, line) = traceback.walk_tb(error.__traceback__)
    return f"{type(error).__name__} in {frame.f_code.co_name}, line {line}"


async def _main() -> None:
    """All that it will need is there before it gives up its rights."""
    job = msgspec.json.decode(sys.stdin.buffer.read(), type=Job)
    channel = socket.socket(fileno=job.channel)
    channel.setblocking(True)  # hyperd always reads; what it sends is read when it is there
    worker = Worker(channel, Injection(job))
    calls = seccomp.program(seccomp.read(CALLS))
    uid, gid = os.getuid(), os.getgid()
    confine(Confinement(uid, gid, _MEMORY, 0, _NO_LIMIT, _DESCRIPTORS, _NO_LIMIT))
    seccomp.apply(calls)
    await worker.run()


if __name__ == "__main__":
    asyncio.run(_main())
