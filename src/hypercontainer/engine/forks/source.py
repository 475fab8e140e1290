# SPDX-License-Identifier: Apache-2.0
"""Machines that go on from a saved one: a source of machines, for pods that were made for that."""

from __future__ import annotations

import contextlib
import os
from collections.abc import Awaitable, Callable, Iterator, Mapping, Sequence
from dataclasses import dataclass, replace
from functools import partial
from pathlib import Path

from ...errors import Unavailable
from ...guest.agent import Agent, Fork
from ...guest.agent import require as require_of_guest
from ...guest.greet import wake
from ...hypervisor.abilities import has
from ...hypervisor.driver import Disk, Driver, Machine, MachineConfig, Snapshot
from ...hypervisor.facets import Early, Reconfigure, require
from ...model import ids
from ...model.layout import MachineLayout
from ...model.status import Container, Pod
from ...network.backend import Link, Nic, NicKind
from ...network.idle import IdleNic
from ...network.usermode import mac_of
from ...sys.files import make_sparse
from ...sys.spans import GUEST, HYPERVISOR, span
from ...sys.trees import remove_tree
from ..booted import BootedMachine
from ..build import Builder
from ..machine_config import guest_interfaces
from ..sources import Order, Setup, sysctls_of
from . import idle, records
from .launched import Launched
from .saved import Saved, Suspended

_STAND_IN = "early-{}.img"


@dataclass(frozen=True)
class Waking:
    """A pod that is to go on from a saved one."""

    saved: Saved | Suspended
    who: records.Identity
    members: Sequence[Container]


