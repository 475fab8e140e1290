# SPDX-License-Identifier: Apache-2.0
"""What only some drivers, or their machines, can do: each a protocol of its own.

`require` finds one, or raises `Unsupported` before anything was taken.
"""

from __future__ import annotations

import socket
from collections.abc import Awaitable, Callable, Container, Mapping, Sequence
from contextlib import AbstractAsyncContextManager
from dataclasses import dataclass
from pathlib import Path
from typing import Protocol, TypeVar, runtime_checkable

from ..jail.report import Grants
from ..model.specs import PortMapping
from .driver import AnyDisk, Disk, Driver, Machine, MachineConfig, Probe, Snapshot, TapNetwork, unsupported

F = TypeVar("F")


@dataclass(frozen=True)
class Needs:
    """What the processes of a machine may use together."""

    memory: int  # bytes
    tasks: int  # processes and threads


# -- of a machine --------------------------------------------------------------------


@runtime_checkable
class Pause(Protocol):
    """A machine stands still, and goes on."""

    async def pause(self) -> None:
        """:raise Unavailable: when the hypervisor does not answer in time."""

    async def resume(self) -> None:
        """:raise Unavailable: when the hypervisor does not answer in time."""


@runtime_checkable
class DiskStall(Protocol):
    """A machine stands still by itself while a disk of the host is full."""

    async def stalled(self) -> bool:
        """Whether the hypervisor stopped the machine because a disk could not take what was written."""

    async def resume(self) -> None:
        """Try again what could not be written, and go on."""


@runtime_checkable
class DiskErrors(Protocol):
    """Requests of a machine's disks that fail are counted."""

    async def disk_errors(self) -> Mapping[str, int]:
        """How many have failed so far, by the serial numbers of disks; it is cheap while a guest complains of none.

        :raise Unavailable: when the hypervisor does not answer.
        """


@runtime_checkable
class DiskHotplug(Protocol):
    """Disks are added to a machine that runs, and taken out of it."""

    async def add_disk(self, disk: AnyDisk) -> None:
        """From then on `Machine.names` says what the guest finds it by, if that is not its serial number.

        :raise InvalidState: when the machine was not launched as expandable, or has no place for one more.
        """

    async def remove_disk(self, serial: str) -> None:
        """The guest must have unmounted it. Idempotent."""


Mount = Callable[[str], Awaitable[None]]


@runtime_checkable
class FileStream(Protocol):
    """Directories of the host come to a machine that runs, and has no device for them."""

    async def open_files(self, mount: Mount) -> socket.socket:
        """A byte stream to the guest for messages of FUSE; `mount` lets the guest open its end, by the name that the
        guest has for it. It is the caller's to close; the machine's end closes it, too.

        :raise Unavailable: the machine has no such stream, or it is in use.
        """


@runtime_checkable
class NicHotplug(Protocol):
    """Spare NICs (`SpareNetwork`) of a machine that runs are plugged into networks, and pulled out.

    A NIC is known by its number among the networks that the machine was launched with.
    """

    async def plugged(self, nic: int) -> bool:
        """Whether a spare NIC leads somewhere.

        :raise Unavailable: when the hypervisor does not answer.
        """

    async def plug_in(self, nic: int, network: TapNetwork) -> None:
        """A spare NIC, which leads nowhere, leads to a tap from now on; the descriptor is its caller's to close.

        :raise Unavailable: when the hypervisor refuses; the NIC leads nowhere then.
        """

    async def pull_out(self, nic: int) -> None:
        """It leads nowhere, and the tap is gone unless others have it. Idempotent.

        :raise Unavailable: when the hypervisor does not answer.
        """


@runtime_checkable
class NicAddition(Protocol):
    """A machine that runs gets further spare NICs; whether one does is told by asking."""

    async def add_nic(self, nic: int, mac: str) -> None:
        """A spare NIC with this number, which no other of the machine's has. Idempotent.

        :raise Unsupported: the machine has no bus for it, or no place left. :raise Unavailable: the hypervisor refuses.
        """


@runtime_checkable
class PortForwarding(Protocol):
    """Ports of a machine that runs are published, by the driver's own user-mode network."""

    async def add_port(self, port: PortMapping) -> None:
        """:raise Conflict: when the host's port is taken."""

    async def remove_port(self, port: PortMapping) -> None:
        """Publish a port no longer."""


@runtime_checkable
class Save(Protocol):
    """A machine is saved, for others to start from."""

    async def save(self, state: int) -> None:
        """Stop the machine and write its devices' state to a descriptor; it may only be killed then.

        Its guest has answered before: a clone has no kernel to load, so it cannot go on with a boot.

        :raise Unavailable: when that fails.
        """


@runtime_checkable
class Severs(Protocol):
    """A machine whose connections with its guest all break when it is saved, also where it runs on."""

    async def severed(self) -> bool:
        """Whether they may have, since this was asked last: when this returns the guest of a machine that runs knows,
        and takes new ones.
        """


@runtime_checkable
class FixedDevices(Protocol):
    """A machine whose hypervisor goes on with a device that the guest has let go, and reads its queues."""

    fixed_devices: bool


@runtime_checkable
class Early(Protocol):
    """A machine that was launched before what it goes on from was there."""

    async def begin(self, directory: Path, disks: Sequence[Disk]) -> None:
        """That is there now, whole. Its directory may have another name by now; other files of the same size are to
        lie behind the disks with these serial numbers.

        :raise Unavailable: when it does not come up; it is of no use then.
        """


