# SPDX-License-Identifier: Apache-2.0
"""One host for each implementation of the hypervisor's port; the tests know only the port."""

from __future__ import annotations

import asyncio
import socket
import tempfile
from abc import ABC, abstractmethod
from collections.abc import AsyncIterator
from pathlib import Path
from typing import Any

import pytest

from hypercontainer.guest import initramfs
from hypercontainer.guest.fake import FakeGuest
from hypercontainer.guest.session import GuestSession
from hypercontainer.hypervisor.driver import Disk, Driver, Machine, MachineConfig, UserNetwork
from hypercontainer.hypervisor.fake import FakeDriver, FakeHost
from hypercontainer.hypervisor.qemu.driver import QemuDriver
from hypercontainer.kernel.locate import locate
from hypercontainer.model.specs import PortMapping
from hypercontainer.protocol.constants import FIRST_TOKEN

from .toy import ToyDriver

DEADLINE = 60.0  # seconds for anything that a machine does
MAC = "52:54:00:12:34:56"
MEMORY = 128 << 20


class Host(ABC):
    """Where machines run, and daemons come and go."""

    words = ""  # of the machine that `broken` launches

    def __init__(self, place: Path) -> None:
        self.place = place
        self.parent = place / "pods"
        self.parent.mkdir()
        self.launched: list[Machine] = []

    @abstractmethod
    def driver(self) -> Driver:
        """As a further daemon would have it."""

    @abstractmethod
    async def broken(self) -> Machine:
        """A machine that ends at once, with `words`."""

    def config(self, name: str = "a", **how: Any) -> MachineConfig:
        nothing = self.place / "nothing"
        return MachineConfig(
            **{"name": name, "directory": self.parent / name, "vcpus": 1, "memory": MEMORY, "kernel": nothing,
               "initramfs": nothing, **how}
        )  # fmt: skip

    async def launch(self, name: str = "a", **how: Any) -> Machine:
        machine = await asyncio.wait_for(self.driver().launch(self.config(name, **how)), DEADLINE)
        self.launched.append(machine)
        return machine

    def disk(self, name: str) -> Disk:
        path = self.place / name
        path.write_bytes(bytes(1 << 20))
        return Disk(name, path, read_only=False)

    async def close(self) -> None:
        for machine in self.launched:
            await machine.kill()


class FakeOne(Host):
    """Of objects."""

    words = "it fell over"

    def __init__(self, place: Path) -> None:
        super().__init__(place)
        self.hardware = FakeHost(lambda _: FakeGuest())

    def driver(self) -> FakeDriver:
        return FakeDriver(self.hardware)

    async def broken(self) -> Machine:
        machine = await self.launch()
        self.hardware.machines[machine.pid].die(self.words)
        return machine


class ToyOne(Host):
    """Of namespaces."""

    words = "usage: nothing at all"

    def driver(self) -> ToyDriver:
        return ToyDriver()

    async def broken(self) -> Machine:
        script = self.place / "agent"
        script.write_text(f"#!/bin/sh\necho {self.words}\n")
        script.chmod(0o755)
        machine = await ToyDriver(script).launch(self.config())
        self.launched.append(machine)
        return machine


class QemuOne(Host):
    """Of virtual machines."""

    words = "Error while loading elf kernel"

    def driver(self) -> QemuDriver:
        return QemuDriver(binary="qemu-system-x86_64", accelerator="tcg", cache=self.place)

    def config(self, name: str = "a", **how: Any) -> MachineConfig:
        boot = {"kernel": locate("").path, "initramfs": initramfs.cached(self.place)}
        return super().config(name, **{**boot, **how})

    async def broken(self) -> Machine:
        kernel = self.place / "vmlinux"
        kernel.write_bytes(b"\x7fELF" + bytes(5000))
        return await self.launch(kernel=kernel)


HOSTS: dict[str, type[Host]] = {"fake": FakeOne, "toy": ToyOne, "qemu": QemuOne}


@pytest.fixture(params=list(HOSTS))
async def host(request: pytest.FixtureRequest) -> AsyncIterator[Host]:
    with tempfile.TemporaryDirectory(prefix="hc") as short:  # sockets need short paths
        made = HOSTS[request.param](Path(short))
        yield made
        await made.close()


async def greet(
    machine: Machine, token: bytes = FIRST_TOKEN, *, inherited: bool = False, timeout: float = DEADLINE
) -> GuestSession:
    """A session, when the guest has answered HELLO."""
    return await GuestSession.open(machine.connect(), token, timeout=timeout, inherited=inherited)


def user_network(*ports: PortMapping) -> tuple[UserNetwork, ...]:
    return (UserNetwork(MAC, ports),)


def free_port() -> PortMapping:
    with socket.socket() as sock:
        sock.bind(("127.0.0.1", 0))
        return PortMapping(container_port=80, host_port=sock.getsockname()[1], host_ip="127.0.0.1")
