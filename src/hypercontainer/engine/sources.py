# SPDX-License-Identifier: Apache-2.0
"""Where a pod's machine comes from: one that waits, a clone of a template, or one that boots; tried in this order.

Every step that takes something registers its release on an exit stack; a
failure unwinds it, success hands it to the machine.
"""

from __future__ import annotations

import asyncio
import contextlib
import logging
from collections.abc import Sequence
from dataclasses import dataclass, replace
from typing import Protocol

from ..errors import GuestError, Unavailable
from ..guest.agent import Agent
from ..hypervisor.driver import AnyDisk, Driver, SpareNetwork, VirtioFs
from ..hypervisor.facets import Reconfigure, require
from ..model.status import Pod
from ..network.backend import Link, NicKind
from ..network.usermode import mac_of
from ..protocol.constants import FIRST_TOKEN, Builtin
from ..sys import tasks
from ..sys.spans import GUEST, HYPERVISOR, span
from ..sys.trees import remove_tree
from .allotments import Allotments
from .booted import BootedMachine, start
from .builtins import run_builtin
from .factory.clones import CLONE_TIMEOUT, PREPARED, Clone
from .factory.factory import Factory
from .factory.shapes import Kind
from .factory.templates import Template
from .host_devices import HostDevices
from .machine_config import guest_interfaces, machine_config, share_of
from .paths import FindBootFiles, Paths
from .pod_network import PodNetwork
from .services import firewall_batch

log = logging.getLogger(__name__)


@dataclass(frozen=True)
class Order:
    """The machine that a pod is to have."""

    pod: Pod
    disks: list[AnyDisk]
    driver: Driver
    kind: Kind | None = None  # what the factory may have; None: it must be booted
    virtiofs: bool = True


class MachineSource(Protocol):
    """Gives machines whose guests are set up for their pods, and have no container of theirs."""

    name: str  # in the factory's account

    async def obtain(self, order: Order) -> BootedMachine | None:
        """None: it has no such machine, or what it had was of no use."""


async def first(sources: Sequence[MachineSource], order: Order) -> BootedMachine:
    """From the first that has one; the last always has.

    :raise Unavailable: it does not boot.
    """
    for source in sources:
        if booted := await source.obtain(order):
            booted.source = source.name
            return booted
    raise Unavailable(f"there is no virtual machine for pod {order.pod.name}")


class Setup:
    """What a machine of a pod is told, and has, wherever it comes from."""

    def __init__(
        self, paths: Paths, network: PodNetwork, boot: FindBootFiles, factory: Factory,
        allotments: Allotments, devices: HostDevices,
    ) -> None:  # fmt: skip
        self.allotments = allotments
        self._devices = devices
        self.paths = paths
        self.network = network
        self.factory = factory
        self.boot_files = boot

    async def launch(self, order: Order, template: Template | None) -> BootedMachine:
        """A new machine: a clone of the template, or one that boots.

        :raise Unavailable: when the guest does not come up; the message has its last words.
        """
        pod, files = order.pod, self.boot_files(order.pod.architecture)
        names: dict[str, str] = {}  # slots of the clone that the disks lie in
        token, timeout = (template.token, CLONE_TIMEOUT) if template else (FIRST_TOKEN, files.timeout)
        directory = self.paths.machine(pod.id)
        async with contextlib.AsyncExitStack() as undo:
            undo.callback(remove_tree, directory)
            fenced = self.network.is_fenced(pod)
            allotment = await self.allotments.take(
                order.driver, directory.name, pod.vcpus, pod.memory, fenced=fenced, architecture=pod.architecture
            )
            undo.callback(allotment.give_back)
            self.allotments.give(pod.id, allotment)
            with contextlib.ExitStack() as handed_over:
                groups = allotment.group.directories
                shared = None
                if not template and VirtioFs in order.driver.takes:  # a clone's memory is its own: no server reads it
                    shared = await share_of(pod, directory, handed_over, groups, use_virtiofs=order.virtiofs)
                config = await machine_config(
                    pod, order.disks, network=self.network, directory=directory, kernel=files.kernel,
                    initramfs=files.initramfs, stack=handed_over, shared=shared.device if shared else None,
                    devices=self._devices.of(pod), spares=SpareNetwork in order.driver.takes,
                )  # fmt: skip
                if template:
                    config, names = await self.factory.from_template(template, config)
                booted = await start(order.driver, config, allotment, token, timeout)
            undo.push_async_callback(booted.end)
            await self.introduce(booted.agent, pod, [n.mac for n in config.networks] if template else [])
            undo.pop_all()
        booted.names |= {serial: booted.names.get(slot, slot) for serial, slot in names.items()}
        booted.prepared = PREPARED if template and template.scratch else ""
        booted.server = shared.server if shared else None
        return booted

    async def introduce(self, agent: Agent, pod: Pod, macs: list[str]) -> None:
        """Let the guest be the pod's: its name, the time, its network and services."""
        with span("name, clock, network", GUEST):
            links = self.network.links(pod)
            interfaces = guest_interfaces(pod, links, macs)
            await agent.setup_pod(pod.hostname, interfaces, sysctls_of(pod, links), pod.spec.shm_size)
        if batch := firewall_batch(pod):
            await run_builtin(agent, Builtin.FIREWALL, stdin=batch, what="the pod's services")


