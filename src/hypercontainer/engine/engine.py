# SPDX-License-Identifier: Apache-2.0
"""The engine: the services, wired. The daemon builds one and the front ends use it."""

from __future__ import annotations

import asyncio
from collections.abc import Awaitable

from ..errors import Unsupported
from ..hypervisor.facets import Trial
from ..images.manifests import StoredImage
from ..images.progress import Progress
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
from ..podfile.convert import convert, files_to_fetch
from ..podfile.document import Podfile
from ..sys import tasks
from . import doctor, host_access, leftovers, policies, resolve
from .container_verbs import LIVE
from .factory.shapes import Shape
from .fetch import fetch_all
from .forks.saved import is_whole
from .principal import current
from .recover import recover
from .wired import Wired

_COPY = "`hyperctl logs` has what was written; it is sent again as soon as it can be"


class Engine(Wired):
    """Everything a front end needs."""

    async def open(self) -> None:
        """Go on where an earlier daemon left."""
        paths = self.settings.paths
        self.images.open()
        await self.backups.open()
        leftovers.put_aside_undriven(self.registry, self.drivers)
        await self.networks.open()
        await self.snapshots.open()
        await self.volume_snapshots.open()
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
        watches = self._disk_watch, self.lifetimes, self._propagation, self.accounts, self.cron_runner, self.keeper
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
            *self.volume_snapshots.checks(),
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

    async def read_audit(self, project: Tenant, limit: int) -> list[AuditEntry]:
        """The latest requests, newest first; UNSET is all. :raise Unsupported: no audit log is kept."""
        if self.audit is None:
            raise Unsupported("hyperd keeps no audit log", hint="configure `audit_log`")
        found = self.audit
        return await tasks.in_thread(lambda: found.read(project, limit))
