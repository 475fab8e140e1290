# SPDX-License-Identifier: Apache-2.0
"""One guest for each way to run an agent, and the same programs for all; the tests know only the port.

The fake speaks the protocol and has programs written in Python. hyperstart runs twice: as a process of this host,
where it has no disks, and so no containers; and in a virtual machine.
"""

from __future__ import annotations

import asyncio
import shutil
import socket
import tempfile
from abc import ABC, abstractmethod
from dataclasses import dataclass, replace
from pathlib import Path
from typing import Any, ClassVar

from hypercontainer.guest.agent import Agent, Process
from hypercontainer.guest.greet import find, greet
from hypercontainer.hypervisor.driver import Disk, Machine
from hypercontainer.images.store import ImageStore
from hypercontainer.protocol.constants import FIRST_TOKEN
from hypercontainer.protocol.messages import ExitStatus, GuestContainer, GuestProcess
from hypercontainer.volumes.scratch import ScratchDisks

from .conftest import DEADLINE, FakeOne, Host, QemuOne, ToyOne

IMAGE, SCRATCH = "image", "scratch"  # disks
HOME, HOME_IMAGE, HOME_SCRATCH = "home", "himage", "hscratch"  # a container that is there from the start, and its disks
SCRIPTS = {  # what the fake's programs of these names do
    "true": "exit 0", "exit": 'exit "$1"', "echo": 'echo "$@"', "cat": "exec cat", "sleep": 'exec sleep "$1"',
    "flood": 'head -c "$1" /dev/zero', "oom": "exec tail /dev/zero",
}  # fmt: skip


class Output:
    """Keeps a process's output; may stop acknowledging."""

    def __init__(self, *, accept: bool = True) -> None:
        self.data = {1: bytearray(), 2: bytearray()}
        self.ended: set[int] = set()
        self.has_exited = False
        self.missing = 0
        self.accept = accept
        self._came = asyncio.Event()

    def write(self, stream: int, data: bytes) -> int:
        self.data[stream] += data
        self._came.set()
        return len(data) if self.accept else 0

    def end(self, stream: int) -> None:
        self.ended.add(stream)

    def exited(self) -> None:
        self.has_exited = True

    def lost(self, stream: int, count: int) -> None:
        self.missing += count

    async def until(self, size: int) -> None:
        """So much of stdout has come."""
        async with asyncio.timeout(DEADLINE):
            while len(self.data[1]) < size:
                self._came.clear()
                await self._came.wait()


class Guest(ABC):
    """A machine, and what runs in it."""

    containers = True  # it can have some
    boots = True  # else it is as old as this host
    home = ""  # the container that processes are started in

    def __init__(self, host: Host) -> None:
        self.host = host
        self.machine: Machine | None = None
        self.spent = False  # it serves no other test
        self._agents: list[Agent] = []
        self._socket: socket.socket | None = None

    @abstractmethod
    def args(self, name: str, *args: str) -> tuple[str, ...]:
        """The command of a program in `SCRIPTS`."""

    async def launch(self) -> Machine:
        return await self.host.launch()

    async def agent(self, token: bytes = FIRST_TOKEN) -> Agent:
        """A connection, instead of an earlier one."""
        if self.machine is None:
            self.machine = await self.launch()
        found = await greet(self.connect(), token, timeout=DEADLINE)
        self._agents.append(found)
        return found

    async def found(self, token: bytes) -> Agent:
        """As a further daemon finds it."""
        assert self.machine
        found = await find(self.connect, self.machine.wait, token)
        assert found
        self._agents.append(found)
        return found

    def connect(self) -> socket.socket:
        assert self.machine
        made = self.machine.connect()
        if self._socket:
            self._socket.close()
        self._socket = made.dup()
        return made

    async def ended(self) -> None:
        assert self.machine
        await self.machine.wait()

    def cut(self) -> None:
        """The connection breaks."""
        assert self._socket
        self._socket.shutdown(socket.SHUT_RDWR)

    def process(self, name: str, *args: str, **how: Any) -> GuestProcess:
        how.setdefault("container", self.home)
        return GuestProcess(args=self.args(name, *args), env=("PATH=/usr/bin:/bin",), **how)

    def container(self, id_: str = "c", **how: Any) -> GuestContainer:
        return GuestContainer(id_, IMAGE, "erofs", SCRATCH, **how)

    async def close(self) -> None:
        for agent in self._agents:
            agent.close()
        if self._socket:
            self._socket.close()


