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
from collections.abc import Callable, Container, Mapping, Sequence
from dataclasses import dataclass, field, replace
from pathlib import Path
from typing import Any, Protocol

from ..errors import Conflict, InvalidState, Unavailable, Unsupported
from ..model.specs import PortMapping
from .driver import (
    KINDS,
    AnyDisk,
    Disk,
    Machine,
    MachineConfig,
    Probe,
    Snapshot,
    SpareNetwork,
    StreamNetwork,
    TapNetwork,
    UserNetwork,
    VirtioFs,
    check_takes,
)
from .facets import Mount, Needs, facets_of

_BACKLOG = 2  # connections that wait for the one in use to end
_FIRST_PID = 1 << 23  # beyond what Linux gives to a process
TAKES = frozenset(KINDS) - {Snapshot}
STATE_MAX = 64  # bytes that a snapshot's state has here
OVERHEAD = 64 << 20  # bytes that a machine takes beside its guest's memory
LAUNCH, DEATH = 0.05, 0.01  # seconds that both take


class Guest(Protocol):
    """What runs in a machine."""

    def connect(self, sock: socket.socket, closed: Callable[[], None]) -> None: ...

    def disconnect(self) -> None: ...

    def pause(self) -> None: ...

    def resume(self) -> None: ...

    def power_off(self) -> None: ...

    def saved(self) -> Any: ...

    def restore(self, saved: Any) -> None: ...


class FakeHost:
    """Machines by their process numbers, and what they hold."""

    def __init__(self, guest: Callable[[MachineConfig], Guest]) -> None:
        self.machines: dict[int, Hardware] = {}
        self.launched = 0
        self.slots = 0  # of each machine, for NICs that come while it runs
        self.saved: dict[bytes, Any] = {}  # guests at rest, by what a snapshot's state says
        self._guest = guest
        self._pids = itertools.count(_FIRST_PID)

    def boot(self, config: MachineConfig, driver: str) -> Hardware:
        machine = Hardware(self, driver, next(self._pids), config, self._guest(config))
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
    driver: str
    pid: int
    config: MachineConfig
    guest: Guest
    disks: dict[str, AnyDisk] = field(default_factory=dict)
    ports: list[PortMapping] = field(default_factory=list)
    added: set[int] = field(default_factory=set)  # NICs that came while it ran
    paused: bool = False
    stalled: bool = False  # as by a disk that is full
    disk_errors: dict[str, int] = field(default_factory=dict)  # failed requests, by serial numbers
    wedged: bool = False  # it stands still and takes no orders, as a process after SIGSTOP
    given_back: int = 0  # bytes of its memory
    console: str = ""

    def __post_init__(self) -> None:
        self.directory = self.config.directory
        self.started = self.pid % 1000 + 1
        self.gone = asyncio.Event()
        self.disks = {d.serial: d for d in self.config.disks}
        self._fds = [os.dup(n.fd) for n in self.config.networks if isinstance(n, TapNetwork | StreamNetwork)]
        self.plugged: dict[int, int] = {}  # spare NICs -> descriptors of what they lead to
        self.loose: list[int] = []  # descriptors that were handed over, and plugged into no NIC
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
        for fd in (*self._fds, *self.plugged.values(), *self.loose):
            os.close(fd)
        self.host.machines.pop(self.pid, None)


class BareMachine:
    """A daemon's hold on a machine, which can do no more than each."""

    accelerator, machine_type = "fake", ""
    names: Mapping[str, str] = {}

    def __init__(self, hardware: Hardware) -> None:
        self.hardware = hardware
        self.driver = hardware.driver
        self.pid = hardware.pid

    @property
    def handle(self) -> dict[str, Any]:
        return {"pid": self.pid, "pidStarted": self.hardware.started}

    def connect(self) -> socket.socket:
        return self.hardware.connect()

    async def wait(self) -> None:
        await self.hardware.gone.wait()

    async def kill(self) -> None:
        self.hardware.die()
        await asyncio.sleep(DEATH)

    def detach(self) -> None: ...

    def last_words(self) -> str:
        return self.hardware.console

    def ending(self) -> str:
        return "by SIGKILL" if self.hardware.gone.is_set() else ""

    def _publish(self, port: PortMapping) -> None:
        self.hardware.host.take(port)
        self.hardware.ports.append(port)