class Woken:
    """Gives a machine to those pods that wait for one."""

    name = "fork"

    def __init__(self, setup: Setup, builder: Builder, blank_size: int) -> None:
        """`blank_size` are the bytes of a disk that nothing lies behind."""
        self._setup = setup
        self._builder = builder
        self._blank_size = blank_size
        self._waiting: dict[str, Waking] = {}

    @contextlib.contextmanager
    def waits(self, pod_id: str, waking: Waking) -> Iterator[None]:
        """Within it a start of the pod's machine is to go on from there."""
        self._waiting[pod_id] = waking
        try:
            with waking.saved.in_use():
                yield
        finally:
            self._waiting.pop(pod_id, None)

    async def obtain(self, order: Order) -> BootedMachine | None:
        waking = self._waiting.pop(order.pod.id, None)
        return await self._wake(order, waking) if waking else None

    async def launch_early(
        self, pod: Pod, driver: Driver, layout: MachineLayout, disks: Mapping[str, Disk], files: Snapshot
    ) -> Launched | None:
        """A machine for the first that goes on from a pod, while that is saved: `launched.LaunchEarly`.

        None where the driver launches none before it has what it goes on from.
        """
        if not has(driver, Early):
            return None
        directory = self._setup.paths.machine(f"fork-{ids.new_id()[:8]}")
        with span("started before it is saved", HYPERVISOR):
            launched = await self._launch(
                pod, driver, layout, directory,
                lambda: {serial: _stand_in(disk, serial, directory) for serial, disk in disks.items()},
                lambda config: driver.launch(replace(config, snapshot=replace(files, live=True), early=True)),
            )  # fmt: skip
        for path in directory.glob(_STAND_IN.format("*")):  # they are open, and nobody else's
            path.unlink()
        return launched

    async def _launch(
        self, pod: Pod, driver: Driver, layout: MachineLayout, directory: Path,
        known: Callable[[], Mapping[str, Disk]], start: Callable[[MachineConfig], Awaitable[Machine]],
        spares: Sequence[Nic] = (), macs: Sequence[str] = (),
    ) -> Launched:  # fmt: skip
        """`known` gives disks, once the directory is there."""
        setup = self._setup
        async with contextlib.AsyncExitStack() as undo:
            undo.callback(remove_tree, directory)
            directory.mkdir(mode=0o700, parents=True, exist_ok=True)
            allotment = await setup.allotments.take(
                driver, directory.name, pod.vcpus, pod.memory, fenced=setup.network.is_fenced(pod),
                architecture=pod.architecture,
            )  # fmt: skip
            undo.callback(allotment.give_back)
            nics = idle.idle_nics(layout, undo)
            config = idle.machine_like(
                pod, layout, setup.boot_files(pod.architecture), allotment, directory,
                idle.networks(layout, nics, spares, macs), idle.disks(layout, known(), directory, self._blank_size),
            )  # fmt: skip
            machine = await start(config)
            undo.pop_all()
        for nic in nics:
            nic.launched()
        return Launched(machine, directory, allotment, nics)

    async def _wake(self, order: Order, waking: Waking) -> BootedMachine:
        """:raise Unavailable: it does not answer; nothing is left behind."""
        pod, document, setup = order.pod, waking.saved.document, self._setup
        links = [replace(link, mac=mac_of(link)) for link in setup.network.links(pod)]
        names = records.disk_names(document, waking.who, pod, list(waking.members))
        spares = setup.network.spares(pod, len(links))[: document.layout.nics.count(NicKind.SPARE)]
        async with contextlib.AsyncExitStack() as undo:
            with span("started from what was saved", HYPERVISOR):
                launched = await self._launched(order, waking, names, spares, [link.mac for link in links])
            undo.push_async_callback(launched.end)
            machine = launched.machine
            setup.allotments.give(pod.id, launched.allotment)
            with span("answers", GUEST):
                agent = await self._greet(machine, bytes.fromhex(document.token))
            if agent is None:
                raise Unavailable(f"the virtual machine of {pod.name} does not go on: {machine.last_words()}",
                                  hint="save the pod anew")  # fmt: skip
            undo.callback(agent.close)
            booted = BootedMachine(
                machine, agent, launched.directory, launched.allotment, names={**names, **machine.names},
                layout=document.layout, spares=[nic.tap for nic in spares],
                nics={link.tap: link.mac for link in links if link.tap} | {nic.tap: nic.mac for nic in spares},
                inherited=records.inherited(document, waking.who),
            )  # fmt: skip
            await self._become(agent, pod, waking, booted, links)
            await self._plug_in(booted, pod, links, launched.nics)
            undo.pop_all()
        return booted

    async def _launched(
        self, order: Order, waking: Waking, names: Mapping[str, str], spares: Sequence[Nic], macs: Sequence[str]
    ) -> Launched:
        """The pod's machine, which runs; one that was launched early, if there is one."""
        pod, directory = order.pod, self._setup.paths.machine(order.pod.id)
        disks = {names[d.serial]: replace(d, serial=names[d.serial]) for d in order.disks if isinstance(d, Disk)}
        early = waking.saved.early_one() if isinstance(waking.saved, Saved) else None
        if early is None:
            return await self._launch(
                pod, order.driver, waking.saved.document.layout, directory, lambda: disks,
                partial(self._start, order.driver, waking), spares, macs,
            )  # fmt: skip
        try:
            remove_tree(directory)
            early.directory.rename(directory)
            early.directory = directory
            written = [disk for disk in disks.values() if not disk.read_only]
            await require(early.machine, Early).begin(directory, written)
        except BaseException:
            await early.end()
            raise
        return early

    async def _start(self, driver: Driver, waking: Waking, config: MachineConfig) -> Machine:
        assert isinstance(waking.saved, Saved)
        return await driver.launch(replace(config, snapshot=waking.saved.snapshot))

    async def _greet(self, machine: Machine, token: bytes) -> Agent | None:
        return await wake(machine.connect, machine.wait, token)

    async def _become(
        self, agent: Agent, pod: Pod, waking: Waking, booted: BootedMachine, links: Sequence[Link]
    ) -> None:
        """The guest is this pod's; its programs stand still."""
        assert booted.inherited
        with span("name, clock, network", GUEST):
            before = records.interfaces_before(waking.saved.document)
            interfaces = guest_interfaces(pod, links, [link.mac for link in links])
            await require_of_guest(agent, Fork).become(
                pod.hostname, before, interfaces, sysctls_of(pod, links), pod.spec.shm_size
            )
        agent.kill_orphans(keep=set(booted.inherited.processes.values()))
        old = {new: old for old, (new, _) in waking.who.containers.items()}
        everyone = [n for c in waking.members for n in (c.name, *c.spec.aliases)]
        for container in waking.members:
            if container.id in booted.inherited.built:
                await self._builder.rename(booted, pod, container, everyone, old[container.id])

    async def _plug_in(self, booted: BootedMachine, pod: Pod, links: Sequence[Link], nics: Sequence[IdleNic]) -> None:
        with span("network interfaces plugged in"):
            for link, nic in zip(links, nics, strict=True):
                await self._setup.network.attach(pod, link, nic)
                if nic.kind == NicKind.USER and pod.ports:
                    await require(booted.machine, Reconfigure).reconfigure(booted.directory, (), pod.ports)
                nic.close()


def _stand_in(disk: Disk, serial: str, directory: Path) -> Disk:
    """What a copy of it is put in the place of; what nobody writes is the same for all."""
    if disk.read_only:
        return replace(disk, serial=serial)
    path = directory / _STAND_IN.format(serial)
    make_sparse(path, os.stat(disk.path).st_size)
    return replace(disk, serial=serial, path=path)