def sysctls_of(pod: Pod, links: Sequence[Link]) -> dict[str, str]:
    """What a pod's guest is told of its kernel's parameters."""
    deaf = any(not link.routers for link in links)
    return {
        **({"net.ipv6.conf.all.accept_ra": "0", "net.ipv6.conf.default.accept_ra": "0"} if deaf else {}),
        **pod.spec.sysctls,
    }


class Warm:
    """Machines of the pool."""

    name = "pool"

    def __init__(self, setup: Setup) -> None:
        self._setup = setup

    async def obtain(self, order: Order) -> BootedMachine | None:
        clone = self._setup.factory.take(order.kind)
        if clone is None:
            return None
        try:
            return await self._reconfigure(clone, order)
        except (Unavailable, GuestError) as error:
            log.warning("a machine of the pool was of no use: %s", error)
            return None

    async def _reconfigure(self, clone: Clone, order: Order) -> BootedMachine:
        """It gets a pod's disks and network."""
        pod = order.pod
        async with contextlib.AsyncExitStack() as undo:
            undo.push_async_callback(clone.end)
            links = [replace(link, mac=mac_of(link)) for link in self._setup.network.links(pod)]
            placed, names = self._setup.factory.place(order.disks)
            if clone.scratch:  # the container that is ready goes on with its disk, which is as empty
                clone.prepared = PREPARED
                clone.scratch.replace(placed[1].path)
                placed = []
            directory = self._setup.paths.machine(pod.id)
            remove_tree(directory)
            clone.directory.rename(directory)
            clone.directory = directory
            self._setup.allotments.give(pod.id, clone.allotment)
            # The host's part and the guest's know nothing of each other.
            plug = asyncio.create_task(self._plug_in(clone, pod, links))
            undo.push_async_callback(tasks.end, (plug,))
            with span("disks exchanged, ports published", HYPERVISOR):
                ports = pod.ports if clone.shape.nic == NicKind.USER else []
                await require(clone.machine, Reconfigure).reconfigure(directory, placed, ports)
            await self._setup.introduce(clone.agent, pod, [link.mac for link in links])
            await plug
            undo.pop_all()
        clone.names |= {serial: clone.names.get(slot, slot) for serial, slot in names.items()}
        spares = self._setup.network.spares(pod, len(links)) if SpareNetwork in order.driver.takes else []
        clone.spares = [nic.tap for nic in spares]
        clone.nics = {link.tap: link.mac for link in links if link.tap} | {nic.tap: nic.mac for nic in spares}
        clone.release()
        return clone

    async def _plug_in(self, clone: Clone, pod: Pod, links: Sequence[Link]) -> None:
        with span("network interface plugged in"):
            for link in links:
                await self._setup.network.attach(pod, link, clone.nic)


class Cloned:
    """Machines that go on from a template."""

    name = "clone"

    def __init__(self, setup: Setup) -> None:
        self._setup = setup

    async def obtain(self, order: Order) -> BootedMachine | None:
        template = self._setup.factory.template(order.kind)
        if template is None:
            return None
        try:
            with template.in_use():
                return await self._setup.launch(order, template)
        except Unavailable:
            self._setup.factory.suspect(template.kind)
            return None


class Cold:
    """Machines that boot."""

    name = "cold"

    def __init__(self, setup: Setup) -> None:
        self._setup = setup

    async def obtain(self, order: Order) -> BootedMachine | None:
        return await self._setup.launch(order, None)


def all_sources(setup: Setup) -> tuple[MachineSource, ...]:
    """In the order in which they are tried."""
    return (Warm(setup), Cloned(setup), Cold(setup))
