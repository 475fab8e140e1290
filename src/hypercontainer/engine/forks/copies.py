# SPDX-License-Identifier: Apache-2.0
"""Files of a pod that goes on from a saved one: its volumes, and its containers' disks and logs."""

from __future__ import annotations

from collections.abc import Iterator
from functools import partial
from pathlib import Path

from msgspec.structs import replace

from ...model.specs import Mount
from ...model.status import Container, MountPoint, Pod, PodVolume
from ...sys import tasks
from ...sys.files import no_space_as_error
from ..logs import account_of
from ..machine_disks import scratch_serial, volume_serial
from ..paths import Paths
from ..secrets import Secrets
from ..volumes import Volumes
from .layers import copy_whole, size_of
from .saved import Saved
from .taking import log_file


class Copies:
    """Makes them."""

    def __init__(self, paths: Paths, volumes: Volumes, secrets: Secrets) -> None:
        self.paths = paths
        self.volumes = volumes
        self._secrets = secrets

    async def of_volumes(self, saved: Saved, pod_id: str, points: list[MountPoint]) -> dict[str, PodVolume]:
        """Of those that were written, by the old names; `points` gets what is to go again should more fail.

        A container of its own has volumes without names, as any; those of a pod of several go with the pod.

        :raise NoSpace: when the disk is full.
        """
        found: dict[str, PodVolume] = {}
        for volume, file in _written(saved):
            if _is_own(volume, saved):
                made = await self.volumes.copy(volume, size_of(file), partial(_copy, file))
                mount = Mount(target="/", source=made.name)
                points.append(MountPoint(mount=mount, volume=made.name, anonymous=True))
                found[volume.name] = replace(volume, name=made.name, named=made.name, source=made.path)
            else:
                path = self.paths.pod_volume(pod_id, volume.name)
                await _copy(file, path)
                size = _room(volume, file)
                found[volume.name] = replace(volume, named="", source=str(path), anonymous=True, size=size)
        return found

    @staticmethod
    def bytes_of(saved: Saved) -> int:
        """What the copies may grow to that go with the pod; others are volumes of their own."""
        return sum(_room(volume, file) for volume, file in _written(saved) if not _is_own(volume, saved))

    async def of_container(self, saved: Saved, old: Container, new: Container) -> None:
        """Its disk, and its log with what is accounted for of it.

        :raise NoSpace: when the disk is full.
        """
        if file := saved.disk(saved.found_by(scratch_serial(old))):
            await _copy(file, self.paths.scratch(new.id))
        source, target = log_file(saved.directory, old), Path(new.log_path)
        for one, other in ((source, target), (account_of(source), account_of(target))):
            if one.exists():
                await _copy(one, other)

    async def of_secrets(self, saved: Saved, pod: Pod) -> None:
        """They stay encrypted."""
        await self._secrets.take_in(pod.id, saved.directory)


def _written(saved: Saved) -> Iterator[tuple[PodVolume, Path]]:
    """Volumes of which there is a copy."""
    for volume in saved.document.pod.volumes:
        file = saved.disk(saved.found_by(volume_serial(volume)))
        if volume.kind == "disk" and file:
            yield volume, file


def _is_own(volume: PodVolume, saved: Saved) -> bool:
    """Whether its copy is a volume, without a name."""
    return bool(volume.named) and saved.document.pod.implicit


def _room(volume: PodVolume, file: Path) -> int:
    return max(volume.size, size_of(file))


async def _copy(source: Path, target: Path) -> None:
    with no_space_as_error(target.parent):
        target.parent.mkdir(mode=0o700, parents=True, exist_ok=True)
        await tasks.in_thread(partial(copy_whole, source, target))
