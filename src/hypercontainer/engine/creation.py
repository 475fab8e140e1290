# SPDX-License-Identifier: Apache-2.0
"""Making containers: their files first, and then their records, or nothing of both."""

from __future__ import annotations

import asyncio
import contextlib
from collections.abc import Sequence
from typing import Any

import msgspec

from ..errors import InvalidArgument, InvalidState, NotFound, Unavailable
from ..images.manifests import StoredImage
from ..images.root import RootSource
from ..images.store import ImageStore
from ..model import ids
from ..model.deployments import LABEL as REPLICA_OF
from ..model.pods import SHM_DEFAULT, PodSpec
from ..model.ports import published
from ..model.quotas import Amounts
from ..model.specs import ContainerSpec, Mount
from ..model.states import ALIVE
from ..model.status import Container, ContainerState, MountPoint, Pod, PodVolume, Process
from ..seccomp import Attempt, Filter
from ..sys import clock, tasks
from ..sys.files import no_space_as_error
from ..sys.removal import removed
from . import egress_secrets, environment, health, membership, processors, resolve
from .filters import filter_of
from .paths import Paths
from .placement import Placement
from .principal import owned
from .registry import Registry
from .resolve import pids_of
from .secrets import Secrets
from .volume_sources import image_volume
from .volumes import Volumes

# A compiler takes a thread, which others need for what they do: files, processes, ends.
_COMPILERS, _COMPILER_WAIT = 2, 60.0  # of seccomp profiles at a time; seconds


