# SPDX-License-Identifier: Apache-2.0
"""What the engine asks of a hypervisor: eight methods that every driver has, and the values that they take.

A driver launches machines and finds them again after the daemon was
restarted. Which kinds of disks, networks and shared directories its machines
can have it says in `Driver.takes`; what only some drivers can do with a
machine that runs are protocols of their own, in `facets`.
"""

from __future__ import annotations

import socket
from collections.abc import Mapping
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any, Protocol

from ..errors import Unsupported
from ..model.architectures import is_foreign
from ..model.specs import PortMapping


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


class FormattedDisk:
    """Kind of a `Disk` whose format is not raw."""


class CachedDisk:
    """Kind of a `Disk` with a cache mode that is not writeback."""


class ForeignProcessor:
    """Kind of a processor whose architecture is not the host's: it is emulated."""


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


@dataclass(frozen=True)
class SpareNetwork:
    """A NIC that leads nowhere until it is plugged in, while the machine runs (`facets.NicHotplug`)."""

    mac: str
    name: str = ""  # of the tap on the host that it will lead to


AnyNetwork = UserNetwork | TapNetwork | StreamNetwork | SpareNetwork


@dataclass(frozen=True)
class VirtioFs:
    """A directory tree served by a virtiofs daemon; `socket` is connected to it."""

    tag: str
    socket: int


@dataclass(frozen=True)
class PciDevice:
    """A PCI device of this host, which it has given up; the guest drives it, and an IOMMU keeps it to its memory."""

    address: str  # DOMAIN:BUS:SLOT.FUNCTION
    directory: Path  # of it in sysfs, without symbolic links
    group: int  # of the IOMMU
    nodes: tuple[Path, ...]  # of VFIO, which the hypervisor opens


@dataclass(frozen=True)
class Snapshot:
    """A machine at rest, as two open files: machines that start from it share its memory until they write.

    It fits machines of the same shape: processors, memory, and devices in
    their order, whatever lies behind them.
    """

    memory: int  # descriptor of the guest's memory; nobody may be able to write there
    state: int  # descriptor of the devices' state
    live: bool = False  # it was saved while it ran, and was connected


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
    share: VirtioFs | None = None
    devices: tuple[PciDevice, ...] = ()
    expandable: bool = False  # disks may be added later
    memory_file: int | None = None  # descriptor of a file for the guest's memory, which `Machine.save` leaves there
    snapshot: Snapshot | None = None  # start from it; the kernel is in it
    incoming: int | None = None  # descriptor of a stream that another machine, with its memory, goes on from
    early: bool = False  # what it starts from is being written: it starts when it is told to (`facets.Early`)
    balloon: bool | None = None  # whether free pages go back to this host; None: where the memory is in no file
    user: int = 0  # as which its processes run when we are root; 0: as one that nobody has
    control_groups: tuple[Path, ...] = ()  # directories of groups that its processes are born in
    talkative: bool = False  # the kernel writes to the console what it does
    architecture: str = ""  # OCI's name; "" is the host's

    @property
    def taps(self) -> list[tuple[str, str]]:
        """Names and MAC addresses of the taps, of those too that spare NICs will lead to."""
        return [(n.name, n.mac) for n in self.networks if isinstance(n, TapNetwork | SpareNetwork) and n.name]

    @property
    def spares(self) -> list[str]:
        """Names of the taps that spare NICs will lead to."""
        return [n.name for n in self.networks if isinstance(n, SpareNetwork) and n.name]


@dataclass(frozen=True)
class Probe:
    """What a driver found on this host."""

    accelerator: str  # how processors of guests run: kvm, tcg
    reason: str  # why so
    trouble: str = ""  # why it can launch nothing here; "" when it can
    hint: str = ""  # what to do about it
    machine_type: str = ""  # of its machines and why, where there is a choice


