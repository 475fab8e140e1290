# SPDX-License-Identifier: Apache-2.0
"""A pod's running VM, in memory and as the record that finds it again."""

from __future__ import annotations

import asyncio
import contextlib
import logging
from collections.abc import AsyncIterator, Awaitable, Callable, Iterator
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

import msgspec

from ..errors import GuestError, HyperError, Unavailable
from ..guest.agent import Agent, Process
from ..hypervisor import facets
from ..hypervisor.driver import Machine
from ..jail.jail import Started
from ..model.layout import MachineLayout
from ..model.specs import PortMapping
from ..model.status import Pod, Vm
from ..sys import deadlines, tasks
from ..sys.trees import remove_tree
from .allotments import Allotment
from .booted import BootedMachine

log = logging.getLogger(__name__)
_END = 2.0  # seconds for the end of a machine whose connection has ended, before it counts as one that lives


@dataclass
class Runtime:
    """A pod's running VM."""

    machine: Machine
    agent: Agent
    directory: Path
    allotment: Allotment
    handles: dict[str, Process] = field(default_factory=dict)
    processes: dict[str, int] = field(
        default_factory=dict
    )  # container -> number of its main process, which an earlier daemon may have started
    prepared: str = ""  # a container that the guest has already, for the first one that is built
    nics: dict[str, str] = field(default_factory=dict)  # taps -> MAC addresses
    spares: set[str] = field(default_factory=set)  # those of them to which no NIC leads before it is plugged in
    devices: dict[str, int] = field(default_factory=dict)  # PCI devices of this host -> their groups of the IOMMU
    disks: set[str] = field(default_factory=set)  # serial numbers
    names: dict[str, str] = field(
        default_factory=dict
    )  # disks that the guest finds by something else than their serial number
    user_network: str = ""  # what it is, where it has one
    volumes: dict[str, str] = field(default_factory=dict)  # name -> what the guest calls it
    directories: list[str] | None = None  # shared ones, in the order of their names in the tree; None: not known
    server: Started | None = None  # of that tree
    late: dict[str, str] = field(default_factory=dict)  # what was added to it later -> its name there
    built: set[str] = field(default_factory=set)  # containers that the guest has
    ports_in_change: list[PortMapping] = field(default_factory=list)  # being published, or taken back
    given_back: int | None = 0  # bytes of the machine's memory; None: an earlier daemon may have asked for any
    users: set[str] = field(default_factory=set)  # who needs the machine to go on
    uses: int = 0  # copies, connections, and what else is done in it while it runs anyway: it is not idle
    renewing: bool = False  # its connection was lost, and another is opened
    severed: bool = False  # its connection is broken, as it was saved: there is to be another
    renewed: asyncio.Event = field(default_factory=asyncio.Event)  # it was opened again, or there is none
    silent_since: float = 0.0  # seconds of the loop's clock, when it does not answer
    lost: str = ""  # what people call it, once its connection has ended for good
    killed: bool = False  # by us, before it was asked to end
    saving: asyncio.Lock = field(
        default_factory=asyncio.Lock
    )  # who saves it has it, and who pauses it, or what is in it: else the one would let go on what the other stopped
    suspended: bool = False  # it has no machine: what that was is on the disk
    ending: bool = False  # nobody needs it any more
    stalled: bool = False  # it stands still until the host's disk has space
    gone: asyncio.Event = field(default_factory=asyncio.Event)
    layout: MachineLayout | None = None  # None: an earlier hyperd launched it

    @classmethod
    def of(cls, booted: BootedMachine, disks: set[str], directories: list[str]) -> Runtime:
        """A machine becomes its pod's."""
        runtime = cls(
            booted.machine, booted.agent, booted.directory, booted.allotment, prepared=booted.prepared,
            nics=booted.nics, spares=set(booted.spares), disks=disks, names=booted.names, directories=directories,
            server=booted.server, devices=booted.devices, layout=booted.layout,
        )  # fmt: skip
        if inherited := booted.inherited:
            runtime.processes, runtime.built = dict(inherited.processes), set(inherited.built)
            runtime.volumes = dict(inherited.volumes)
        return runtime

    async def alone(self, ask: Callable[[], Awaitable[None]]) -> None:
        """Ask for something when the machine is not being saved."""
        async with self.saving:
            await ask()

    @contextlib.contextmanager
    def in_use(self) -> Iterator[Agent]:
        """Its agent, for somebody who needs it meanwhile."""
        self.uses += 1
        try:
            yield self.agent
        finally:
            self.uses -= 1

    def name_of(self, serial: str) -> str:
        """The serial number by which the guest finds a disk."""
        return self.names.get(serial, serial)

    @property
    def dead(self) -> bool:
        """Whether its connection has ended for good: nothing more can be asked of it."""
        return self.agent.closed.is_set() and not self.renewing and not self.suspended

    def go_on_with(self, other: Runtime) -> None:
        """Of a suspended one: the machine of another, which is nobody's then, goes on where it was."""
        other.agent.take_over(self.agent)
        self.machine, self.agent, self.directory = other.machine, other.agent, other.directory
        self.allotment, self.nics, self.spares = other.allotment, other.nics, other.spares
        self.user_network, self.layout = other.user_network, other.layout
        self.given_back = None
        self.suspended = False

    def give_up(self, name: str) -> None:
        """Its connection was lost, and there will be no other one; `name` is what people call it."""
        self.lost = name
        self.agent.give_up()

    async def tell_its_end(self) -> None:
        """The daemon's log says how a machine ended that nobody had ended: a record that does may be gone."""
        try:
            await tasks.within(self.machine.wait(), _END)
        except TimeoutError:
            log.warning("%s answers no more, and is ended: %s", self.lost, self.last_words())
            return
        how = self.machine.ending() if isinstance(self.machine, facets.Ending) else ""
        log.warning(
            "%s (process %d) ended%s, and nobody had ended it: %s",
            self.lost, self.machine.pid, f" {how}" if how else "", self.last_words() or "it said nothing",
        )  # fmt: skip

    @contextlib.asynccontextmanager
    async def or_its_end(self, name: str) -> AsyncIterator[None]:
        """What fails within says, where the machine has ended, only that; `name` is the pod's.

        :raise Unavailable: it has.
        """
        try:
            yield
        except (Unavailable, GuestError) as error:
            try:
                await tasks.within(self.machine.wait(), _END)
            except TimeoutError:
                raise error from None
            said = self.last_words()
            raise Unavailable(f"the virtual machine of {name} has ended{f': {said}' if said else ''}") from error

    def last_words(self) -> str:
        """What is known of the end of a machine that nobody ended."""
        fault = f"its guest broke the protocol: {self.agent.fault}" if self.agent.fault else ""
        return "; ".join(filter(None, (fault, self.allotment.last_words(), self.machine.last_words())))

    async def stop(self, *, clean: bool) -> None:
        """End the VM and free what it held; `clean` makes what was written safe first. Idempotent."""
        if clean:
            with contextlib.suppress(HyperError):
                await self.agent.shut_down(deadlines.SHUTDOWN)
        self.agent.close()
        try:
            await self.machine.kill()
        finally:  # who is cancelled meanwhile leaves nothing either
            remove_tree(self.directory)
            self.allotment.give_back()
            self.gone.set()


