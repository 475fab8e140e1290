# SPDX-License-Identifier: Apache-2.0
"""What the engine asks of a hypervisor.

A driver launches machines and finds them again after the daemon was
restarted. What a driver cannot do it declares in `Capabilities`, and raises
`Unsupported` when asked all the same.
"""

from __future__ import annotations

import socket
from collections.abc import Sequence
from dataclasses import dataclass, field
from pathlib import Path
from typing import Protocol

from ..model.specs import PortMapping

GUEST_CHANNEL = "sh.hyper.guest.0"


@dataclass(frozen=True)
class Capabilities:
    """What a driver can do beyond launching."""

    pause: bool
    user_network: bool
    hot_plug: bool  # disks and published ports of a running machine
    virtiofs: bool
    snapshots: bool  # machines can be saved, and started from what was saved


@dataclass(frozen=True)
class Disk:
    """A disk image; the guest finds it by its serial number (<= 20 bytes).

    `format` is raw, qcow2 or vdi; `cache` one of QEMU's modes, "" for writeback.
    """

    serial: str
    path: Path
    read_only: bool
    format: str = "raw"
    cache: str = ""


@dataclass(frozen=True)
class RbdDisk:
    """A disk in a Ceph cluster: POOL/IMAGE by its monitors."""

    serial: str
    pool: str
    image: str
    monitors: tuple[str, ...]  # HOST:PORT
    user: str = ""
    keyring: str = field(default="", repr=False)  # the key itself, in base64
    read_only: bool = False


AnyDisk = Disk | RbdDisk


@dataclass(frozen=True)
class UserNetwork:
    """The hypervisor's own user-mode network with published ports."""

    mac: str
    ports: tuple[PortMapping, ...] = ()
    host_loopback: bool = False  # it may reach what listens on the host's loopback


@dataclass(frozen=True)
class TapNetwork:
    """A tap device, handed over as a descriptor that the caller closes."""

    mac: str
    fd: int
    name: str = ""  # of the interface on the host


@dataclass(frozen=True)
class StreamNetwork:
    """A connected socket that carries frames, as passt's; the caller closes it."""

    mac: str
    fd: int


AnyNetwork = UserNetwork | TapNetwork | StreamNetwork


@dataclass(frozen=True)
class VirtioFs:
    """A directory tree served by a virtiofs daemon; `socket` is connected to it."""

    tag: str
    socket: int


@dataclass(frozen=True)
class NineP:
    """A directory tree that the hypervisor itself serves over 9p.

    It needs the rights to read and write there, so this is for daemons without
    root's: `launcher` is put before its command line.
    """

    tag: str
    path: Path
    launcher: tuple[str, ...]
    security_model: str


@dataclass(frozen=True)
class Snapshot:
    """A machine at rest, as two open files: machines that start from it share its memory until they write.

    It fits machines of the same shape: processors, memory, and devices in
    their order, whatever lies behind them.
    """

    memory: int  # descriptor of the guest's memory; nobody may be able to write there
    state: int  # descriptor of the devices' state


@dataclass(frozen=True)
class MachineConfig:
    """A machine to launch; `directory` is its own and holds its sockets and logs."""

    name: str
    directory: Path
    vcpus: int
    memory: int  # bytes
    kernel: Path
    initramfs: Path
    disks: tuple[AnyDisk, ...] = ()
    networks: tuple[AnyNetwork, ...] = ()
    share: VirtioFs | NineP | None = None
    expandable: bool = False  # disks may be added later
    memory_file: int | None = None  # descriptor of a file for the guest's memory, which `Machine.save` leaves there
    snapshot: Snapshot | None = None  # start from it; the kernel is in it

    @property
    def taps(self) -> list[tuple[str, str]]:
        """Names and MAC addresses of the taps."""
        return [(n.name, n.mac) for n in self.networks if isinstance(n, TapNetwork) and n.name]


class Machine(Protocol):
    """A running machine."""

    pid: int
    pid_started: int
    accelerator: str

    def connect(self) -> socket.socket:
        """A new connection to the guest channel.

        :raise Unavailable: when the machine is gone.
        """

    async def wait(self) -> None:
        """Return when the machine has ended, for whatever reason."""

    async def kill(self) -> None:
        """End the machine at once and free what it held; idempotent."""

    def listen(self) -> None:
        """Keep the end of what the guest writes to its console from here on, for `last_words`; one that was launched does."""

    def detach(self) -> None:
        """Let it go on without us; another daemon attaches to it. Idempotent."""

    async def pause(self) -> None: ...

    async def resume(self) -> None: ...

    async def stalled(self) -> bool:
        """Whether the hypervisor stopped the machine because a disk could not take what was written; `resume` tries again."""

    async def save(self, state: int) -> None:
        """Stop the machine and write its devices' state to a descriptor; it may only be killed then.

        :raise Unavailable: when that fails.
        """

    async def furnish(self, disks: Sequence[Disk], ports: Sequence[PortMapping]) -> None:
        """Put other files of the same size behind the disks with these serial numbers, which nothing uses; publish ports.

        :raise Unavailable: when that fails; the machine is of no use then.
        :raise Conflict: when a host's port is taken.
        """

    def move(self, directory: Path) -> None:
        """Its directory has another name now."""

    async def add_disk(self, disk: AnyDisk) -> None:
        """:raise InvalidState: when the machine was not launched as expandable."""

    async def remove_disk(self, serial: str) -> None:
        """The guest must have unmounted it. Idempotent."""

    async def add_port(self, port: PortMapping) -> None:
        """Publish a port of the user-mode network.

        :raise Conflict: when the host's port is taken.
        """

    async def remove_port(self, port: PortMapping) -> None: ...

    def last_words(self) -> str:
        """The end of what hypervisor and guest kernel wrote, for error messages."""


class Driver(Protocol):
    """A hypervisor."""

    name: str
    capabilities: Capabilities

    async def launch(self, config: MachineConfig) -> Machine:
        """Start a machine; returns as soon as its channel can be connected.

        :raise Unavailable: when the hypervisor is not installed.
        :raise Conflict: when a published port is taken.
        """

    def attach(self, directory: Path, pid: int, pid_started: int, accelerator: str) -> Machine | None:
        """The machine that an earlier daemon launched; None when it has ended."""

    def running(self, parent: Path) -> dict[int, Path]:
        """The processes of all machines launched with a directory below `parent`, by this daemon or one before it."""

    def sweep(self, parent: Path, keep: set[Path]) -> None:
        """End the machines whose directories are below `parent` and not in `keep`."""

    async def accelerator(self) -> tuple[str, str]:
        """The accelerator in use and why."""

    async def fingerprint(self, config: MachineConfig) -> str:
        """All that a machine of this configuration starts with, as one text: snapshots fit as long as it does not change."""

    def version(self) -> str:
        """The hypervisor's version, "" when it is not installed."""
