# SPDX-License-Identifier: Apache-2.0
"""The engine: the services, wired. The daemon builds one and the front ends use it."""

from __future__ import annotations

import asyncio
from collections.abc import Awaitable, Callable
from dataclasses import replace

from ..errors import Unsupported
from ..hypervisor.drivers import Drivers
from ..hypervisor.facets import Trial
from ..images.manifests import StoredImage
from ..images.progress import Progress
from ..images.skopeo import Wall
from ..images.store import ImageStore
from ..jail.control_groups import ControlGroups, NoGroups
from ..kernel.locate import Kernel
from ..model.audit import AuditEntry
from ..model.factory import FactoryStatus, WarmRequest
from ..model.host import Check
from ..model.network import NetworkRequest
from ..model.principal import Tenant
from ..model.quotas import Amounts, QuotaStatus
from ..model.reference import parse_source
from ..model.specs import ContainerSpec, Resources
from ..model.states import ALIVE
from ..model.status import Pod, PodDetails
from ..network.backend import Records
from ..network.choice import Choice
from ..podfile.convert import convert, files_to_fetch
from ..podfile.document import Podfile
from ..sys import tasks
from ..volumes.disks import BlockVolumes
from . import doctor, host_access, leftovers, policies, resolve
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
from .container_verbs import LIVE
from .containers import Containers
from .creation import Creation
from .cron.crons import Crons
from .cron.runner import Runner
from .descriptions import Descriptions
from .disk_watch import DiskWatch
from .events import Events
from .execs import Execs
from .factory.shapes import Shape
from .fetch import fetch_all
from .forks.copies import Copies
from .forks.doorbell import Doorbells
from .forks.fingerprints import Fingerprints
from .forks.making import Making
from .forks.resuming import Resuming
from .forks.saved import is_whole, size_of
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
from .pods import Pods
from .principal import current, names_of
from .project_contents import ProjectContents
from .propagation import Propagation
from .quotas.limits import Limits
from .recover import recover
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
from .volumes import Volumes

_COPY = "`hyperctl logs` has what was written; it is sent again as soon as it can be"