class FakeGuestOne(Guest):
    """Of objects."""

    def args(self, name: str, *args: str) -> tuple[str, ...]:
        return (name, *args)


class RealGuest(Guest):
    """hyperstart."""

    def args(self, name: str, *args: str) -> tuple[str, ...]:
        return ("/bin/sh", "-c", SCRIPTS[name], name, *args)


class HostGuest(RealGuest):
    """In namespaces of this host."""

    containers = boots = False


class VmGuest(RealGuest):
    """In a virtual machine that has an image's disk and scratch disks. One serves all tests that leave it as it was."""

    home = HOME
    left: ClassVar[Left | None] = None

    async def agent(self, token: bytes = FIRST_TOKEN) -> Agent:
        if self.machine or token != FIRST_TOKEN:
            return await super().agent(token)
        left, VmGuest.left = self.left, None
        if left and (machine := await left.host.driver().reattach(left.handle)):
            self.host, self.machine = left.host, machine
            agent = await self.found(left.token)
            await self._clean(agent)
            return agent
        agent = await super().agent()
        await agent.setup_pod("h", [], {}, 1 << 20)
        home = replace(self.container(HOME), image_disk=self._disk(HOME_IMAGE), scratch_disk=self._disk(HOME_SCRATCH))
        await agent.create_container(home)
        return agent

    @staticmethod
    async def _clean(agent: Agent) -> None:
        """Of what the test before left."""
        agent.kill_orphans(keep=set())
        async with asyncio.timeout(DEADLINE):
            while any(p.container for p in await agent.processes()):
                pass
            if "c" in (await agent.stats()).containers:
                await agent.delete_container("c")

    async def launch(self) -> Machine:
        place = Path(tempfile.mkdtemp(prefix="hc"))
        self.host = QemuOne(place)
        store = ImageStore(place / "images")
        store.open()
        image = await store.pull("builtin:busybox")[1]
        scratch = ScratchDisks(place, 64 << 20)
        disks = [Disk(name, (await store.disk(image)).path, True) for name in (IMAGE, HOME_IMAGE)]
        for name in (SCRATCH, HOME_SCRATCH):
            await scratch.create(place / name)
            disks.append(Disk(name, place / name, False))
        return await self.host.launch(disks=tuple(disks))

    def _disk(self, name: str) -> str:
        """What the guest calls it."""
        return self.machine.names.get(name, name) if self.machine else name

    def container(self, id_: str = "c", **how: Any) -> GuestContainer:
        return replace(super().container(id_, **how), image_disk=self._disk(IMAGE), scratch_disk=self._disk(SCRATCH))

    async def close(self) -> None:
        last = self._agents[-1] if self._agents else None
        fit = last is not None and last.alive and not self.spent
        await super().close()
        if self.machine and last and fit:
            self.machine.detach()
            VmGuest.left = Left(self.host, self.machine.handle, last.next_token)
        elif self.machine:
            await self.machine.kill()
            shutil.rmtree(self.host.place)

    @classmethod
    async def end(cls) -> None:
        """The machine that serves all tests."""
        left, cls.left = cls.left, None
        if left:
            if machine := await left.host.driver().reattach(left.handle):
                await machine.kill()
            shutil.rmtree(left.host.place)


@dataclass
class Left:
    """A machine that the next test goes on with."""

    host: Host
    handle: dict[str, Any]
    token: bytes


GUESTS: dict[str, tuple[type[Guest], type[Host]]] = {
    "fake": (FakeGuestOne, FakeOne),
    "host": (HostGuest, ToyOne),
    "vm": (VmGuest, QemuOne),
}


async def ended(process: Process) -> ExitStatus:
    """How it ended; all of its output has come."""
    status = await asyncio.wait_for(process.exited, DEADLINE)
    assert await process.drain()
    return status
