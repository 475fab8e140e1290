# SPDX-License-Identifier: Apache-2.0
"""A hypervisor in this process: machines whose guests are objects.

`FakeHost` is what outlives a daemon: its machines, and the ports and descriptors that they hold.
Each daemon has a `FakeDriver` of its own on it, as each has its own of QEMU.
"""

from __future__ import annotations

import asyncio
import itertools
import os
import socket
from collections import deque
from collections.abc import Callable, Sequence
from dataclasses import dataclass, field, replace
from pathlib import Path
from typing import Protocol

from ..errors import Conflict, InvalidState, Unavailable
from ..model.specs import PortMapping
from ..sys.files import remove_tree
from .driver import AnyDisk, Capabilities, Disk, MachineConfig, UserNetwork, VirtioFs

_BACKLOG = 2  # connections that wait for the one in use to end
_FIRST_PID = 1 << 23  # beyond what Linux gives to a process
LAUNCH, DEATH = 0.05, 0.01  # seconds that both take


class Guest(Protocol):
    """What runs in a machine."""

    def connect(self, sock: socket.socket, closed: Callable[[], None]) -> None: ...

    def disconnect(self) -> None: ...

    def pause(self) -> None: ...

    def resume(self) -> None: ...

    def power_off(self) -> None: ...


class FakeHost:
    """Machines by their process numbers, and what they hold."""

    def __init__(self, guest: Callable[[MachineConfig], Guest]) -> None:
        self.machines: dict[int, Hardware] = {}
        self.launched = 0
        self._guest = guest
        self._pids = itertools.count(_FIRST_PID)

    def boot(self, config: MachineConfig) -> Hardware:
        machine = Hardware(self, next(self._pids), config, self._guest(config))
        self.machines[machine.pid] = machine
        self.launched += 1
        return machine

    def ports(self) -> list[PortMapping]:
        """All that its machines publish."""
        return [p for m in self.machines.values() for p in m.ports]

    def take(self, port: PortMapping) -> None:
        """:raise Conflict: when a machine has it."""
        if any((p.host_port, p.protocol) == (port.host_port, port.protocol) for p in self.ports()):
            raise Conflict(f"cannot publish port {port.host_port}: Address already in use")


@dataclass(eq=False)
class Hardware:
    """A machine itself, whoever looks after it."""

    host: FakeHost
    pid: int
    config: MachineConfig
    guest: Guest
    disks: dict[str, AnyDisk] = field(default_factory=dict)
    ports: list[PortMapping] = field(default_factory=list)
    paused: bool = False
    stalled: bool = False  # as by a disk that is full
    wedged: bool = False  # it stands still and takes no orders, as a process after SIGSTOP
    console: str = ""

    def __post_init__(self) -> None:
        self.directory = self.config.directory
        self.started = self.pid % 1000 + 1
        self.gone = asyncio.Event()
        self.disks = {d.serial: d for d in self.config.disks}
        self._fds = [os.dup(n.fd) for n in self.config.networks if not isinstance(n, UserNetwork)]
        if isinstance(self.config.share, VirtioFs):
            self._fds.append(os.dup(self.config.share.socket))
        self._waiting: deque[socket.socket] = deque()
        self._connected = False

    def connect(self) -> socket.socket:
        """:raise Unavailable: when it has ended, or takes no more connections."""
        if self.gone.is_set():
            raise Unavailable("cannot reach the guest: Connection refused")
        if len(self._waiting) >= _BACKLOG:
            raise Unavailable("the virtual machine does not take connections")
        ours, theirs = socket.socketpair()
        ours.setblocking(False)
        self._waiting.append(theirs)
        self._serve()
        return ours

    def _serve(self) -> None:
        if self._waiting and not self._connected and not self.wedged:
            self._connected = True
            self.guest.connect(self._waiting.popleft(), self.hang_up)

    def hang_up(self) -> None:
        """The connection in use ends; the next that waits is taken up."""
        self.guest.disconnect()
        self._connected = False
        self._serve()

    def wedge(self) -> None:
        self.wedged = True
        self.guest.pause()

    def unwedge(self) -> None:
        self.wedged = False
        if not self.paused:
            self.guest.resume()
        self._serve()

    def die(self, words: str = "") -> None:
        """As by SIGKILL; idempotent."""
        if self.gone.is_set():
            return
        self.console += words
        self.gone.set()
        self.guest.power_off()
        for sock in self._waiting:
            sock.close()
        for fd in self._fds:
            os.close(fd)
        self.host.machines.pop(self.pid, None)


