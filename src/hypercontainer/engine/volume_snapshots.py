# SPDX-License-Identifier: Apache-2.0
"""Snapshots of volumes: what their users can ask for.

Each is a directory with the copy and, written last, what is known of it; so one that a dead daemon was at is none.
"""

from __future__ import annotations

import contextlib
import logging
import os
import secrets
from collections import Counter
from functools import partial
from pathlib import Path

import msgspec
from msgspec.structs import replace

from ..errors import Conflict, HyperError, InvalidArgument, Unavailable, Unsupported
from ..images.progress import Progress
from ..model import ids
from ..model.filters import Filters
from ..model.host import Check
from ..model.pods import VolumeSpec
from ..model.quotas import Amounts
from ..model.status import Volume
from ..model.thing_filters import select_volume_snapshots
from ..model.volume_snapshots import VolumeSnapshot, VolumeSnapshotRequest
from ..sys import clock, tasks
from ..sys.documents import UNREADABLE
from ..sys.files import no_space_as_error, write_atomically
from ..sys.removal import removed
from ..sys.trees import disk_usage
from . import naming
from .events import Events
from .paths import Paths
from .principal import owned
from .registry import Registry
from .volume_copies import VolumeCopies, copy_or_give_up
from .volumes import Volumes

log = logging.getLogger(__name__)
DOCUMENT, DISK = "snapshot.json", "volume.img"
_PASSING = ".new-"  # what the directory of one begins with that is made, or goes


class VolumeSnapshots:
    """Made, listed, removed; and volumes made of them."""

    def __init__(
        self, paths: Paths, registry: Registry, volumes: Volumes, events: Events, copies: VolumeCopies
    ) -> None:
        self._directory = paths.volume_snapshots
        self._registry = registry
        self._volumes = volumes
        self._events = events
        self._copies = copies
        self._known: dict[str, VolumeSnapshot] = {}
        self._unread: dict[Path, str] = {}  # directories -> why what is in them cannot be read
        self._names = naming.Holds("snapshot of a volume")
        self._used: Counter[str] = Counter()  # ids

    async def open(self) -> None:
        """Find those of earlier daemons; what was half made goes."""
        self._directory.mkdir(mode=0o700, exist_ok=True)
        for directory in sorted(self._directory.iterdir()):
            if directory.name.startswith("."):
                await removed(directory)
                continue
            try:
                self._known[directory.name] = _read(directory)
            except HyperError as error:
                log.warning("%s", error)
                self._unread[directory] = error.message

    def checks(self) -> list[Check]:
        """Of those that a daemon has found and cannot use."""
        return [
            Check(name="volume snapshots", status="warn", found=why, hint=f"remove {directory}")
            for directory, why in self._unread.items() if directory.exists()
        ]  # fmt: skip

    def documents(self) -> list[VolumeSnapshot]:
        """Of all that are kept."""
        return list(self._known.values())

    def size_of(self, id_: str) -> int:
        """Bytes that one takes on the disk; 0 of one that is not there."""
        return disk_usage(self._directory / id_) if id_ in self._known else 0

    async def create(self, request: VolumeSnapshotRequest, progress: Progress) -> VolumeSnapshot:
        """Keep a volume as it is now; pods that have it go on.

        :raise NotFound: no such volume. :raise Conflict: the name is taken. :raise Unsupported: it is a directory.
        :raise QuotaExceeded: who asks may not have another. What `VolumeCopies.copy` raises, too.
        """
        volume = self._registry.volume(request.volume)
        if volume.driver != "block":
            raise Unsupported(
                f"volume {volume.name} is a directory, which several pods and this host write to: there is no one "
                "instant of it", hint="make it a disk (`--driver block`), or copy its files with `hyperctl cp`",
            )  # fmt: skip
        with self._hold(request.name or f"{volume.name[:50]}-{secrets.token_hex(3)}") as name:
            return await self._create(volume, name, request.labels, progress)

    def _hold(self, name: str) -> contextlib.AbstractContextManager[str]:
        """Nobody else gets the name meanwhile. :raise InvalidArgument: it is none. :raise Conflict: somebody has it."""
        naming.check("snapshot", name)
        return self._names.hold(name, self._known.values())

    async def _create(self, volume: Volume, name: str, labels: dict[str, str], progress: Progress) -> VolumeSnapshot:
        passing, id_ = self._passing(), ids.new_id()
        with self._registry.quotas.admitted({passing.name: Amounts(snapshots=1, snapshot_disk=1)}):
            try:
                with no_space_as_error(passing):
                    passing.mkdir(mode=0o700)
                created_at = clock.stamp()
                done = await self._copies.copy(volume, passing / DISK, progress)
                made = VolumeSnapshot(
                    id=id_, name=name, created_at=created_at, volume=volume.name, size=volume.size,
                    fstype=volume.fstype, format=volume.format, manner=done.manner, still_ms=done.still_ms,
                    labels=labels, **owned(),
                )  # fmt: skip
                await tasks.in_thread(partial(_write, passing, made))
                passing.rename(self._directory / id_)
            except BaseException:
                await removed(passing)
                raise
            self._known[id_] = made
        self._events.publish("snapshot", "create", id_, tenant=made.tenant, name=name, volume=volume.name)
        return self._told(made)

    def _passing(self) -> Path:
        return self._directory / f"{_PASSING}{ids.new_id()[:12]}"

    def all(self, filters: Filters | None = None) -> list[VolumeSnapshot]:
        """Those that the filters let through, newest first."""
        mine = select_volume_snapshots(naming.mine(self._known.values()), filters or {})
        found = [self._told(s) for s in mine]
        return sorted(found, key=lambda s: s.created_at, reverse=True)

    def info(self, key: str) -> VolumeSnapshot:
        """:raise NotFound: there is none."""
        return self._told(self._find(key))

    def _find(self, key: str) -> VolumeSnapshot:
        return naming.pick(self._known, key, "snapshot of a volume", "see `hyperctl volume snapshot ls`")

    def _told(self, snapshot: VolumeSnapshot) -> VolumeSnapshot:
        return replace(snapshot, disk_usage=self.size_of(snapshot.id))

    async def remove(self, key: str) -> None:
        """Volumes that were made of it have their own.

        :raise NotFound: there is none. :raise Conflict: a volume is just made of it.
        """
        snapshot = self._find(key)
        if self._used[snapshot.id]:
            raise Conflict(f"a volume is being made of the snapshot {snapshot.name}", hint="try again afterwards")
        gone = self._passing()
        with contextlib.suppress(FileNotFoundError):  # somebody was there before
            (self._directory / snapshot.id).rename(gone)
        del self._known[snapshot.id]
        await removed(gone)
        self._events.publish("snapshot", "destroy", snapshot.id, tenant=snapshot.tenant, name=snapshot.name)

    # -- volumes made of them ---------------------------------------------------------------

    async def create_volume(self, spec: VolumeSpec) -> Volume:
        """A volume as a snapshot's was, where the specification names one; an empty one else.

        :raise NotFound: no such snapshot. :raise InvalidArgument: it is of another kind, or size.
        :raise Conflict: there is a volume of this name. What `Volumes.create` raises, too.
        """
        if not spec.snapshot:
            return await self._volumes.create(spec)
        snapshot = self._find(spec.snapshot)
        spec = _as_it_was(spec, snapshot)
        self._used[snapshot.id] += 1
        try:
            return await self._volumes.create(spec, partial(self._copy, snapshot))
        finally:
            self._used[snapshot.id] -= 1

    async def _copy(self, snapshot: VolumeSnapshot, target: Path) -> None:
        try:
            await copy_or_give_up(self._directory / snapshot.id / DISK, target)
        except FileNotFoundError:
            raise Unavailable(f"the disk of the snapshot {snapshot.name} has gone", hint="remove it") from None
        await tasks.in_thread(partial(_sync, target))