def handle_of(vm: Vm) -> dict[str, Any]:
    """What the driver finds the machine by; an earlier hyperd, which had one driver, wrote its parts down."""
    return vm.handle or {
        "directory": vm.directory,
        "pid": vm.pid,
        "pidStarted": vm.pid_started,
        "accelerator": vm.accelerator,
    }


def record(pod: Pod, runtime: Runtime) -> Pod:
    """The pod with what is needed to find its VM again."""
    vm = Vm(
        driver=runtime.machine.driver,
        pid=runtime.machine.pid,
        allotment=runtime.allotment.name,
        user=runtime.allotment.user,
        handle=runtime.machine.handle,
        directory=str(runtime.directory),
        token=runtime.agent.next_token.hex(),
        accelerator=runtime.machine.accelerator,
        machine_type=runtime.machine.machine_type,
        devices=dict(runtime.devices),
        processes=dict(runtime.processes),
        built=sorted(runtime.built),
        nics=dict(runtime.nics),
        spares=sorted(runtime.spares),
        disks=sorted(runtime.disks),
        disk_names=dict(runtime.names),
        directories=runtime.directories,
        server=list(runtime.server or ()),
        late=dict(runtime.late),
        user_network=runtime.user_network,
        layout=runtime.layout,
        saving=runtime.saving.locked(),
        volumes=dict(runtime.volumes),
        ports_in_change=list(runtime.ports_in_change),
    )
    return msgspec.structs.replace(pod, vm=vm)
