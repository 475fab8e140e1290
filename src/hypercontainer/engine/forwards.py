# SPDX-License-Identifier: Apache-2.0
"""Connections of clients to ports within pods, whatever network a pod has: the guest connects, and relays."""

from __future__ import annotations

import asyncio
from collections import Counter
from typing import Protocol

from ..errors import GuestError, InvalidArgument, Unavailable
from ..guest.agent import Process, Relay, require
from ..model.status import Pod
from ..sys import tasks
from .builtins import running
from .registry import Registry
from .runtime import Runtime
from .sandboxes import Sandboxes
from .streams import Reader

_CONNECT = 10.0  # seconds in which whoever listens has accepted
_EACH_MAX = 256  # connections of one pod at a time: each is a process of its guest
_WORDS_MAX = 4096  # bytes of why there is no connection


class Client(Protocol):
    """Its side of one connection. Only one task reads, and only one writes."""

    async def read(self) -> bytes:
        """What it says next; b"" when it says no more. :raise ConnectionError: it has gone."""

    async def write(self, data: bytes) -> None:
        """Returns when there is room for more. :raise ConnectionError: it has gone."""


class Forwards:
    """Connections to pods' ports; they end with the pod, with the client, or when the server has said all."""

    def __init__(self, registry: Registry, sandboxes: Sandboxes) -> None:
        self._registry = registry
        self._sandboxes = sandboxes
        self._open: Counter[str] = Counter()  # by pod

    def check(self, key: str, ports: list[int]) -> Pod:
        """Whether connections may be asked for.

        :raise InvalidArgument: no such port can be. :raise InvalidState: the pod does not run.
        :raise Unsupported: its guest is too old.
        """
        for port in ports:
            if not 0 < port < 1 << 16:
                raise InvalidArgument(f"{port} is no TCP port", hint="give one of 1 to 65535")
        pod = self._registry.pod(key)
        require(self._sandboxes.awake(pod).agent, Relay)
        return pod

    async def connect(self, key: str, port: int, client: Client) -> None:
        """One connection to its end.

        :raise GuestError: nobody listens there, or it broke off. :raise ConnectionError: the client has gone.
        :raise Unavailable: the pod has very many.
        """
        pod = self.check(key, [port])
        if self._open[pod.id] >= _EACH_MAX:
            raise Unavailable(f"pod {pod.name} has {_EACH_MAX} forwarded connections", hint="close some")
        self._open[pod.id] += 1
        try:
            runtime = self._sandboxes.awake(pod)
            with runtime.in_use():
                await self._relay(runtime, port, client)
        finally:
            self._open[pod.id] -= 1
            self._open += Counter()  # without those that have none

    async def _relay(self, runtime: Runtime, port: int, client: Client) -> None:
        process = require(runtime.agent, Relay).relay_process(port, _CONNECT)
        async with running(runtime.agent, process) as (handle, reader):
            feeding = asyncio.create_task(_feed(client, handle))
            answering = asyncio.create_task(_answer(client, handle, reader))
            try:
                await asyncio.wait({feeding, answering}, return_when=asyncio.FIRST_COMPLETED)
                if feeding.done() and isinstance(error := feeding.exception(), ConnectionError):
                    raise error
                await answering
            finally:
                await tasks.end([feeding, answering])
                await asyncio.gather(feeding, answering, return_exceptions=True)


async def _feed(client: Client, handle: Process) -> None:
    while data := await client.read():
        await handle.write_stdin(data)
    handle.close_stdin()


async def _answer(client: Client, handle: Process, reader: Reader) -> None:
    said = bytearray()
    async for stream, data in reader:
        if stream == 1:
            await client.write(data)
        else:
            said += data[: _WORDS_MAX - len(said)]
    if status := (await handle.exited).shell_code:
        raise GuestError(said.decode(errors="replace").strip() or f"the connection broke off (status {status})")