class Machine(Protocol):
    """A running machine."""

    driver: str  # name of the driver that launched it
    accelerator: str  # how its processors run, for people
    machine_type: str  # and why it has that one, for people; "" where there is no choice
    pid: int  # the process of this host that runs it, for people and for accounts of memory; 0 when there is none
    names: Mapping[str, str]  # serial numbers of disks -> what the guest finds each by, where that is something else

    @property
    def handle(self) -> dict[str, Any]:
        """What `Driver.reattach` finds it by, in another process too; it goes into JSON, only the driver reads it."""

    def connect(self) -> socket.socket:
        """A new connection to the guest agent's channel, a byte stream; it does not block.

        :raise Unavailable: when the machine is gone, or takes no connections.
        """

    async def wait(self) -> None:
        """Return when the machine has ended, for whatever reason."""

    async def kill(self) -> None:
        """End the machine at once and free what it held; idempotent. It raises nothing: what is wrong is logged."""

    def detach(self) -> None:
        """Let it go on without us; another daemon attaches to it. Idempotent."""

    def last_words(self) -> str:
        """The end of what hypervisor and guest kernel wrote, for error messages."""


class Driver(Protocol):
    """A hypervisor."""

    name: str
    takes: frozenset[type]  # kinds of what a `MachineConfig` may have: Disk, RbdDisk, UserNetwork, ..., Snapshot
    facets: frozenset[type]  # that its machines have

    @property
    def version(self) -> str:
        """The hypervisor's version, "" when it is not installed."""

    async def probe(self) -> Probe:
        """What it finds on this host; the first time may take seconds."""

    async def launch(self, config: MachineConfig) -> Machine:
        """Start a machine; returns as soon as its channel can be connected.

        :raise Unavailable: when the hypervisor is not installed.
        :raise Conflict: when a published port is taken.
        :raise Unsupported: when the configuration has what this driver does not take; nothing was taken then.
        """

    async def reattach(self, handle: Mapping[str, Any]) -> Machine | None:
        """The machine that an earlier daemon launched; None when it has ended."""


def check_takes(driver: Driver, config: MachineConfig) -> None:
    """:raise Unsupported: when a machine of this driver cannot have what the configuration asks for."""
    parts = (*config.disks, *config.networks, *config.devices, config.share, config.snapshot)
    for kind in (*(kind for part in parts for kind in kinds_of(part)), *processor_kinds(config.architecture)):
        if kind not in driver.takes:
            raise unsupported(driver.name, KINDS[kind])


def kinds_of(part: object) -> list[type]:
    """What a driver must take for it; nothing for None."""
    if part is None:
        return []
    if isinstance(part, Disk):
        return [Disk, *disk_kinds(part.format, part.cache)]
    return [type(part)]


def disk_kinds(format_: str, cache: str) -> list[type]:
    """Of a disk with this format and cache mode, beside `Disk`."""
    plain = cache in ("", "writeback")
    return [*([FormattedDisk] if format_ != "raw" else []), *([] if plain else [CachedDisk])]


def processor_kinds(architecture: str) -> list[type]:
    """Of a machine with such processors; nothing for the host's."""
    return [ForeignProcessor] if is_foreign(architecture) else []


def unsupported(driver: str, what: str) -> Unsupported:
    """The error for what a driver cannot do."""
    return Unsupported(f"the driver {driver!r} does not support {what}")


KINDS: dict[type, str] = {
    Disk: "disks from files",
    FormattedDisk: "disk images of the formats qcow2 and vdi",
    CachedDisk: "cache modes of disks",
    RbdDisk: "disks of a Ceph cluster",
    UserNetwork: "a user-mode network of its own",
    TapNetwork: "networks of this host",
    StreamNetwork: "the user-mode network by passt",
    SpareNetwork: "network interfaces for later",
    VirtioFs: "directories of the host",
    PciDevice: "passthrough of PCI devices",
    Snapshot: "machines from a template",
    ForeignProcessor: "images for another processor than this host's",
}
