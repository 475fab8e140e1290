# SPDX-License-Identifier: Apache-2.0
"""Byte streams to a socket in a container, through the guest's agent.

A stream is a process there (`relay`, of the builder's image), whose stdin and stdout are what is sent and what comes.
So no port is opened anywhere, and the machine needs no network.
"""

from __future__ import annotations

import asyncio
import contextlib
import select
import socket

from ...errors import HyperError
from ...model.specs import ExecSpec
from ...model.status import Container
from ...sys import tasks
from .. import resolve
from ..builtins import running
from ..runtime import Runtime
from ..streams import Reader

_CHUNK = 64 << 10  # bytes
_LOOK = 1.0  # seconds between looks whether who has sent all still listens


class Relays:
    """Streams that are open; each has a task of its own."""

    def __init__(self) -> None:
        self._tasks: set[asyncio.Task[None]] = set()

    def dial(self, runtime: Runtime, container: Container, path: str, seconds: int) -> socket.socket:
        """One end of a stream to the socket at `path`, for which the guest waits up to `seconds`.

        When nobody listens there, or the machine has gone, it ends without a byte. Who closes it ends the stream.
        """
        ours, theirs = socket.socketpair()
        ours.setblocking(False)
        theirs.setblocking(False)
        task = asyncio.create_task(_carry(runtime, container, ["relay", path, str(seconds)], theirs))
        self._tasks.add(task)
        task.add_done_callback(self._tasks.discard)
        return ours

    async def close(self) -> None:
        """End all."""
        await tasks.end(self._tasks)


async def _carry(runtime: Runtime, container: Container, command: list[str], end: socket.socket) -> None:
    process = resolve.exec_process(container, ExecSpec(command=command, stdin=True), (0, 0))
    with end, contextlib.suppress(HyperError, OSError):
        async with running(runtime.agent, process) as (handle, reader):
            receiving = asyncio.create_task(_receive(reader, end))
            try:
                while data := await _read(end):
                    await handle.write_stdin(data)
                handle.close_stdin()
                await _until_nobody_listens(end, receiving)
            finally:
                await tasks.end([receiving])


async def _read(end: socket.socket) -> bytes:
    return await asyncio.get_running_loop().sock_recv(end, _CHUNK)


async def _receive(reader: Reader, end: socket.socket) -> None:
    """What the relay says on stderr is that nobody listens, which its end tells, too."""
    with contextlib.suppress(OSError):
        async for stream, data in reader:
            if stream == 1:
                await asyncio.get_running_loop().sock_sendall(end, data)
        end.shutdown(socket.SHUT_RDWR)


async def _until_nobody_listens(end: socket.socket, receiving: asyncio.Task[None]) -> None:
    """All has been sent: the answer may take its time, unless the other end was closed."""
    poll = select.poll()
    poll.register(end, 0)
    while not receiving.done() and not any(event & select.POLLHUP for _, event in poll.poll(0)):
        await asyncio.wait([receiving], timeout=_LOOK)