@runtime_checkable
class Reconfigure(Protocol):
    """A machine that waits becomes a pod's."""

    async def reconfigure(self, directory: Path, disks: Sequence[Disk], ports: Sequence[PortMapping]) -> None:
        """Its directory has another name now; put other files of the same size behind the disks with these serial
        numbers, which nothing uses; publish ports.

        :raise Unavailable: when that fails; the machine is of no use then.
        :raise Conflict: when a host's port is taken.
        """


@runtime_checkable
class Balloon(Protocol):
    """Memory that a machine's guest is not to use goes back to the host."""

    async def give_back(self, size: int) -> None:
        """So many bytes of its memory, no more and no less, from now on: the guest does it as soon as it can, and takes
        back what it has no other way to go on without.

        :raise Unavailable: when the hypervisor does not answer.
        """


@runtime_checkable
class Granted(Protocol):
    """A machine's process has something that those of other drivers have not."""

    @property
    def grants(self) -> Grants:
        """What it has, for who looks at its jail."""


@runtime_checkable
class HeldElsewhere(Protocol):
    """A machine whose process is started, and confined, by another daemon than hyperd."""

    holder: str  # whom


@runtime_checkable
class Ending(Protocol):
    """A machine that can tell how its process ended."""

    def ending(self) -> str:
        """By itself: its exit status or signal, for people; "" when we ended it, it runs, or that is not known."""


# -- of a driver -----------------------------------------------------------------------


@runtime_checkable
class Snapshots(Protocol):
    """Machines start from what was saved: the driver takes a `Snapshot`; machines have `Save` and `Reconfigure`."""

    async def fingerprint(self, config: MachineConfig) -> str:
        """All that a machine of this configuration starts with, as text: snapshots fit until it changes."""


class Instant(Protocol):
    """What the owner of a machine does around the instant at which it is saved."""

    def quiet(self) -> AbstractAsyncContextManager[None]:
        """Within it the guest's programs stand still; the machine runs when it is entered, and when it is left."""

    async def at_rest(self) -> None:
        """The machine stands still: what it writes to can be copied."""


@runtime_checkable
class Checkpoints(Protocol):
    """A machine that runs is saved, and goes on; the driver takes the `Snapshot`."""

    async def checkpoint(self, machine: Machine, snapshot: Snapshot, instant: Instant) -> Snapshot:
        """Write memory and devices' state to two empty files, the first as long as the memory.

        The machine goes on also where this fails. What is returned says what was saved.

        :raise Unavailable: when the hypervisor fails, or does not come to an end.
        """


@runtime_checkable
class Suspends(Protocol):
    """A machine that runs is put into a stream of bytes, and another of the same shape goes on from it."""

    async def put_away(self, machine: Machine, stream: int) -> None:
        """Stop it, and write all of it, memory too, to a descriptor. It stands still then, as one that is paused.

        :raise Unavailable: when the hypervisor fails, or does not come to an end; the machine goes on.
        """

    async def launch_from(self, config: MachineConfig, stream: int) -> Machine:
        """Launch a machine of that shape, which goes on where the other one was put away.

        Raises what `Driver.launch` does. :raise Unavailable: the stream is of no use to it; there is no machine then.
        """


@runtime_checkable
class Strays(Protocol):
    """Machines that no record knows are found."""

    def strays(self, parent: Path, keep: Container[Path]) -> list[Machine]:
        """Machines with a directory below `parent` that is not in `keep`, launched by this daemon or one before it."""


@runtime_checkable
class Footprint(Protocol):
    """It is known what a machine takes of this host at most."""

    async def footprint(self, vcpus: int, memory: int, architecture: str = "") -> Needs:
        """For a guest with so many processors and bytes of memory: with what the hypervisor and helpers add."""


@runtime_checkable
class Emulation(Protocol):
    """Machines can have processors of another architecture than this host's: the driver takes `ForeignProcessor`."""

    async def emulation(self, architecture: str) -> Probe:
        """What it finds on this host for machines of that architecture; `trouble` says why it can launch none."""


@runtime_checkable
class Trial(Protocol):
    """What `probe` says comes from a trial, which can be made again."""

    async def try_again(self) -> Probe:
        """What is found now; it is in use from then on. Takes half a minute at most."""

    async def close(self) -> None:
        """End a trial that is under way."""


NAMES: dict[type, str] = {
    DiskStall: "waiting while a disk of the host is full",
    DiskErrors: "counting requests of disks that fail",
    Pause: "pausing a virtual machine",
    DiskHotplug: "adding disks to a virtual machine that runs",
    FileStream: "adding directories of the host to a virtual machine that runs",
    NicHotplug: "joining networks while a virtual machine runs",
    PortForwarding: "publishing ports of a virtual machine that runs",
    Save: "saving virtual machines",
    Reconfigure: "virtual machines that wait for a pod",
    Early: "starting a virtual machine before what it goes on from is saved",
    Snapshots: "virtual machines from a template",
    Checkpoints: "saving a pod while it runs",
    Suspends: "suspending pods",
}
_OF_MACHINES = (
    Pause, DiskStall, DiskErrors, DiskHotplug, FileStream, NicHotplug, PortForwarding, Save, Reconfigure, Early,
)  # fmt: skip


def facets_of(machine: type) -> frozenset[type]:
    """Those that a class of machines has."""
    return frozenset(facet for facet in _OF_MACHINES if issubclass(machine, facet))


def require(thing: Driver | Machine, facet: type[F]) -> F:
    """The same thing, as one that has this facet.

    :raise Unsupported: when it has not.
    """
    if isinstance(thing, facet):
        return thing
    driver = getattr(thing, "driver", "") or getattr(thing, "name", "")
    raise unsupported(driver, NAMES.get(facet, facet.__name__))
