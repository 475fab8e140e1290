# SPDX-License-Identifier: Apache-2.0
"""The disks of a pod's machine: those of its containers' roots, and those behind volumes."""

from __future__ import annotations

import hashlib
from pathlib import Path

from ..hypervisor.driver import AnyDisk, Disk, RbdDisk
from ..images.root import RootSource
from ..model.status import Container, Pod, PodVolume
from .secrets import KEYRING, Secrets


def image_serial(container: Container) -> str:
    """The serial number by which the guest finds its image disk; virtio-blk allows 20 characters."""
    return f"i{container.id[:12]}"


def scratch_serial(container: Container) -> str:
    """That of its scratch disk."""
    return f"s{container.id[:12]}"


def volume_serial(volume: PodVolume) -> str:
    """Names of volumes are longer than serial numbers may be."""
    return f"v{hashlib.sha256(volume.name.encode()).hexdigest()[:12]}"


class MachineDisks:
    """Roots and volumes as a driver takes them."""

    def __init__(self, roots: RootSource, secrets: Secrets) -> None:
        self._roots = roots
        self._secrets = secrets

    async def of_pod(self, pod: Pod, members: list[Container]) -> list[AnyDisk]:
        """All that its machine boots with, those of the containers first."""
        disks: list[AnyDisk] = [d for c in members for d in await self.of_root(c)]
        return disks + [d for v in pod.volumes if (d := await self.of_volume(pod, v))]

    async def of_root(self, container: Container) -> list[Disk]:
        """The image's disk, and the container's own; none where its root is a directory."""
        if container.spec.rootfs:
            return []
        root = await self._roots.prepare(container.id, container.image_id)
        cache = container.spec.cache
        return [
            Disk(image_serial(container), root.image, read_only=True, cache=cache),
            Disk(scratch_serial(container), root.own, read_only=False, cache=cache),
        ]

    async def of_volume(self, pod: Pod, volume: PodVolume) -> AnyDisk | None:
        """The disk behind a volume; None for those that are none."""
        if volume.kind == "disk":
            return Disk(volume_serial(volume), Path(volume.source), volume.read_only, volume.format, volume.cache)
        if volume.kind == "image":
            return Disk(volume_serial(volume), (await self._roots.image(volume.source)).path, read_only=True)
        if volume.kind != "rbd":
            return None
        cluster_pool, _, image = volume.source.rpartition("/")
        user = volume.options.get("user", "")
        keyring = self._secrets.get(pod.id, KEYRING + volume.name).decode() if user else ""
        return RbdDisk(
            volume_serial(volume), cluster_pool or "rbd", image, tuple(volume.monitors), user, keyring,
            volume.read_only,
        )  # fmt: skip
