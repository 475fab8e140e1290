# SPDX-License-Identifier: Apache-2.0
"""Machines that go on from a saved one: a source of machines, for pods that were made for that."""

from __future__ import annotations

import contextlib
from collections.abc import Iterator, Sequence
from dataclasses import dataclass, replace

from ...errors import Unavailable
from ...guest.agent import Agent, Fork
from ...guest.agent import require as require_of_guest
from ...guest.greet import wake
from ...hypervisor.driver import Disk, Driver, Machine, MachineConfig
from ...hypervisor.facets import Reconfigure, require
from ...model.status import Container, Pod
from ...network.backend import Link, NicKind
from ...network.idle import IdleNic
from ...network.usermode import mac_of
from ...sys.files import remove_tree
from ...sys.spans import GUEST, HYPERVISOR, span
from ..booted import BootedMachine
from ..build import Builder
from ..machine_config import guest_interfaces
from ..sources import Order, Setup, sysctls_of
from . import idle, records
from .saved import Saved, Suspended


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

    async def _wake(self, order: Order, waking: Waking) -> BootedMachine:
        """:raise Unavailable: it does not answer; nothing is left behind."""
        pod, document, setup = order.pod, waking.saved.document, self._setup
        links = [replace(link, mac=mac_of(link)) for link in setup.network.links(pod)]
        names = records.disk_names(document, waking.who, pod, list(waking.members))
        spares = setup.network.spares(pod, len(links))[: document.layout.nics.count(NicKind.SPARE)]
        async with contextlib.AsyncExitStack() as undo:
            directory = setup.paths.machine(pod.id)
            undo.callback(remove_tree, directory)
            directory.mkdir(mode=0o700, parents=True, exist_ok=True)
            allotment = await setup.allotments.take(
                order.driver, directory.name, pod.vcpus, pod.memory, fenced=setup.network.is_fenced(pod),
                architecture=pod.architecture,
            )  # fmt: skip
            undo.callback(allotment.give_back)
            setup.allotments.give(pod.id, allotment)
            nics = undo.enter_context(idle.idle_nics(document.layout))
            known = {names[d.serial]: replace(d, serial=names[d.serial]) for d in order.disks if isinstance(d, Disk)}
            config = idle.machine_like(
                pod, document.layout, setup.boot_files(pod.architecture), allotment, directory,
                idle.networks(document.layout, nics, spares),
                idle.disks(document.layout, known, directory, self._blank_size),
            )  # fmt: skip
            with span("started from what was saved", HYPERVISOR):
                machine = await self._launch(order.driver, config, waking)
            undo.push_async_callback(machine.kill)
            for nic in nics:
                nic.launched()
            with span("answers", GUEST):
                agent = await self._greet(machine, bytes.fromhex(document.token))
            if agent is None:
                raise Unavailable(f"the virtual machine of {pod.name} does not go on: {machine.last_words()}",
                                  hint="save the pod anew")  # fmt: skip
            undo.callback(agent.close)
            booted = BootedMachine(
                machine, agent, directory, allotment, names={**names, **machine.names}, layout=document.layout,
                nics={link.tap: link.mac for link in links if link.tap} | {nic.tap: nic.mac for nic in spares},
                spares=[nic.tap for nic in spares], inherited=records.inherited(document, waking.who),
            )  # fmt: skip
            await self._become(agent, pod, waking, booted, links)
            await self._plug_in(booted, pod, links, nics)
            undo.pop_all()
        return booted

    async def _launch(self, driver: Driver, config: MachineConfig, waking: Waking) -> Machine:
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
