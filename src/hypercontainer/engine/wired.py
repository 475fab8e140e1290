# SPDX-License-Identifier: Apache-2.0
"""The services of the engine, wired."""

from __future__ import annotations

import asyncio
from collections.abc import Callable
from dataclasses import replace

from ..hypervisor.drivers import Drivers
from ..images.skopeo import Wall
from ..images.store import ImageStore
from ..images.trust import Trust
from ..jail.control_groups import ControlGroups, NoGroups
from ..kernel.locate import Kernel
from ..model.principal import Tenant
from ..model.quotas import Amounts
from ..network.backend import Records
from ..network.choice import Choice
from ..volumes.disks import BlockVolumes
from . import leftovers, policies
from .about import About
from .allotments import Allotments
from .archive import Archives
from .attachments import Attachments
from .audit import AuditLog
from .backup.backups import Backups
from .builder.builders import Builders
from .builder.builds import Builds
from .cluster.namespaces import namespaces
from .cluster.pods import ClusterPods
from .commit import Commits
from .container_logs import ContainerLogs
from .containers import Containers
from .creation import Creation
from .cron.crons import Crons
from .cron.runner import Runner
from .deployments.deployments import Deployments
from .deployments.keeper import Keeper
from .descriptions import Descriptions
from .disk_watch import DiskWatch
from .events import Events
from .execs import Execs
from .fips import Fips
from .forks.copies import Copies
from .forks.doorbell import Doorbells
from .forks.fingerprints import Fingerprints
from .forks.making import Making
from .forks.resuming import Resuming
from .forks.saved import size_of
from .forks.snapshots import PodSnapshots
from .forks.suspending import Suspending
from .forks.suspensions import Suspensions
from .forks.taking import Taking
from .forks.transfers import Transfers
from .forwards import Forwards
from .image_events import ImageEvents
from .lifetimes import Lifetimes
from .listing import Listing
from .log_sinks.choose import LogSinks
from .machinery import Ground, Machinery, assemble, of_host
from .metering.accounts import Accounts
from .monitor import Monitor
from .networks import Networks
from .paths import FindBootFiles
from .placement import Placement
from .pod_creation import PodCreation
from .pod_updates import PodUpdates
from .pods import Pods
from .principal import current, names_of
from .project_contents import ProjectContents
from .propagation import Propagation
from .quotas.limits import Limits
from .registry import Registry
from .security_groups import SecurityGroups
from .services import Services
from .settings import Settings
from .still_disks import StillDisks
from .tenancy import tenancy
from .tenants import Tenants
from .tokens import Tokens
from .trees import Trees
from .updates import Updates
from .usage import Usage
from .user_numbers import UserNumbers
from .volume_copies import VolumeCopies
from .volume_snapshots import VolumeSnapshots
from .volumes import Volumes


