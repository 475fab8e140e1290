# SPDX-License-Identifier: Apache-2.0
"""Makes backups, of a daemon that works on meanwhile.

The database is copied first, of one instant; then the files of each pod, together, and of each volume. What is removed
meanwhile is named at the end, and its record goes with it when the backup is restored.
"""

from __future__ import annotations

import logging
from collections.abc import AsyncGenerator, AsyncIterator, Collection, Iterator
from functools import partial
from pathlib import Path

from ... import __version__
from ...errors import Conflict, InvalidArgument
from ...model import ids
from ...model.status import Pod, Volume
from ...state.copy import copy_out, record_keys
from ...sys import clock, tasks
from ...sys.files import no_space_as_error
from ...sys.removal import removed
from ..paths import Paths
from ..registry import Registry
from ..sandboxes import Sandboxes
from ..still_disks import StillDisks
from .archive import MANIFEST, Manifest, Writer

log = logging.getLogger(__name__)
PARTS = ("images", "snapshots", "volumes")  # what may be left out
_PASSING = "backup-"
_TREES = ("images", "snapshots", "volume-snapshots")
_MADE_AGAIN = ("disks", "staging", "pushed")  # of images


class Backups:
    """Of one daemon; one at a time."""

    def __init__(self, paths: Paths, registry: Registry, sandboxes: Sandboxes, still: StillDisks) -> None:
        self._paths = paths
        self._registry = registry
        self._sandboxes = sandboxes
        self._still = still
        self._busy = False

    async def open(self) -> None:
        """What an earlier daemon was at when it died goes."""
        await removed(*self._paths.cache.glob(f"{_PASSING}*"))

    async def create(self, without: Collection[str] = ()) -> AsyncGenerator[bytes, None]:
        """A backup, piece by piece.

        :raise InvalidArgument: a part that cannot be left out. :raise Conflict: another is being made.
        :raise NoSpace: the disk has no room for copies. All of these before the first piece, the last later, too.
        """
        if unknown := sorted(set(without) - set(PARTS)):
            raise InvalidArgument(f"there is no part {unknown[0]!r} of a backup", hint=f"known are {', '.join(PARTS)}")
        if self._busy:
            raise Conflict("another backup is being made", hint="try again when it is done")
        self._busy = True
        place = self._paths.cache / f"{_PASSING}{ids.new_id()[:12]}"
        try:
            with no_space_as_error(place):
                place.mkdir(mode=0o700)
                schema = await tasks.in_thread(partial(copy_out, self._paths.database, place / "state.db"))
                manifest = Manifest(version=__version__, schema=schema, created_at=clock.stamp(),
                                    root=str(self._paths.root), without=sorted(without))  # fmt: skip
                async for piece in self._pieces(place, manifest):
                    yield piece
        finally:
            self._busy = False
            await removed(place)

    async def _pieces(self, place: Path, manifest: Manifest) -> AsyncIterator[bytes]:
        writer, root, done = Writer(), self._paths.root, set[Path]()
        async for piece in _threaded(writer.document(MANIFEST, manifest)):
            yield piece
        instead = {self._paths.database: place / "state.db"}
        tops = ["state.db", "keys", *(t for t in _TREES if t.removeprefix("volume-") not in manifest.without)]
        for top in tops:
            async for piece in _threaded(writer.tree(root / top, top, instead, self._is_left_out)):
                yield piece
        running = sorted(self._registry.pods(), key=lambda p: not self._sandboxes.has_machine(p.id))
        for pod in running:
            async for piece in self._of_pod(writer, pod, place, done, manifest.without):
                yield piece
        for volume in self._registry.volumes() if "volumes" not in manifest.without else ():
            async for piece in self._of_volume(writer, volume, place, done):
                yield piece
        gone = record_keys(place / "state.db") - record_keys(self._paths.database)
        if writer.missing:
            log.warning("the backup is without %d files: %s", writer.missing, "; ".join(writer.such_as))
        async for piece in _threaded(writer.end(sorted(gone))):
            yield piece

    def _is_left_out(self, path: Path) -> bool:
        """What is made again, and what is under way; a snapshot's or volume's name has no dot there."""
        images, snapshots = self._paths.images, (self._paths.snapshots, self._paths.volume_snapshots)
        made_again = path.parent == images and path.name in _MADE_AGAIN
        return made_again or (path.parent in snapshots and path.name.startswith("."))

    async def _of_pod(
        self, writer: Writer, pod: Pod, place: Path, done: set[Path], without: Collection[str]
    ) -> AsyncIterator[bytes]:
        """Its files and its containers', and the disks of its volumes, of one instant."""
        paths, volumes = self._paths, self._named(pod) if "volumes" not in without else []
        members = self._registry.members(pod.id)
        disks = [paths.scratch(c.id) for c in members if not c.spec.rootfs]
        disks += [Path(v.source) for v in pod.volumes if v.kind == "disk" and not v.named and self._is_ours(v.source)]
        disks += [Path(v.path) for v in volumes if v.driver == "block" and Path(v.path) not in done]
        copies = {disk: place / f"{number}.img" for number, disk in enumerate(disks)}
        await self._still.copy(pod.id, copies)
        done.update(copies)
        trees = [*(paths.container(c.id) for c in members), paths.pod(pod.id)]
        trees += [Path(v.path).parent for v in volumes if Path(v.path) in copies]
        for tree in trees:
            async for piece in self._tree(writer, tree, copies):
                yield piece
        for copy in copies.values():
            copy.unlink(missing_ok=True)

    def _is_ours(self, source: str) -> bool:
        return Path(source).is_relative_to(self._paths.root)

    def _named(self, pod: Pod) -> list[Volume]:
        names = {v.named for v in pod.volumes if v.named}
        return [v for v in self._registry.volumes() if v.name in names and v.tenant == pod.tenant]

    async def _of_volume(self, writer: Writer, volume: Volume, place: Path, done: set[Path]) -> AsyncIterator[bytes]:
        """One that is a directory is read as it is, and one of no pod that runs."""
        path = Path(volume.path)
        if path in done:
            return
        copies = {path: place / "volume.img"} if volume.driver == "block" else {}
        users = [p for p in self._registry.pods() if volume in self._named(p)]
        if copies and users:  # one of which has come meanwhile
            await self._still.copy(users[0].id, copies)
        async for piece in self._tree(writer, path.parent, copies if users else {}):
            yield piece
        for copy in copies.values():
            copy.unlink(missing_ok=True)

    def _tree(self, writer: Writer, path: Path, copies: dict[Path, Path]) -> AsyncIterator[bytes]:
        name = str(path.relative_to(self._paths.root))
        return _threaded(writer.tree(path, name, copies, self._is_left_out))


async def _threaded(pieces: Iterator[bytes]) -> AsyncIterator[bytes]:
    while piece := await tasks.in_thread(partial(next, pieces, b"")):
        yield piece
