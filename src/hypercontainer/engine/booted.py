# SPDX-License-Identifier: Apache-2.0
"""A machine whose guest answers: the one thing that booting, cloning and waiting in the pool come to."""

from __future__ import annotations

import contextlib
from collections.abc import Mapping
from dataclasses import dataclass, field, replace
from pathlib import Path

from ..errors import HyperError, Unavailable
from ..guest.agent import Agent
from ..guest.greet import greet
from ..hypervisor.driver import (
    AnyNetwork,
    Driver,
    Machine,
    MachineConfig,
    SpareNetwork,
    StreamNetwork,
    TapNetwork,
    UserNetwork,
)
from ..jail.jail import Started
from ..model.layout import MachineLayout
from ..network.backend import NicKind
from ..sys import tasks
from ..sys.spans import GUEST, HYPERVISOR, span
from ..sys.trees import remove_tree
from .allotments import Allotment

_LAST_WORDS = 0.5  # seconds that they may take, after the channel has ended
_KINDS: dict[type[AnyNetwork], NicKind] = {
    TapNetwork: NicKind.TAP, UserNetwork: NicKind.USER, StreamNetwork: NicKind.STREAM, SpareNetwork: NicKind.SPARE,
}  # fmt: skip


@dataclass(frozen=True)
class Inherited:
    """What the guest of a machine that goes on from a saved one has already, by the names that it has now."""

    processes: dict[str, int]  # containers -> numbers of their main processes
    built: set[str]  # containers
    volumes: dict[str, str]  # names -> what the guest calls them


@dataclass
class BootedMachine:
    """Not yet a pod's, or a pod's without any container; whoever has it ends it, or makes it a `Runtime`."""

    machine: Machine
    agent: Agent
    directory: Path
    allotment: Allotment
    names: dict[str, str] = field(default_factory=dict)  # serial numbers of disks -> what the guest finds them by
    nics: dict[str, str] = field(default_factory=dict)  # taps -> MAC addresses
    spares: list[str] = field(default_factory=list)  # those of them to which no NIC leads before it is plugged in
    devices: dict[str, int] = field(default_factory=dict)  # PCI devices of this host -> their groups of the IOMMU
    source: str = ""  # in the factory's account
    prepared: str = ""  # a container that the guest has already, for the first one that is built
    server: Started | None = None  # of directories of the host
    layout: MachineLayout | None = None
    inherited: Inherited | None = None

    @property
    def fit(self) -> bool:
        """Whether its guest still answers; one that does not is of no use to anybody."""
        return self.agent.alive

    async def end(self) -> None:
        """Nothing of it is left. Idempotent."""
        self.agent.close()
        await self.machine.kill()
        remove_tree(self.directory)
        self.allotment.give_back()


async def start(
    driver: Driver, config: MachineConfig, allotment: Allotment, token: bytes, timeout: float
) -> BootedMachine:
    """Launch a machine and wait until its guest answers `token`, in seconds.

    :raise Unavailable: when it does not, with its last words; nothing is left behind but the allotment, the caller's.
    """
    config = replace(config, user=allotment.user, control_groups=allotment.group.directories)
    clone = config.snapshot is not None
    async with contextlib.AsyncExitStack() as undo:
        undo.callback(remove_tree, config.directory)
        with span("started from a template" if clone else "started", HYPERVISOR):
            machine = await driver.launch(config)
        undo.push_async_callback(machine.kill)
        with span("answers" if clone else "boots", GUEST):
            agent = await _greet(machine, allotment, token, timeout, inherited=clone)
        undo.pop_all()
    devices = {d.address: d.group for d in config.devices}
    return BootedMachine(
        machine, agent, config.directory, allotment, dict(machine.names), dict(config.taps), config.spares,
        devices, layout=layout_of(config, machine.names),
    )  # fmt: skip


def layout_of(config: MachineConfig, names: Mapping[str, str]) -> MachineLayout:
    """The devices of a machine that was launched so; `names` are the machine's."""
    return MachineLayout(
        disks=[names.get(d.serial, d.serial) for d in config.disks],
        nics=[str(_KINDS[type(n)]) for n in config.networks],
        expandable=config.expandable,
        balloon=config.snapshot is None and config.memory_file is None,
        directories=config.share is not None,
    )


async def _greet(
    machine: Machine, allotment: Allotment, token: bytes, timeout: float, *, inherited: bool
) -> Agent:  # fmt: skip
    try:
        return await greet(machine.connect(), token, timeout=timeout, inherited=inherited)
    except HyperError as error:
        with contextlib.suppress(TimeoutError):
            await tasks.within(machine.wait(), _LAST_WORDS)
        raise Unavailable(
            f"the virtual machine did not start: {allotment.last_words() or machine.last_words() or error.message}",
            hint="see `hyperctl doctor` for the kernel and the accelerator in use",
        ) from error