class Wired:
    """All services: `Engine` adds what begins and ends them, and what joins several."""

    def __init__(
        self, settings: Settings, drivers: Drivers, kernel: Kernel | None, boot: FindBootFiles,
        backends: Callable[[Records, Settings], Choice] | None = None, groups: ControlGroups | None = None,
    ) -> None:  # fmt: skip
        """`kernel` is None where there is none yet; `boot` raises then. `backends` gives others than this host's."""
        self._groups = groups or NoGroups()
        self._boot = boot
        paths = settings.paths
        self.settings, self.drivers, self.kernel = settings, drivers, kernel
        self.registry = Registry(leftovers.open_database(paths, drivers))
        self._allotments = Allotments(self._groups, UserNumbers(self.registry.journal, paths.root))
        self._descriptions = Descriptions(self.registry)
        self.registry.journal.limits = settings.events
        self.events = Events(self.registry.journal)
        self.events.tenant_of = self.registry.tenant_of
        self.audit = AuditLog(settings.audit, self.events) if settings.audit else None
        self.tenants = Tenants(self.registry.journal)
        self.registry.policy_of = self.tenants.policy_of
        self.tokens = Tokens(self.registry.journal, self.events, self.tenants)
        self.images = ImageStore(
            paths.images, insecure=settings.insecure_registries, in_use=self._images_in_use, limits=settings.images,
            trust=self._trust, wall=self._wall, tenant=names_of, admits=self._admit_image,
        )  # fmt: skip
        ground = Ground(settings, drivers, boot, self.registry, self._allotments, self.images, self.events)
        made = assemble(ground, backends(self.registry, settings) if backends else of_host(ground))
        network, sandboxes = self._network, self._sandboxes = made.network, made.sandboxes
        self.factory, self._reattacher = made.factory, made.reattacher
        self.networks = Networks(self.registry, settings.network, self.events, network)
        blocks = BlockVolumes(paths.cache, settings.scratch_size)
        self.volumes = Volumes(self.registry, paths, blocks, made.secrets, self.events, settings.volume_type)
        placement = Placement(drivers, self.networks, network, self.registry, boot, settings.sizes)
        creation = Creation(paths, self.registry, self.images, placement, self.volumes, made.roots)
        self._log_sinks = LogSinks(settings.log_size, settings.log_files, settings.log)
        self.containers = Containers(paths, self.registry, sandboxes, creation, self.events, self._log_sinks)
        pod_creation = PodCreation(self.registry, self.images, self.containers, placement, self.volumes, made.secrets)
        self.pods = Pods(self.registry, sandboxes, self.containers, network, pod_creation, self.events)
        still = StillDisks(self.registry, sandboxes)
        fingerprints = self._assemble_snapshots(made, placement, still)
        self.security_groups = SecurityGroups(self.registry, network, self.events)
        self.services = Services(self.registry, sandboxes.changing)
        self.execs = Execs(self.registry, self.containers, self.events)
        self.image_events = ImageEvents(self.events)
        self.attachments = Attachments(self.registry, self.containers, self.execs)
        self.logs = ContainerLogs(self.registry, self.containers).read
        self.usage = Usage(paths, self.registry, self.images, self.containers, self.volumes, self.events)
        self.listing = Listing(self.registry, self.images, self.networks, self.usage)
        self.updates = Updates(self.registry, self.containers, sandboxes, network, self.events)
        self.archives = Archives(self.registry, self.containers)
        self.commits = Commits(self.registry, self.containers, self.archives, self.images)
        self.monitor = Monitor(self.registry, self.containers, sandboxes, network)
        self.forwards = Forwards(self.registry, sandboxes)
        self.trees = Trees(self.registry, self.containers)
        self.backups = Backups(paths, self.registry, sandboxes, still)
        self._assemble_workloads()
        self._assemble_watches(made, fingerprints)
        self._assemble_tenancy()
        self._disk_watch = DiskWatch(paths.root, sandboxes.running, self.events, drain=self.factory.pool.drain)
        self._propagation = Propagation(self.registry, sandboxes.running, made.shares)
        self._late: set[asyncio.Task[None]] = set()  # recovery of machines that have not answered yet
        self._watching: list[asyncio.Task[None]] = []

    def _assemble_workloads(self) -> None:
        self.crons = Crons(self.registry.journal, self.events, self.registry.quotas)
        self.cron_runner = Runner(self.crons, self.registry, self.containers)
        self.deployments = Deployments(self.registry, self.networks, self.events)
        self.keeper = Keeper(self.deployments, self.registry, self.containers, self._network)

    def _assemble_snapshots(self, made: Machinery, placement: Placement, still: StillDisks) -> Fingerprints:
        settings, paths, network, sandboxes = self.settings, self.settings.paths, made.network, made.sandboxes
        fingerprints = Fingerprints(self.drivers, self._boot)
        taking = Taking(self.registry, self.drivers, made.disks, network, made.secrets, fingerprints)
        copies = Copies(paths, self.volumes, made.secrets)
        making = Making(self.registry, placement, self.containers, sandboxes, made.woken, copies)
        self.snapshots = PodSnapshots(paths, self.registry, sandboxes, self.events, taking, making)
        self.transfers = Transfers(
            paths.snapshots, self.snapshots, self.drivers, fingerprints, self.images, made.secrets
        )
        self.registry.quotas.scratch_size = settings.scratch_size
        self.registry.quotas.log_limits = (
            settings.log.max_size or settings.log_size, settings.log.max_files or settings.log_files,
        )  # fmt: skip
        self.registry.quotas.limits = Limits(settings.quotas, self.tenants)
        self.volume_snapshots = ours = VolumeSnapshots(
            paths, self.registry, self.volumes, self.events, VolumeCopies(self.registry, still)
        )
        self.registry.quotas.snapshots = lambda: [*self.snapshots.documents(), *ours.documents()]
        self.registry.quotas.snapshot_bytes = lambda id_: ours.size_of(id_) or size_of(paths.snapshot(id_))
        self.registry.quotas.image_bytes = lambda: sum(i.size for i in self.images.describe_all())
        return fingerprints

    def _assemble_tenancy(self) -> None:
        about = About(self.settings, self.drivers, self.kernel, self._boot, self.registry, self.images, self.audit)
        self.info, self.version = about.info, about.version
        self.builders = Builders(self.registry, self._builds_of)
        self.fips = Fips(self.registry, self.events, self._network, self.settings.fips)
        self.tenants.contents = ProjectContents(
            self.registry,
            self.snapshots,
            self.volume_snapshots,
            self.images,
            self.networks,
            self.volumes,
            self.builders,
            self.crons,
            self.fips,
            self.deployments,
        )
        self.tenancy = tenancy(self.tenants, self.tokens, self.events, self.settings.trusts)

    def _assemble_watches(self, made: Machinery, fingerprints: Fingerprints) -> None:
        paths, network = self.settings.paths, made.network
        suspending = Suspending(paths, self.registry, made.disks, network, self.drivers, fingerprints)
        resuming = Resuming(paths, self.registry, made.bring_up, made.awoken, fingerprints, network)
        self.suspensions = Suspensions(self.registry, self.containers, made.sandboxes, suspending, resuming)
        doorbells = Doorbells(network, made.sandboxes.is_up)
        self.lifetimes = Lifetimes(self.pods, self.containers, made.sandboxes, self.execs, self.suspensions, doorbells)
        self.pod_updates = PodUpdates(self.registry, self.updates, self.lifetimes)
        self.containers.wake, self.containers.rouse_pod = self.suspensions.wake, self.lifetimes.rouse
        self.accounts = Accounts(self.settings, self.registry, self.images, self.tenants, self.events)
        made.bring_up.make_room, made.bring_up.ending = doorbells.close, self.accounts.ending
        self.accounts.enforce(self.suspensions, self.pods, self.containers)
        self._assemble_cluster()
        made.bring_up.allowed = self.accounts.enforcement.check_start

    def _assemble_cluster(self) -> None:
        cluster = self.settings.cluster.cluster if self.settings.cluster else None
        self.cluster = ClusterPods(cluster, self.tenants)
        self.namespaces = namespaces(cluster, self.tenants, self.events, self.accounts)

    def _builds_of(self, tenant: Tenant) -> Builds:
        settings = replace(self.settings.builder, tenant=tenant)
        return Builds(self.containers, self.registry, self.images, self.volumes, self.events, settings)

    @property
    def builds(self) -> Builds:
        """Of the tenant that asks."""
        return self.builders.own()

    def _images_in_use(self) -> dict[str, list[str]]:
        """Image id -> names of what was made of it."""
        users = self.registry.in_use()
        for image, names in self.snapshots.in_use().items():
            users.setdefault(image, []).extend(names)
        return users

    def _admit_image(self) -> None:
        policies.check_brought()
        self.registry.quotas.check(Amounts(image_disk=1))

    def _trust(self) -> Trust:
        """Of who asks."""
        return policies.trust(self.settings.trust, self.settings.trusts)

    def _wall(self) -> Wall | None:
        """For who asks: one who may not have this host's own addresses does not get them by way of a registry."""
        return None if "host" in current().scopes else self._network.choice.wall
