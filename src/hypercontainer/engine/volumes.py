# SPDX-License-Identifier: Apache-2.0
"""Named volumes, and what the mounts of containers refer to."""

from __future__ import annotations

import asyncio
import contextlib
import re
from collections.abc import Awaitable, Callable, Iterable, Mapping, Sequence
from pathlib import Path
from typing import Any, Literal
from weakref import WeakValueDictionary

import msgspec

from ..errors import Conflict, InvalidArgument, NotFound
from ..model import ids
from ..model.filters import Filters, flag
from ..model.pods import VolumeRequest, VolumeSpec
from ..model.principal import Tenant
from ..model.quotas import Amounts
from ..model.specs import ContainerSpec, Mount
from ..model.status import MountPoint, Pod, PodVolume, Pruned, Volume, VolumeInfo
from ..model.thing_filters import select_volumes, volume_fits
from ..state import description
from ..sys import clock, tasks
from ..sys.files import no_space_as_error
from ..sys.removal import removed
from ..sys.trees import disk_usage, remove_tree
from ..volumes.disks import BlockVolumes, set_root
from .events import Events
from .paths import VOLUME_DATA, Paths
from .principal import current, owned
from .quotas.quotas import UNBOUNDED, volume_key
from .registry import Registry
from .secrets import KEYRING, Secrets
from .volume_sources import add_bind, add_root, check_propagation, format_of, on_host, root_mount

_NAME = re.compile(r"^[a-zA-Z0-9][a-zA-Z0-9_.-]{0,127}\Z")
_NEW, _GONE = ".new-", ".gone-"  # what is being made or removed is called; no volume's name begins with a dot
NO_IMAGES: Mapping[str, PodVolume] = {}
_IMAGES = ("raw", "qcow2", "vdi")
Copy = Callable[[Path], Awaitable[None]]  # makes the file that is named


