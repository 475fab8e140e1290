# SPDX-License-Identifier: Apache-2.0
"""Making pods: all of their containers, or nothing."""

from __future__ import annotations

from collections.abc import Sequence

import msgspec

from ..images.manifests import StoredImage
from ..images.store import ImageStore
from ..model import ids
from ..model.pods import PodPlan
from ..model.quotas import Amounts
from ..model.status import Pod
from ..sys import clock
from . import egress_secrets, host_access, naming, processors, resolve
from .containers import Containers
from .placement import Placement
from .plan import check_plan
from .principal import owned
from .registry import Registry
from .secrets import Secrets
from .volumes import Volumes


class PodCreation:
    """Makes pods of plans."""

    def __init__(
        self, registry: Registry, images: ImageStore, containers: Containers, placement: Placement, volumes: Volumes,
        secrets: Secrets,
    ) -> None:  # fmt: skip
        self._registry = registry
        self._images = images
        self._containers = containers
        self._placement = placement
        self._volumes = volumes
        self._secrets = secrets

    async def create(self, plan: PodPlan) -> Pod:
        """A pod and all of its containers, or nothing.

        :raise NotFound: an image or a volume's source. :raise Conflict: a name is taken.
        """
        plan = self._placement.plan_sized(plan)
        host_access.check_plan(plan)
        check_plan(plan)
        images = [None if c.rootfs else self._images.find(c.image, platform=c.platform) for c in plan.containers]
        architecture = processors.of_images([c.image for c in plan.containers], images)
        self._registry.check_pod_name(plan.name)
        id_, members = ids.new_id(), [ids.new_id() for _ in plan.containers]
        quotas = self._registry.quotas
        roots = {m: quotas.container(c) for m, c in zip(members, plan.containers, strict=True)}
        own = Amounts(pods=1, ports=len(plan.spec.ports), disk=self._volumes.bytes_of(plan.volumes))
        with quotas.admitted({id_: own, **roots}):
            return await self._create(plan, id_, list(zip(members, images, strict=True)), architecture)

    async def _create(
        self, plan: PodPlan, id_: str, members: Sequence[tuple[str, StoredImage | None]], architecture: str
    ) -> Pod:
        """`members` are the ids and images of its containers, in the plan's order."""
        reserved: list[str] = []
        self._registry.begin(id_)
        try:
            for c in plan.containers:
                reserved.append(self._registry.reserve(c.name))
            pod = await self._make_record(plan, id_, architecture)
            for c, (member, image), called in zip(plan.containers, members, reserved, strict=True):
                await self._containers.add(pod, msgspec.structs.replace(c, name=called), image, member, called)
            self._registry.create(done=id_)
        except BaseException:
            await self._containers.remove_pod(id_)
            raise
        finally:
            for called in reserved:
                self._registry.release(called)
        return self._registry.pod(pod.id)

    async def _make_record(self, plan: PodPlan, id_: str, architecture: str) -> Pod:
        vcpus, memory = resolve.machine_size(plan.containers, vcpus=plan.vcpus, memory=plan.memory)
        resolve.check_host(vcpus, memory)
        for secret, value in plan.secrets.items():
            self._secrets.put(id_, secret, value)
        volumes = await self._volumes.of_pod(id_, plan.volumes)
        hostname = plan.hostname or naming.hostname_of(plan.name)
        aliases = [n for c in plan.containers for n in (c.name, *c.aliases) if n]
        policy = egress_secrets.kept(self._secrets, id_, plan.spec.egress)
        spec = msgspec.structs.replace(plan.spec, egress=policy)
        spec, attachments = self._placement.plan(id_, spec, aliases, (plan.name, hostname))
        pod = Pod(
            id=id_, name=plan.name, created_at=clock.stamp(), hostname=hostname, vcpus=vcpus, memory=memory,
            size=plan.size, spec=spec, labels=plan.labels, volumes=volumes, attachments=attachments,
            architecture=architecture, **owned(),
        )  # fmt: skip
        mounts, rooted = [m for c in plan.containers for m in c.mounts], any(c.rootfs for c in plan.containers)
        pod = await self._placement.choose_driver(pod, mounts, rootfs=rooted)
        self._registry.create(pod)
        return pod