def _as_it_was(spec: VolumeSpec, snapshot: VolumeSnapshot) -> VolumeSpec:
    """:raise InvalidArgument: more is asked for than a snapshot gives."""
    same = VolumeSpec(size=snapshot.size, fstype=snapshot.fstype, format=snapshot.format)
    for what in ("size", "fstype", "format"):
        asked, has = getattr(spec, what), getattr(same, what)
        if asked not in (getattr(VolumeSpec(), what), has):
            raise InvalidArgument(f"the snapshot {snapshot.name} has another {what}: {has}, and not {asked}",
                                  hint=f"leave the {what} out")  # fmt: skip
    if spec.driver == "directory":
        raise InvalidArgument(f"the snapshot {snapshot.name} is of a disk", hint="leave the driver out")
    return replace(spec, driver="block", size=same.size, fstype=same.fstype, format=same.format)


def _sync(path: Path) -> None:
    """A power cut leaves no record of what is not on the disk. It blocks."""
    with path.open("rb") as file:
        os.fsync(file.fileno())


def _write(directory: Path, snapshot: VolumeSnapshot) -> None:
    """It blocks."""
    _sync(directory / DISK)
    write_atomically(directory / DOCUMENT, msgspec.json.encode(snapshot))


def _read(directory: Path) -> VolumeSnapshot:
    """:raise Unavailable: it cannot be read."""
    try:
        found = msgspec.json.decode((directory / DOCUMENT).read_bytes(), type=VolumeSnapshot)
    except (OSError, *UNREADABLE) as error:
        raise Unavailable(f"the snapshot of a volume in {directory} cannot be read: {error}") from error
    if found.id != directory.name or not (directory / DISK).exists():
        raise Unavailable(f"the snapshot of a volume in {directory} is not whole")
    return found