class Volumes:
    """Created, listed, removed; resolved for pods."""

    def __init__(
        self, registry: Registry, paths: Paths, blocks: BlockVolumes, secrets: Secrets, events: Events,
        default: Literal["block", "directory"] = "block",
    ) -> None:  # fmt: skip
        """`default` is what named volumes are of which nothing else is said."""
        self._registry = registry
        self._paths = paths
        self._blocks = blocks
        self._secrets = secrets
        self._events = events
        self._default: Literal["block", "directory"] = default
        self._creating: WeakValueDictionary[tuple[Tenant, str], asyncio.Lock] = WeakValueDictionary()
        self._end_unfinished()

    def _end_unfinished(self) -> None:
        """What an earlier daemon was at when it died: a new one that has its record is finished, the rest undone."""
        for left in self._paths.volumes.glob(f"{_NEW}*"):
            made = description.read_volume(left)
            known = isinstance(made, Volume) and made in self._registry.volumes()
            if isinstance(made, Volume) and known and not self._directory(made).exists():
                left.rename(self._directory(made))
            else:
                remove_tree(left)
        for left in self._paths.volumes.glob(f"{_GONE}*"):
            gone = description.read_volume(left)
            if isinstance(gone, Volume) and not self._directory(gone).exists():
                self._registry.remove_volume(gone)
            remove_tree(left)

    def _directory(self, volume: Volume) -> Path:
        return self._paths.volume(volume.name, volume.tenant)

    # -- named ones -----------------------------------------------------------------

    def _alone(self, name: str) -> asyncio.Lock:
        """With this name of who asks: a large copy has nobody wait who makes another."""
        return self._creating.setdefault((current().tenant, name), asyncio.Lock())

    async def create(self, spec: VolumeSpec, copy: Copy | None = None) -> Volume:
        """One that exists already and is the same is returned, as Docker does; never where `copy` makes its file.

        :raise Conflict: when it exists and is another.
        """
        name = spec.name or ids.new_id()
        _check_name(name)
        async with self._alone(name):
            if have := self._registry.find_volume(name):
                if copy or have.driver != (spec.driver or have.driver) or (spec.size and have.size != spec.size):
                    raise Conflict(
                        f"volume {name} exists and is different", hint="choose another name, or remove it first"
                    )
                return have
            volume = await self._make_admitted(name, msgspec.structs.replace(spec, driver=self._driver(spec)), copy)
        self._events.publish("volume", "create", name, tenant=volume.tenant, driver=volume.driver)
        return volume

    def _driver(self, spec: VolumeSpec) -> Literal["block", "directory"]:
        """What nobody named is one container's, and a size is a disk's."""
        plain = spec.name and not spec.size and (spec.fstype, spec.format) == (VolumeSpec().fstype, VolumeSpec().format)
        return spec.driver or (self._default if plain else "block")

    async def copy(self, volume: PodVolume, size: int, copy: Copy) -> Volume:
        """A volume without a name, of so many bytes; `copy` makes its file, of another's disk, which is raw.

        :raise NoSpace: when the disk is full; nothing is left behind.
        """
        before = self._registry.find_volume(volume.named)
        labels = before.labels if before else {}
        spec = VolumeSpec(driver="block", size=size, fstype=volume.fstype, labels=labels)
        made = await self._make_admitted(ids.new_id(), spec, copy)
        self._events.publish("volume", "create", made.name, tenant=made.tenant, driver=made.driver)
        return made

    async def _fill(self, target: Path, spec: VolumeSpec, copy: Copy | None) -> None:
        """With what `copy` makes, or an empty file system."""
        if copy is None:
            await self._blocks.create(target, size=spec.size, fstype=spec.fstype, format_=spec.format)
            return
        with no_space_as_error(target.parent):
            await copy(target)

    def bytes_of(self, requests: Iterable[VolumeRequest]) -> int:
        """What the disks may grow to that are made with a pod, and go with it."""
        disks = [r for r in requests if not r.source and r.format in ("", *_IMAGES)]
        return sum(r.size or self._blocks.default_size for r in disks)

    async def _make_admitted(self, name: str, spec: VolumeSpec, copy: Copy | None = None) -> Volume:
        """:raise QuotaExceeded: who asks may not have so much; and what `_make` raises."""
        disk = (spec.size or self._blocks.default_size) if spec.driver == "block" else UNBOUNDED
        with self._registry.quotas.admitted({volume_key(name, current().tenant): Amounts(volumes=1, disk=disk)}):
            return await self._make(name, spec, copy)

    async def _make(self, name: str, spec: VolumeSpec, copy: Copy | None = None) -> Volume:
        """Under another name first: what has a volume's name is whole, and nothing that is there is touched.

        The record comes before that name: files of which none tells may be somebody's, and stay in its way for ever.
        """
        directory = self._paths.volume(name, current().tenant)
        new = self._paths.volumes / f"{_NEW}{ids.new_id()[:12]}"
        if directory.exists():
            raise Conflict(
                f"there is something at {directory} that no record tells of",
                hint="move it away, or choose another name",
            )
        try:
            with no_space_as_error(directory):
                directory.parent.mkdir(mode=0o700, exist_ok=True)
                new.mkdir(mode=0o700, parents=True)
            if spec.driver == "block":
                size, file = spec.size or self._blocks.default_size, "volume.img"
                await self._fill(new / file, msgspec.structs.replace(spec, size=size), copy)
                volume = Volume(
                    name=name,
                    created_at=clock.stamp(),
                    driver="block",
                    path=str(directory / file),
                    size=size,
                    fstype=spec.fstype,
                    format=spec.format,
                    labels=spec.labels,
                    options=spec.options,
                    anonymous=not spec.name,
                    **owned(),
                )
            else:
                (new / VOLUME_DATA).mkdir()
                (new / VOLUME_DATA).chmod(
                    0o755
                )  # for all users of the guest; on the host nobody gets past the directory above
                volume = Volume(name=name, created_at=clock.stamp(), driver="directory",
                                path=str(directory / VOLUME_DATA), labels=spec.labels, options=spec.options,
                                anonymous=not spec.name, **owned())  # fmt: skip
            description.write(new, volume)
            self._registry.put_volume(volume)
            try:
                new.rename(directory)
            except BaseException:
                self._registry.remove_volume(volume)
                raise
        except BaseException:
            await removed(new)
            raise
        return volume

    async def info(self, volume: Volume) -> VolumeInfo:
        """A volume with its size, for the API."""
        used = await asyncio.to_thread(disk_usage, Path(volume.path))  # a directory is walked
        users = [p.name for p in self._registry.volume_users(volume.name)]
        return VolumeInfo(volume=volume, used_by=users, disk_usage=used)

    async def all(self, filters: Filters | None = None) -> list[VolumeInfo]:
        """All volumes that the filters let through, as `info`.

        :raise InvalidArgument: a filter's value is none.
        """
        return select_volumes([await self.info(v) for v in self._registry.volumes(seen=True)], filters or {})

    async def remove(self, name: str, *, force: bool = False) -> None:
        """:raise NotFound: no such volume, unless `force`. :raise Conflict: a pod has it."""
        volume = self._registry.find_volume(name) if force else self._registry.volume(name)
        if volume is None:
            return
        users = [p.name for p in self._registry.volume_users(name)]
        if users:
            raise Conflict(f"volume {name} is in use by {', '.join(users)}", hint="remove what uses it first")
        await self._erase(volume)

    async def _erase(self, volume: Volume) -> None:
        """Its name is free at once, and a crash leaves no half of it."""
        gone = self._paths.volumes / f"{_GONE}{ids.new_id()[:12]}"
        with contextlib.suppress(FileNotFoundError):
            self._directory(volume).rename(gone)
        self._registry.remove_volume(volume)
        await removed(gone)
        self._events.publish("volume", "destroy", volume.name, tenant=volume.tenant)
        if volume.tenant:
            with contextlib.suppress(OSError):  # it has others
                self._directory(volume).parent.rmdir()

    async def prune(self, *, everything: bool = False, filters: Filters | None = None) -> Pruned:
        """Remove those that no pod has and nobody gave a name; with `everything` those with a name, too.

        :raise InvalidArgument: a filter's value is none.
        """
        everything = everything or bool(flag(filters or {}, "all"))
        removed, freed = [], 0
        for info in await self.all():
            if (everything or info.volume.anonymous) and volume_fits(info.volume, bool(info.used_by), filters or {}):
                with contextlib.suppress(Conflict, NotFound):  # it has come into use, or is gone
                    await self.remove(info.volume.name)
                    removed.append(info.volume.name)
                    freed += info.disk_usage
        self._events.pruned("volume", freed)
        return Pruned(removed=removed, freed=freed)

    # -- of pods --------------------------------------------------------------------

    async def of_pod(self, pod_id: str, requests: list[VolumeRequest]) -> list[PodVolume]:
        """The volumes that a pod's specification names.

        :raise NotFound: a source that is not there. :raise InvalidArgument: a malformed one.
        """
        found: dict[str, PodVolume] = {}
        for request in requests:
            _check_name(request.name)
            if request.name in found:
                raise InvalidArgument(f"two volumes are called {request.name!r}", hint="rename one")
            found[request.name] = await self._of_request(pod_id, request)
        return list(found.values())

    async def _of_request(self, pod_id: str, r: VolumeRequest) -> PodVolume:
        format_ = r.format or format_of(r)
        common: dict[str, Any] = {"name": r.name, "declared": True, "read_only": r.read_only, "cache": r.cache}
        if format_ == "tmpfs":
            options = {} if r.mode is None else {"mode": f"{r.mode:o}", "gid": str(r.gid)}
            return PodVolume(kind="tmpfs", size=r.size, options=options, **common)
        if format_ == "volume":
            return self._named(await self._find_or_create(r.source, r.size), common)
        if format_ == "nas":
            if ":/" not in r.source:
                raise InvalidArgument(
                    f"volume {r.name}: invalid NFS source {r.source!r}", hint="write it as SERVER:/PATH"
                )
            return PodVolume(kind="nfs", source=r.source, fstype=r.fstype or "nfs4", options=r.options, **common)
        if format_ == "rbd":
            return self._rbd(pod_id, r, common)
        if not r.source:
            return await self._anonymous(pod_id, r, common)
        return on_host(r, format_, common)

    def _rbd(self, pod_id: str, r: VolumeRequest, common: dict[str, Any]) -> PodVolume:
        if not r.monitors or not r.source:
            raise InvalidArgument(f"volume {r.name}: rbd needs a source POOL/IMAGE and monitors", hint="give both")
        if key := r.options.get("keyring"):
            self._secrets.put(pod_id, KEYRING + r.name, key.encode())
        options = {k: v for k, v in r.options.items() if k != "keyring"}
        return PodVolume(
            kind="rbd", source=r.source, fstype=r.fstype or "auto", monitors=r.monitors, options=options, **common
        )

    async def _anonymous(self, pod_id: str, r: VolumeRequest, common: dict[str, Any]) -> PodVolume:
        path = self._paths.pod_volume(pod_id, r.name)
        with no_space_as_error(path):
            path.parent.mkdir(mode=0o700, parents=True, exist_ok=True)
        fstype, format_ = r.fstype or "ext4", r.format if r.format in _IMAGES else "raw"
        size = r.size or self._blocks.default_size
        await self._blocks.create(path, size=size, fstype=fstype, format_=format_)
        if r.mode is not None:
            await set_root(path, fstype, format_, mode=r.mode, gid=r.gid)
        return PodVolume(
            kind="disk", source=str(path), fstype=fstype, format=format_, anonymous=True, size=size, **common
        )

    async def _find_or_create(self, name: str, size: int = 0) -> Volume:
        _check_name(name)
        return self._registry.find_volume(name) or await self.create(VolumeSpec(name=name, size=size))

    @staticmethod
    def _named(volume: Volume, common: dict[str, Any]) -> PodVolume:
        if volume.driver == "directory":
            return PodVolume(kind="directory", source=volume.path, named=volume.name, **common)
        return PodVolume(
            kind="disk", source=volume.path, named=volume.name, format=volume.format, fstype=volume.fstype, **common
        )

    async def resolve(
        self, pod: Pod, spec: ContainerSpec, config: dict[str, Any], images: Mapping[str, PodVolume] = NO_IMAGES
    ) -> tuple[list[PodVolume], list[MountPoint]]:
        """The pod's volumes with what this container adds, and the container's mounts.

        What has no name, and the paths that the image declares as volumes, are anonymous volumes; in a pod of several
        containers they lie on the container's own disk. When this fails, none of them is left. `images` are those that
        it mounts, by what it calls them.
        """
        volumes: list[PodVolume] = list(pod.volumes)
        points: list[MountPoint] = []
        taken = {m.target.rstrip("/") for m in spec.mounts}
        if spec.rootfs:
            add_root(volumes, root_mount(spec))
        declared = [Mount(target=path) for path in config.get("Volumes") or {} if path.rstrip("/") not in taken]
        try:
            for mount in (*spec.mounts, *declared):
                if mount.type == "image":
                    points.append(_of_image(volumes, mount, images[mount.source]))
                else:
                    points.append(await self._point(pod, volumes, mount))
        except BaseException:
            await tasks.to_the_end(self.remove_anonymous(points))
            raise
        return volumes, points

    async def _point(self, pod: Pod, volumes: list[PodVolume], mount: Mount) -> MountPoint:
        """A mount, resolved; `volumes` gets what it adds."""
        name = ""
        if mount.type == "bind":
            name = add_bind(volumes, mount)
        elif mount.type == "volume" and mount.source:
            name = mount.source
            found = next((v for v in volumes if v.name == name), None)
            if found is None:
                volumes.append(self._named(await self._find_or_create(name), {"name": name}))
            elif found.kind == "directory" and not found.named:
                mount = msgspec.structs.replace(mount, copy_up=False)  # a directory of the host is as it is
        elif mount.type == "volume" and pod.implicit:
            volume = await self.create(VolumeSpec())
            volumes.append(self._named(volume, {"name": volume.name}))
            mount = msgspec.structs.replace(mount, source=volume.name)
            return MountPoint(mount=mount, volume=volume.name, anonymous=True)
        check_propagation(mount, next((v for v in volumes if v.name == name), None))
        return MountPoint(mount=mount, volume=name)

    async def remove_anonymous(self, points: Sequence[MountPoint]) -> None:
        """The volumes that were made for these mounts of a container that is gone, unless others have them.

        Idempotent.
        """
        made = {p.volume for p in points if p.anonymous}
        used = {v.named for p in self._registry.pods() for v in p.volumes} if made else set()
        for volume in [v for v in self._registry.volumes() if v.anonymous and v.name in made - used]:
            await self._erase(volume)


def _of_image(volumes: list[PodVolume], mount: Mount, volume: PodVolume) -> MountPoint:
    if volume.name not in {v.name for v in volumes}:
        volumes.append(volume)
    check_propagation(mount, volume)
    return MountPoint(mount=msgspec.structs.replace(mount, read_only=True, copy_up=False), volume=volume.name)


def _check_name(name: str) -> None:
    if not _NAME.match(name):
        raise InvalidArgument(
            f"invalid volume name {name!r}",
            hint="use letters, digits, '_', '.' and '-', beginning with a letter or digit",
        )