class Creation:
    """Makes containers of images and specifications."""

    def __init__(
        self, paths: Paths, registry: Registry, images: ImageStore, placement: Placement, volumes: Volumes,
        roots: RootSource,
    ) -> None:  # fmt: skip
        self._paths = paths
        self._registry = registry
        self._images = images
        self._placement = placement
        self.volumes = volumes
        self.roots = roots
        self._secrets = Secrets(paths)
        self._compilers = asyncio.Semaphore(_COMPILERS)

    async def create(self, spec: ContainerSpec, *, starting: bool = False) -> Container:
        """Create a container, in the pod that it names or in one of its own; the image must be in the store.

        When it is `starting`, a start follows at once: a crash until that has ended leaves nothing of a container
        with `auto_remove`.

        :raise NotFound: no such image, pod or secret. :raise Conflict: the name is taken.
        """
        spec = self._placement.sized(spec)
        resolve.validate(spec)
        processors.check_platform(spec.platform)
        image = None if spec.rootfs else self._images.find(spec.image, platform=spec.platform)
        exposed = image.config.config.get("ExposedPorts") if image else None
        spec = msgspec.structs.replace(spec, ports=published(spec, exposed or {}))
        if spec.pod:
            return await self._join(spec, image, starting)
        _check_secrets(spec, [])
        if pids_of(spec):
            raise InvalidArgument("its processes are those of a container in a pod, and it is in none",
                                  hint="give the pod, too")  # fmt: skip
        name = self._registry.reserve(spec.name)
        id_ = ids.new_id()
        try:
            quotas = self._registry.quotas
            with quotas.admitted({id_: Amounts(pods=1, ports=len(spec.ports)) + quotas.container(spec)}):
                pod = self._implicit_pod(spec, id_, name, processors.of_image(image))
                pod = await self._placement.choose_driver(pod, spec.mounts, rootfs=bool(spec.rootfs))
                self._registry.check_pod_name(name)
                return await self.add(pod, spec, image, id_, name, starting=starting)
        finally:
            self._registry.release(name)

    async def _join(self, spec: ContainerSpec, image: StoredImage | None, starting: bool) -> Container:
        pod = self._registry.pod(spec.pod)
        if pod.implicit:
            raise InvalidState(
                f"{pod.name} is a container of its own, no pod", hint="make one with `hyperctl pod create`"
            )
        if spec.ports:
            raise InvalidArgument("ports are published by the pod, not by a container in it",
                                  hint=f"use `hyperctl ports add {pod.name}`")  # fmt: skip
        if spec.devices:
            raise InvalidArgument("devices of this host are the pod's, not a container's in it",
                                  hint="give --device to `hyperctl pod create`")  # fmt: skip
        membership.check_member(spec)
        processors.check_joins(pod, spec.image, image)
        _check_secrets(spec, pod.spec.secrets)
        spec = self._with_target(pod, spec)
        name = self._registry.reserve(spec.name)
        try:
            await self._placement.choose_driver(pod, spec.mounts, rootfs=bool(spec.rootfs))
            id_, quotas = ids.new_id(), self._registry.quotas
            with quotas.admitted({id_: quotas.container(spec)}):
                return await self.add(pod, spec, image, id_, name, starting=starting)
        finally:
            self._registry.release(name)

    def _with_target(self, pod: Pod, spec: ContainerSpec) -> ContainerSpec:
        """Whose processes it is to see, by id."""
        if not (name := pids_of(spec)):
            return spec
        other = self._registry.container(name)
        if other.pod != pod.id:
            raise InvalidArgument(f"container {other.name} is not in pod {pod.name}",
                                  hint="processes are seen within a pod only")  # fmt: skip
        return msgspec.structs.replace(spec, pid=f"container:{other.id}")

    def _implicit_pod(self, spec: ContainerSpec, id_: str, name: str, architecture: str) -> Pod:
        vcpus, memory = resolve.machine_size([spec])
        pod_spec = PodSpec(
            driver=spec.driver,
            network=spec.network,
            networks=spec.networks,
            ports=spec.ports,
            devices=spec.devices,
            shm_size=spec.shm_size or SHM_DEFAULT,
            allow=spec.allow,
            egress=spec.egress,
            security_groups=spec.security_groups,
            ingress_rate=spec.ingress_rate,
            egress_rate=spec.egress_rate,
            ttl=spec.ttl,
            ttl_action=spec.ttl_action,
            idle_timeout=spec.idle_timeout,
            dns=spec.dns,
            dns_search=spec.dns_search,
            dns_options=spec.dns_options,
            hosts=spec.hosts,
        )
        hostname = spec.hostname or ids.short(id_)
        replica_of = spec.labels.get(REPLICA_OF, "")
        pod_spec, attachments = self._placement.plan(id_, pod_spec, spec.aliases, (name, hostname), replica_of)
        return Pod(
            id=id_,
            name=name,
            created_at=clock.stamp(),
            hostname=hostname,
            vcpus=vcpus,
            memory=memory,
            size=spec.size,
            implicit=True,
            architecture=architecture,
            spec=pod_spec,
            attachments=attachments,
            **owned(),
        )

    async def _images_of(self, mounts: Sequence[Mount]) -> dict[str, PodVolume]:
        """What they mount of images, by what they call them.

        :raise NotFound: no such image.
        """
        found = {}
        for name in {m.source for m in mounts if m.type == "image"}:
            id_ = self._images.find(name).id
            found[name] = image_volume(id_, (await self.roots.image(id_)).fstype)
        return found

    async def add(
        self, pod: Pod, spec: ContainerSpec, image: StoredImage | None, id_: str, name: str, *, starting: bool = False
    ) -> Container:
        """A container's files, and then its record, with the pod's if that is its own; without an image its root is a
        directory.

        Nothing is left behind when it fails, or in a crash.
        """
        directory = self._paths.container(id_)
        before = pod if pod.implicit else self._registry.pod(pod.id)
        self._registry.begin(id_)
        mounts: list[MountPoint] = []
        try:
            if pod.implicit and pod.spec.egress:
                policy = egress_secrets.kept(self._secrets, id_, pod.spec.egress)
                spec = msgspec.structs.replace(spec, egress=policy)
                before = pod = msgspec.structs.replace(pod, spec=msgspec.structs.replace(pod.spec, egress=policy))
            spec = egress_secrets.with_variables(spec, pod.spec.egress)
            config = image.config.config if image else {}
            program = await self._filter(spec, pod.architecture)
            volumes, mounts = await self.volumes.resolve(before, spec, config, await self._images_of(spec.mounts))
            container = Container(
                id=id_,
                name=name,
                pod=pod.id,
                created_at=clock.stamp(),
                image=spec.image,
                image_id=image.id if image else "",
                hostname=pod.hostname,
                state=ContainerState(starting=starting),
                process=self._process(pod, spec, config, program),
                spec=spec,
                mounts=mounts,
                log_path=spec.log.path or str(self._paths.log(id_)),
                health=None if spec.no_health else spec.health or health.of_image(config),
                **owned(),
            )
            with no_space_as_error(directory):
                directory.mkdir(mode=0o700, parents=True)
            if image:
                await self._make_root(spec, id_)
            before = pod if pod.implicit else self._registry.pod(pod.id)
            if added := [v for v in volumes if v.name not in {x.name for x in before.volumes}]:
                before = msgspec.structs.replace(before, volumes=[*before.volumes, *added])
            self._registry.create(before, container, done=id_)
        except BaseException:
            await tasks.to_the_end(self._undo(id_, mounts))
            raise
        return container

    async def _filter(self, spec: ContainerSpec, architecture: str) -> Filter | None:
        """:raise Unavailable: too many wait for theirs. :raise HyperError: as `filter_of`."""
        if not spec.seccomp_profile:
            return None
        try:
            await tasks.within(self._compilers.acquire(), _COMPILER_WAIT)
        except TimeoutError:
            raise Unavailable("the seccomp profiles of other containers are still being compiled",
                              hint="try again") from None  # fmt: skip
        try:
            attempt = Attempt()
            return await tasks.in_thread(lambda: attempt.run(lambda: filter_of(spec, architecture)), attempt.give_up)
        finally:
            self._compilers.release()

    def _process(self, pod: Pod, spec: ContainerSpec, config: dict[str, Any], program: Filter | None) -> Process:
        known = environment.resolved(spec, environment.addresses(pod, self._placement.network.links(pod)))
        process = resolve.process_of(known, config, pod.hostname)
        if program is None:
            return process
        return msgspec.structs.replace(process, filter=program.program, filter_flags=program.flags)

    async def _undo(self, id_: str, mounts: list[MountPoint]) -> None:
        async with contextlib.AsyncExitStack() as undo:  # each, whatever becomes of the others
            undo.push_async_callback(self.volumes.remove_anonymous, mounts)
            undo.push_async_callback(removed, self._paths.container(id_), self._paths.pod(id_))
            undo.push_async_callback(self.roots.release, id_)
        self._registry.finish(id_)

    async def _make_root(self, spec: ContainerSpec, id_: str) -> None:
        base = self._registry.container(spec.base) if spec.base else None
        if base and base.state.status in ALIVE:
            raise InvalidState(f"container {base.name} is running", hint="stop it before its files are taken")
        await self.roots.create(id_, base=base.id if base else "")


def _check_secrets(spec: ContainerSpec, known: Sequence[str]) -> None:
    """:raise NotFound: the pod has none of that name."""
    for mount in spec.secrets:
        if mount.secret not in known:
            raise NotFound(f"the pod has no secret {mount.secret!r}", hint="secrets come with a pod, by its podfile")