class Engine:
    """Everything a front end needs."""

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
        self.tokens = Tokens(self.registry.journal, self.events, self.tenants)
        self.images = ImageStore(
            paths.images, insecure=settings.insecure_registries, in_use=self._images_in_use, limits=settings.images,
            trust=settings.trust, wall=self._wall, tenant=names_of, admits=self._admit_image,
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
        fingerprints = self._assemble_snapshots(made, placement)
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
        still = StillDisks(self.registry, sandboxes)
        self.backups = Backups(paths, self.registry, sandboxes, still)
        self.crons = Crons(self.registry.journal, self.events)
        self.cron_runner = Runner(self.crons, self.registry, self.containers)
        self._assemble_watches(made, fingerprints)
        self._assemble_tenancy()
        self._disk_watch = DiskWatch(paths.root, sandboxes.running, self.events, drain=self.factory.pool.drain)
        self._propagation = Propagation(self.registry, sandboxes.running, made.shares)
        self._late: set[asyncio.Task[None]] = set()  # recovery of machines that have not answered yet
        self._watching: list[asyncio.Task[None]] = []

    def _assemble_snapshots(self, made: Machinery, placement: Placement) -> Fingerprints:
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
        self.registry.quotas.snapshots = self.snapshots.documents
        self.registry.quotas.snapshot_bytes = lambda id_: size_of(paths.snapshot(id_))
        self.registry.quotas.image_bytes = lambda: sum(i.size for i in self.images.describe_all())
        return fingerprints

    async def read_audit(self, project: Tenant, limit: int) -> list[AuditEntry]:
        """The latest requests, newest first; UNSET is all. :raise Unsupported: no audit log is kept."""
        if self.audit is None:
            raise Unsupported("hyperd keeps no audit log", hint="configure `audit_log`")
        found = self.audit
        return await tasks.in_thread(lambda: found.read(project, limit))

    def _assemble_tenancy(self) -> None:
        about = About(self.settings, self.drivers, self.kernel, self._boot, self.registry, self.images, self.audit)
        self.info, self.version = about.info, about.version
        self.builders = Builders(self.registry, self._builds_of)
        self.tenants.contents = ProjectContents(
            self.registry,
            self.snapshots,
            self.images,
            self.networks,
            self.volumes,
            self.builders,
            self.crons,
        )
        self.tenancy = tenancy(self.tenants, self.tokens, self.events)

    def _assemble_watches(self, made: Machinery, fingerprints: Fingerprints) -> None:
        paths, network = self.settings.paths, made.network
        suspending = Suspending(paths, self.registry, made.disks, network, self.drivers, fingerprints)
        resuming = Resuming(paths, self.registry, made.bring_up, made.awoken, fingerprints, network)
        self.suspensions = Suspensions(self.registry, self.containers, made.sandboxes, suspending, resuming)
        doorbells = Doorbells(network, made.sandboxes.is_up)
        self.lifetimes = Lifetimes(self.pods, self.containers, made.sandboxes, self.execs, self.suspensions, doorbells)
        self.containers.wake, self.containers.rouse_pod = self.suspensions.wake, self.lifetimes.rouse
        self.accounts = Accounts(self.settings, self.registry, self.images, self.snapshots, self.tenants, self.events)
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

    def _wall(self) -> Wall | None:
        """For who asks: one who may not have this host's own addresses does not get them by way of a registry."""
        return None if "host" in current().scopes else self._network.choice.wall

    async def open(self) -> None:
        """Go on where an earlier daemon left."""
        paths = self.settings.paths
        self.images.open()
        self.backups.open()
        leftovers.put_aside_undriven(self.registry, self.drivers)
        await self.networks.open()
        await self.snapshots.open()
        await self.suspensions.open()
        await leftovers.end_unknown(paths, self.drivers, self.registry)
        for vm in [p.vm for p in self.registry.pods() if p.vm]:
            self._allotments.find(vm.allotment, vm.user)
        self._sweep()
        self.accounts.open()
        self._late = await recover(
            self.registry, self.containers, self._sandboxes, self.pods, self._network, self._reattacher,
            lambda pod_id: is_whole(paths.suspended(pod_id)),
        )  # fmt: skip
        self._late |= {
            asyncio.create_task(self.attachments.await_bound(c))
            for c in self.registry.containers()
            if c.spec.bound and c.state.status in ALIVE
        }
        leftovers.name_files(paths, self.registry)
        self.builders.open()
        watches = self._disk_watch, self.lifetimes, self._propagation, self.accounts, self.cron_runner
        self._watching = [asyncio.create_task(each.run()) for each in watches]
        if self.namespaces:
            self._watching.append(asyncio.create_task(self.namespaces.run()))

    def _sweep(self) -> None:
        """Machines of records that were set aside go on, and what they have is not known."""
        self._allotments.sweep(spare_busy=bool(self.registry.set_aside))

    async def close(self, *, keep_running: bool) -> None:
        """End; containers are stopped unless they shall go on."""
        await self.builders.close()
        await self.execs.release()
        await tasks.end(self._late)
        await tasks.end(self._watching)
        await self.suspensions.close()
        await self.pods.detach()
        await self.factory.close()
        if keep_running:
            await self.containers.release()
        else:
            await self.pods.wake()
            await self.containers.shut_down()
        self.accounts.close()
        await self._log_sinks.close()
        await self.networks.close()
        self._descriptions.close()
        if self.audit:
            self.audit.close()
        for driver in [d for d in self.drivers if isinstance(d, Trial)]:
            await driver.close()
        await self._groups.close()
        self.registry.journal.close()

    def longest_grace(self) -> float:
        """Seconds that what runs may take to end."""
        return max((c.spec.stop_timeout for c in self.registry.containers() if c.state.status in LIVE), default=0)

    async def kill_machines(self) -> None:
        """End all machines at once, without a word to anybody; the next daemon settles their records."""
        await leftovers.end_machines(self.settings.paths, self.drivers, set())
        self._groups.keep((), spare_busy=True)
        await self._groups.close()

    # -- what joins several services ------------------------------------------------

    def pull(self, name: str, *, platform: str = "", auth: str = "") -> tuple[Progress, Awaitable[StoredImage]]:
        """Begin to fetch an image; gives its progress, and what is awaited for the image.

        :raise InvalidArgument: the name is malformed. :raise PermissionDenied: who asks may not read from there.
        """
        source = parse_source(name)
        host_access.check_source(source.transport)
        policies.check_pulled(source)
        self.registry.quotas.check(Amounts(image_disk=1))
        progress, image = self.images.pull(name, platform=platform, auth=auth)

        async def told() -> StoredImage:
            pulled = await image
            self.image_events.tell("pull", pulled, name)
            return pulled

        return progress, told()

    async def create_pod(self, podfile: Podfile) -> PodDetails:
        """A pod as a podfile describes it.

        :raise InvalidArgument: with the field that is wrong; and what `Pods.create` raises.
        """
        uris = [f.uri for f in files_to_fetch(podfile)]
        host_access.check_files(uris)
        fetched = await fetch_all(uris)
        pod = await self.pods.create(convert(podfile, fetched))
        return self.pods.details(pod.id)

    async def connect(self, key: str, request: NetworkRequest) -> Pod:
        """Bring a pod into a network."""
        return await self.networks.connect(key, request, self._sandboxes.changing(self.registry.pod(key)))

    async def disconnect(self, key: str, network: str) -> Pod:
        """Take a pod out of a network."""
        return await self.networks.disconnect(key, network, self._sandboxes.changing(self.registry.pod(key)))

    async def warm(self, request: WarmRequest) -> FactoryStatus:
        """Have a template, and machines that wait, for containers that ask for so much.

        :raise NotFound: no such network. :raise InvalidState: the factory is off, or they do not fit.
        """
        spec = ContainerSpec(image="", resources=Resources(memory=request.memory, cpus=float(request.cpus)))
        vcpus, memory = resolve.machine_size([spec])
        network = request.network or self.settings.network.default
        nic = self.networks.nic_kind("bridge" if network == "default" else network)
        return await self.factory.warm(Shape(vcpus, memory, nic, self.drivers.default.name), request.count)

    def quota(self) -> QuotaStatus:
        """What who asks may have, and has."""
        return self.registry.quotas.status(current())

    async def try_again(self) -> None:
        """Try which accelerator works. Machines that wait, and templates, are of the one that was in use."""
        for driver in [d for d in self.drivers if isinstance(d, Trial)]:
            before = await driver.probe()
            found = await driver.try_again()
            if found.accelerator != before.accelerator:
                await self.factory.drain(templates=True)

    async def doctor(self, *, probe: bool = False) -> list[Check]:
        """`probe`: try first which accelerator works."""
        if probe:
            await self.try_again()
        return [
            *await doctor.examine(self.drivers, self.kernel, self.settings.paths, self._boot),
            *leftovers.checks(self.settings.paths, self.registry),
            *await self._network.checks(),
            *self._groups.checks(),
            *self.snapshots.checks(),
            *(self.audit.checks() if self.audit else []),
            *(
                Check(name="log", status="warn", found=f"{what} does not work: {why}", hint=_COPY)
                for what, why in self._log_sinks.troubles()
            ),
        ]

    async def forget(self, key: str) -> None:
        """Give up a record that cannot be read, and its machine.

        :raise NotFound: when none of that name or id was set aside.
        """
        await leftovers.forget(self.settings.paths, self.drivers, self.registry, key)
        self._sweep()
