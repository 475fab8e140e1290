# SPDX-License-Identifier: Apache-2.0
"""The list of containers, as Docker's filters select it."""

from __future__ import annotations

import contextlib
from collections.abc import Mapping
from typing import Any

from ..errors import HyperError, InvalidArgument
from ..images.store import ImageStore
from ..model.container_filters import Listed, select
from ..model.filters import Filters
from ..model.images import Image
from ..model.network import DEFAULT_NETWORK
from ..model.reference import parse_reference
from ..model.specs import PortMapping
from ..model.states import UP
from ..model.status import Container, ContainerSize, Pod
from .networks import Networks
from .registry import Registry
from .usage import Usage


class Listing:
    """What there is of containers and images, and what the filters let through."""

    def __init__(self, registry: Registry, images: ImageStore, networks: Networks, usage: Usage) -> None:
        self._registry = registry
        self._images = images
        self._networks = networks
        self._usage = usage

    def containers(
        self, filters: Filters, *, everything: bool = False, limit: int = 0, system: bool = False
    ) -> list[Container]:
        """Newest first; those that run, unless all, a number of them, or a filter of states is asked for. The daemon's
        own are among them only with `system`.

        :raise InvalidArgument: a filter's value is none. :raise NotFound: nothing is before, or since, what is not
            there.
        """
        there = self._registry.containers(seen=True) if system else self._registry.shown()
        newest = [self._listed(c) for c in there]
        return [x.container for x in select(newest, filters, all_=everything, limit=limit, is_of=self._is_of)]

    def images(self, filters: Filters | None = None) -> list[Image]:
        """Newest first, without those that only the daemon's own containers use."""
        own = {c.image_id for c in self._registry.containers(seen=True)}
        own -= {c.image_id for c in self._registry.shown()}
        return [image for image in self._images.describe_all(filters) if image.id not in own]

    async def size(self, key: str) -> ContainerSize:
        """What a container takes of the disk."""
        container = self._registry.container(key)
        own = await self._usage.container_size(container)
        with contextlib.suppress(HyperError):
            return ContainerSize(own=own, virtual=own + self._images.describe(container.image_id).size)
        return ContainerSize(own=own, virtual=own)

    def _listed(self, c: Container) -> Listed:
        pod, image = self._registry.pod(c.pod), self._image(c)
        sources = {v.name: (v.named or v.name, v.source) for v in pod.volumes}
        volumes = {x for m in c.mounts for x in (*sources.get(m.volume, ()), m.mount.target) if x}
        exposed = [*(image.get("ExposedPorts") or {}), *c.spec.expose]
        return Listed(
            c,
            {**(image.get("Labels") or {}), **c.spec.labels},
            published(c, pod),
            frozenset(p if "/" in p else f"{p}/tcp" for p in exposed),
            frozenset(self._networks_of(pod)),
            frozenset(volumes),
        )

    def _image(self, c: Container) -> Mapping[str, Any]:
        """What its image says; nothing where that is damaged."""
        with contextlib.suppress(HyperError):
            return self._images.find(c.image_id).config.config
        return {}

    def _networks_of(self, pod: Pod) -> list[str]:
        """Names and ids; what hyperd gives to who names none is Docker's `bridge`."""
        if not pod.attachments:
            mode = pod.spec.network or "none"
            return [mode, *([DEFAULT_NETWORK] if mode.partition(":")[0] == "user" else [])]
        found = [a.network for a in pod.attachments]
        for name in tuple(found):
            with contextlib.suppress(HyperError):  # it is about to go
                found.append(self._networks.find(name).id)
        return found

    def _is_of(self, c: Container, name: str) -> bool:
        """Of that very image, or of one whose layers begin with its layers."""
        with contextlib.suppress(HyperError):
            wanted = self._images.find(name)
            if wanted.id == c.image_id:
                return True
            below, own = wanted.config.rootfs.diff_ids, self._images.find(c.image_id).config.rootfs.diff_ids
            return bool(below) and own[: len(below)] == below
        with contextlib.suppress(InvalidArgument):  # that image is gone, and its name is known
            return parse_reference(name).full == parse_reference(c.image.removeprefix("builtin:")).full
        return False


def published(c: Container, pod: Pod) -> list[PortMapping]:
    """With the ports of this host that are in force; those of a pod are its containers'."""
    return (c.ports or pod.ports) if c.state.status in UP else []
