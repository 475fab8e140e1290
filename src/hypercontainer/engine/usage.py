# SPDX-License-Identifier: Apache-2.0
"""What takes space on this host's disk, and what of it can go: `system df`, `container prune`."""

from __future__ import annotations

import asyncio
import contextlib
from collections import Counter
from typing import Protocol

from ..errors import HyperError
from ..images.store import ImageStore
from ..model.filters import Filters, before_until, has_labels
from ..model.states import ALIVE
from ..model.status import Container, ContainerStatus, Pruned, VolumeInfo
from ..model.usage import ContainerUsage, DiskUsage, ImageUsage
from ..sys.trees import disk_usage
from .events import Events
from .paths import Paths
from .registry import Registry

PRUNE_FILTERS = ("until", "label")
_STOPPED = (ContainerStatus.CREATED, ContainerStatus.EXITED)


class _Containers(Protocol):
    """What removes one."""

    async def remove(self, key: str, *, force: bool = False) -> Container: ...


class _Volumes(Protocol):
    """What lists them."""

    async def all(self) -> list[VolumeInfo]: ...


class Usage:
    """Adds up files; removes containers that do not run."""

    def __init__(
        self, paths: Paths, registry: Registry, images: ImageStore, containers: _Containers, volumes: _Volumes,
        events: Events,
    ) -> None:  # fmt: skip
        self._paths = paths
        self._registry = registry
        self._images = images
        self._containers = containers
        self._volumes = volumes
        self._events = events

    async def measure(self) -> DiskUsage:
        """How much space each thing takes. A container that goes meanwhile takes none."""
        parts = self._images.footprint()
        shared = self.shared(parts)
        found = self._registry.containers(seen=True)
        used = Counter(c.image_id for c in found)
        images = [
            ImageUsage(
                image=image,
                size=sum(parts.get(image.id, {}).values()),
                shared_size=shared.get(image.id, 0),
                containers=used[image.id],
            )
            for image in self._images.describe_all()
        ]
        sizes = await asyncio.to_thread(lambda: [disk_usage(self._paths.scratch(c.id)) for c in found])
        every = {part: size for each in parts.values() for part, size in each.items()}
        in_use = self._images.in_use()
        needed = {part for id_, sizes in parts.items() if id_ in in_use for part in sizes}
        return DiskUsage(
            layers_size=sum(every.values()),
            images_reclaimable=sum(every.values()) - sum(every[part] for part in needed),
            images=images,
            containers=[_container(c, size) for c, size in zip(found, sizes, strict=True)],
            volumes=await self._volumes.all(),
        )

    async def container_size(self, container: Container) -> int:
        """Bytes of its own disk."""
        return await asyncio.to_thread(disk_usage, self._paths.scratch(container.id))

    def shared(self, parts: dict[str, dict[str, int]] | None = None) -> dict[str, int]:
        """Of each image the bytes of what other images have, too."""
        parts = self._images.footprint() if parts is None else parts
        holders = Counter(part for sizes in parts.values() for part in sizes)
        return {id_: sum(n for part, n in sizes.items() if holders[part] > 1) for id_, sizes in parts.items()}

    async def prune_containers(self, filters: Filters) -> Pruned:
        """Remove what does not run and is no part of a pod of several; `until` counts from when it was made.

        :raise InvalidArgument: a filter's value is none.
        """
        removed, freed = list[str](), 0
        for container in self._registry.containers(seen=True):
            if container.state.status not in _STOPPED or container.pod != container.id:
                continue
            if not (before_until(container.created_at, filters) and has_labels(container.spec.labels, filters)):
                continue
            size = await self.container_size(container)
            with contextlib.suppress(HyperError):  # it was started, or removed, in the meantime
                await self._containers.remove(container.id)
                removed.append(container.id)
                freed += size
        self._events.pruned("container", freed)
        return Pruned(removed=removed, freed=freed)


def _container(c: Container, size: int) -> ContainerUsage:
    return ContainerUsage(
        id=c.id, name=c.name, image=c.image, command=list(c.process.args), created_at=c.created_at,
        status=c.state.status.value, running=c.state.status in ALIVE, size=size,
        local_volumes=sum(1 for m in c.mounts if m.volume),
    )  # fmt: skip