class FakeMachine:
    """A daemon's hold on a machine."""

    def __init__(self, hardware: Hardware) -> None:
        self.hardware = hardware
        self.pid, self.pid_started, self.accelerator = hardware.pid, hardware.started, "fake"

    def connect(self) -> socket.socket:
        return self.hardware.connect()

    async def wait(self) -> None:
        await self.hardware.gone.wait()

    async def kill(self) -> None:
        self.hardware.die()
        await asyncio.sleep(DEATH)

    def listen(self) -> None: ...

    def detach(self) -> None: ...

    async def pause(self) -> None:
        await self._order()
        self.hardware.paused = True
        self.hardware.guest.pause()

    async def resume(self) -> None:
        await self._order()
        self.hardware.paused = self.hardware.stalled = False
        self.hardware.guest.resume()

    async def stalled(self) -> bool:
        await self._order()
        return self.hardware.stalled

    async def save(self, state: int) -> None:
        raise Unavailable("a fake machine cannot be saved")

    async def furnish(self, disks: Sequence[Disk], ports: Sequence[PortMapping]) -> None:
        await self._order()
        for port in ports:
            self._publish(port)
        self.hardware.disks.update({d.serial: d for d in disks})

    def move(self, directory: Path) -> None:
        self.hardware.directory = directory

    async def add_disk(self, disk: AnyDisk) -> None:
        await self._order()
        if not self.hardware.config.expandable:
            raise InvalidState("the virtual machine takes no further disks")
        _check(disk)
        self.hardware.disks[disk.serial] = disk

    async def remove_disk(self, serial: str) -> None:
        await self._order()
        self.hardware.disks.pop(serial, None)

    async def add_port(self, port: PortMapping) -> None:
        await self._order()
        self._publish(port)

    async def remove_port(self, port: PortMapping) -> None:
        await self._order()
        self.hardware.ports = [p for p in self.hardware.ports if p != port]

    def last_words(self) -> str:
        return self.hardware.console

    def _publish(self, port: PortMapping) -> None:
        self.hardware.host.take(port)
        self.hardware.ports.append(port)

    async def _order(self) -> None:
        """:raise Unavailable: when it has ended, or does not listen."""
        await asyncio.sleep(0)
        if self.hardware.gone.is_set() or self.hardware.wedged:
            raise Unavailable("the virtual machine does not answer")


class FakeDriver:
    """One daemon's driver for the machines of a host."""

    name = "fake"
    capabilities = Capabilities(pause=True, user_network=True, hot_plug=True, virtiofs=False, snapshots=False)

    def __init__(self, host: FakeHost, *, capabilities: Capabilities | None = None) -> None:
        self.host = host
        self.capabilities = capabilities or self.capabilities

    async def launch(self, config: MachineConfig) -> FakeMachine:
        for disk in config.disks:
            _check(disk)
        config.directory.mkdir(mode=0o700, parents=True, exist_ok=True)
        machine = FakeMachine(self.host.boot(replace(config)))
        try:
            for network in config.networks:
                for port in network.ports if isinstance(network, UserNetwork) else ():
                    machine._publish(port)
            await asyncio.sleep(LAUNCH)
        except BaseException:
            machine.hardware.die()
            raise
        return machine

    def attach(self, directory: Path, pid: int, pid_started: int, accelerator: str) -> FakeMachine | None:
        found = self.host.machines.get(pid)
        return FakeMachine(found) if found and found.started == pid_started else None

    def running(self, parent: Path) -> dict[int, Path]:
        return {pid: m.directory for pid, m in self.host.machines.items() if m.directory.parent == parent}

    def sweep(self, parent: Path, keep: set[Path]) -> None:
        for machine in list(self.host.machines.values()):
            if machine.directory.parent == parent and machine.directory not in keep:
                machine.die()
        for directory in parent.iterdir():
            if directory not in keep:
                remove_tree(directory)

    async def accelerator(self) -> tuple[str, str]:
        return "fake", "it is no machine at all"

    async def fingerprint(self, config: MachineConfig) -> str:
        return repr((config.vcpus, config.memory))

    def version(self) -> str:
        return "1"


def _check(disk: AnyDisk) -> None:
    """:raise Unavailable: when there is no such file."""
    if isinstance(disk, Disk) and not disk.path.exists():
        raise Unavailable(f"{disk.path} does not exist")
