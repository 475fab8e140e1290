# SPDX-License-Identifier: Apache-2.0
"""What pods' machines are made with and who owns them, wired."""

from __future__ import annotations

from dataclasses import dataclass

from ..hypervisor.drivers import Drivers
from ..images.root import ImageRoots
from ..images.store import ImageStore
from ..network.choice import Backends, Choice
from ..network.egress.gate import EgressSettings
from ..sys.pci import PciBus
from ..volumes.scratch import ScratchDisks
from .allotments import Allotments
from .bring_up import BringUp, ExclusiveVolumes
from .build import Builder
from .egress import Refusals
from .events import Events
from .factory.factory import Factory
from .factory.parts import Parts
from .forks.resuming import Awoken
from .forks.source import Woken
from .host_devices import HostDevices
from .host_ports import HostPorts
from .launch import Launcher, Orders
from .machine_disks import MachineDisks
from .paths import FindBootFiles
from .pod_network import PodNetwork
from .reattach import Reattacher
from .registry import Registry
from .sandboxes import Sandboxes
from .secrets import Secrets
from .settings import Settings
from .shares import Shares
from .sources import Setup, all_sources


@dataclass(frozen=True)
class Ground:
    """What they stand on; `boot` gives what a machine boots, or says why there is nothing."""

    settings: Settings
    drivers: Drivers
    boot: FindBootFiles
    registry: Registry
    allotments: Allotments
    images: ImageStore
    events: Events


@dataclass(frozen=True)
class Machinery:
    """What others of the engine ask."""

    network: PodNetwork
    factory: Factory
    reattacher: Reattacher
    sandboxes: Sandboxes
    secrets: Secrets
    roots: ImageRoots
    disks: MachineDisks
    woken: Woken
    awoken: Awoken
    bring_up: BringUp
    shares: Shares


def of_host(ground: Ground) -> Choice:
    """The networks that this host has."""
    way = ground.settings.network.user_network
    runs_as = ground.allotments.runs_as
    egress = EgressSettings(
        ground.settings.egress_networks, Refusals(ground.events), runs_as, Secrets(ground.settings.paths).get
    )
    run, groups = ground.settings.paths.run, ground.registry.groups.of
    rates = ground.settings.network.rates
    return Backends(ground.registry, run, way, runs_as=runs_as, egress=egress, groups=groups, rates=rates)


def assemble(ground: Ground, networks: Choice) -> Machinery:
    """Nothing is begun: what machines an earlier daemon left, `recover` finds."""
    settings, drivers, registry, allotments = ground.settings, ground.drivers, ground.registry, ground.allotments
    paths = settings.paths
    network = PodNetwork(networks, HostPorts(registry), settings.network.rates.ingress)
    scratch, secrets = ScratchDisks(paths.cache, settings.scratch_size), Secrets(paths)
    roots = ImageRoots(ground.images, scratch.create, paths.scratch)
    parts = Parts(paths.cache, scratch, settings.scratch_size)
    factory = Factory(drivers, paths, parts, ground.boot, settings.factory, allotments)
    disks, shares = MachineDisks(roots, secrets), Shares(settings.virtiofs)
    orders = Orders(drivers, ground.images, disks, network, shares, factory)
    devices = HostDevices(registry, PciBus(), lambda pod_id: sandboxes.booted(pod_id))
    setup = Setup(paths, network, ground.boot, factory, allotments, devices)
    builder = Builder(disks, secrets, network, shares)
    woken, awoken = Woken(setup, builder, settings.scratch_size), Awoken(setup, builder, settings.scratch_size)
    launcher = Launcher(orders, (woken, awoken, *all_sources(setup)), factory)
    volumes = ExclusiveVolumes(registry, lambda pod_id: sandboxes.booted(pod_id))
    reattacher = Reattacher(drivers, allotments)
    bring_up = BringUp(registry, launcher, network, volumes, devices, paths)
    sandboxes = Sandboxes(registry, bring_up, reattacher, builder, ground.events, kill_silent=settings.kill_silent)
    return Machinery(network, factory, reattacher, sandboxes, secrets, roots, disks, woken, awoken, bring_up, shares)