class FakeMachine(BareMachine):
    """One that can do all that only some can, but be saved."""

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

    async def disk_errors(self) -> Mapping[str, int]:
        await self._order()
        return dict.fromkeys(self.hardware.disks, 0) | self.hardware.disk_errors

    async def reconfigure(self, directory: Path, disks: Sequence[Disk], ports: Sequence[PortMapping]) -> None:
        self.hardware.directory = directory
        await self._order()
        for port in ports:
            self._publish(port)
        self.hardware.disks.update({d.serial: d for d in disks})

    async def add_disk(self, disk: AnyDisk) -> None:
        await self._order()
        if not self.hardware.config.expandable:
            raise InvalidState("the virtual machine takes no further disks")
        _check(disk)
        self.hardware.disks[disk.serial] = disk

    async def remove_disk(self, serial: str) -> None:
        await self._order()
        self.hardware.disks.pop(serial, None)

    async def open_files(self, mount: Mount) -> socket.socket:
        await self._order()
        if not self.hardware.config.expandable:
            raise Unavailable("the virtual machine has no stream for files")
        await mount("stream")
        ours, theirs = socket.socketpair()
        theirs.close()
        return ours

    async def plugged(self, nic: int) -> bool:
        await self._order()
        return nic in self.hardware.plugged

    async def plug_in(self, nic: int, network: TapNetwork) -> None:
        await self._order()
        given = self.hardware.config.networks
        spare = nic in self.hardware.added or isinstance(given[nic], SpareNetwork)
        if not spare or nic in self.hardware.plugged:
            raise Unavailable(f"NIC {nic} leads somewhere")
        self.hardware.plugged[nic] = os.dup(network.fd)

    async def add_nic(self, nic: int, mac: str) -> None:
        await self._order()
        if len(self.hardware.added | {nic}) > self.hardware.host.slots:
            raise Unsupported("the virtual machine has no slot left")
        self.hardware.added.add(nic)

    async def pull_out(self, nic: int) -> None:
        await self._order()
        plugged = self.hardware.plugged
        for fd in (*self.hardware.loose, *([plugged.pop(nic)] if nic in plugged else [])):
            os.close(fd)
        self.hardware.loose.clear()

    async def give_back(self, size: int) -> None:
        await self._order()
        self.hardware.given_back = size

    async def add_port(self, port: PortMapping) -> None:
        await self._order()
        self._publish(port)

    async def remove_port(self, port: PortMapping) -> None:
        await self._order()
        self.hardware.ports = [p for p in self.hardware.ports if p != port]

    async def _order(self) -> None:
        """:raise Unavailable: when it has ended, or does not listen."""
        await asyncio.sleep(0)
        if self.hardware.gone.is_set() or self.hardware.wedged:
            raise Unavailable("the virtual machine does not answer")


class FakeDriver:
    """One daemon's driver for the machines of a host."""

    version = "1"
    machine: type[BareMachine] = FakeMachine
    no_emulation = ""  # why it launches nothing of another architecture than the host's

    def __init__(
        self, host: FakeHost, name: str = "fake", *, takes: frozenset[type] = TAKES, bare: bool = False
    ) -> None:
        """The machines of one that is `bare` have no facets."""
        self.host = host
        self.name = name
        self.takes = takes
        self._machine: type[BareMachine] = BareMachine if bare else self.machine
        self.facets = facets_of(self._machine)

    async def probe(self) -> Probe:
        return Probe("fake", "it is no machine at all")

    async def footprint(self, vcpus: int, memory: int, architecture: str = "") -> Needs:
        return Needs(memory + OVERHEAD, vcpus + 1)

    async def emulation(self, architecture: str) -> Probe:
        return Probe("fake", "emulated", self.no_emulation)

    async def launch(self, config: MachineConfig) -> BareMachine:
        check_takes(self, config)
        for disk in config.disks:
            _check(disk)
        config.directory.mkdir(mode=0o700, parents=True, exist_ok=True)
        machine = self._machine(self.host.boot(replace(config), self.name))
        try:
            self._set_up(machine)
            for network in config.networks:
                for port in network.ports if isinstance(network, UserNetwork) else ():
                    machine._publish(port)
            await asyncio.sleep(LAUNCH)
        except BaseException:
            machine.hardware.die()
            raise
        return machine

    def _set_up(self, machine: BareMachine) -> None:
        """Before it runs. :raise Unavailable: it does not come up."""

    async def reattach(self, handle: Mapping[str, Any]) -> BareMachine | None:
        found = self.host.machines.get(handle["pid"])
        mine = found and found.started == handle["pidStarted"] and found.driver == self.name
        return self._machine(found) if found and mine else None

    def strays(self, parent: Path, keep: Container[Path]) -> list[Machine]:
        mine = [m for m in self.host.machines.values() if m.driver == self.name and m.directory.parent == parent]
        return [self._machine(m) for m in mine if m.directory not in keep]


def _check(disk: AnyDisk) -> None:
    """:raise Unavailable: when there is no such file."""
    if isinstance(disk, Disk) and not disk.path.exists():
        raise Unavailable(f"{disk.path} does not exist")
