# SPDX-License-Identifier: Apache-2.0
"""Pulls: one for all who ask for the same image at once; what fails leaves nothing."""

from __future__ import annotations

import asyncio
import json
import logging
from collections.abc import Awaitable, Callable
from dataclasses import dataclass
from pathlib import Path

import msgspec

from ..errors import HyperError, InvalidArgument, NotFound, Unavailable
from ..model import architectures
from ..model.reference import Source, parse_reference, parse_source
from ..sys import tasks
from ..sys.documents import UNREADABLE
from ..sys.removal import temporary_directory
from . import builtin, skopeo
from .blobs import Lease
from .conversion import archive_names
from .disk import DiskBuilder
from .faults import storage_faults
from .layout import Layout, choose, chosen
from .limits import DOCUMENT_MAX, Limits, beyond
from .manifests import (
    INDEX,
    MANIFEST,
    REF_NAME,
    Descriptor,
    Manifest,
    StoredImage,
    choose_platform,
    digest_of,
    is_index,
    media_type,
)
from .progress import DownloadMeter, Progress
from .skopeo import Access, Platform, Wall
from .trust import Trust

log = logging.getLogger(__name__)
_ARCHIVES = ("docker-archive", "oci-archive")


@dataclass
class _Pull:
    task: asyncio.Task[StoredImage]
    progress: Progress
    waiting: int = 0


@dataclass(frozen=True)
class _Wanted:
    """What a pull is to bring, and from where."""

    source: Source
    platform: Platform
    access: Access
    progress: Progress
    what: str  # for messages
    lease: Lease


@dataclass(frozen=True)
class _There:
    """What a source has for a platform."""

    source: Source  # exactly that
    raw: bytes
    manifest: Manifest
    index: bytes  # that it is of; empty for none


class Puller:
    """Brings images into a layout, and makes their disks."""

    def __init__(
        self,
        layout: Layout,
        staging: Path,
        disks: DiskBuilder,
        limits: Limits,
        insecure: frozenset[str],
        collect: Callable[[], Awaitable[object]],
        trust: Callable[[], Trust],
        wall: Callable[[], Wall | None],
    ) -> None:
        """`collect` removes blobs of no image."""
        self._layout = layout
        self._staging = staging
        self._disks = disks
        self._limits = limits
        self._insecure = insecure
        self._trust = trust
        self._wall = wall
        self._collect = collect
        self._pulls: dict[tuple[str, str, bool, str], _Pull] = {}
        self._left_over = False  # a failed pull left blobs that nobody has collected

    def pull(self, text: str, *, platform: str, auth: str) -> tuple[Progress, Awaitable[StoredImage]]:
        """Begin a pull, or join one of the same image; the awaitable gives the image.

        :raise InvalidArgument: when the reference or the platform is malformed.
        """
        source = parse_source(text)
        wanted = parse_platform(platform)
        access = Access(self._insecure, auth, self._trust(), self._wall())
        key = (skopeo.spelled(source), f"{wanted} {auth}", access.wall is None, self._layout.tenant() or "")
        pull = self._pulls.get(key)
        if pull is None or pull.task.cancelling():
            progress = Progress()
            task = asyncio.create_task(self._pull(source, wanted, access, progress))
            pull = self._pulls[key] = _Pull(task, progress)

            def ended(task: asyncio.Task[StoredImage]) -> None:
                if (known := self._pulls.get(key)) and known.task is task:
                    del self._pulls[key]
                if not task.cancelled():
                    task.exception()  # told to those who waited
                progress.finish()

            task.add_done_callback(ended)
        return pull.progress, self._join(pull)

    @staticmethod
    async def _join(pull: _Pull) -> StoredImage:
        """Wait for a pull; it ends with the last that waits for it."""
        pull.waiting += 1
        try:
            return await asyncio.shield(pull.task)
        finally:
            pull.waiting -= 1
            if not pull.waiting:
                pull.task.cancel()

    async def _pull(self, source: Source, platform: Platform, access: Access, progress: Progress) -> StoredImage:
        what = parse_reference(source.location).familiar if source.transport == "docker" else skopeo.spelled(source)
        try:
            with storage_faults(self._layout.root), self._layout.blobs.lease(arriving=True) as lease:
                wanted = _Wanted(source, platform, access, progress, what, lease)
                for again in (False, True):
                    async with temporary_directory(self._staging) as staging:
                        name, entry = await self._fetch(staging, wanted)
                    try:
                        return await self._finish(name, entry, wanted)
                    except NotFound:  # a blob was there already, but damaged; it is gone now
                        if again:
                            raise
            raise AssertionError("unreachable")
        except BaseException:
            self._left_over = True
            raise
        finally:
            if self._left_over:
                await self._clean_up()

    async def _clean_up(self) -> None:
        try:
            with storage_faults(self._layout.root):
                await self._collect()
            self._left_over = self._layout.blobs.arriving  # what came meanwhile stays until that has ended, too
        except HyperError as error:
            log.warning("what a failed pull left cannot be removed yet: %s", error)

    async def _fetch(self, staging: Path, wanted: _Wanted) -> tuple[str, Descriptor]:
        """Bring all blobs into the layout; the image's name ("" for none) and what it stands for."""
        source, platform, access, what = wanted.source, wanted.platform, wanted.access, wanted.what
        if source.transport == "builtin":
            return await tasks.in_thread(lambda: builtin.builtin(source.location, self._layout, platform.architecture))
        meter = DownloadMeter(self._layout, staging, wanted.progress)
        wanted.progress.update("", f"Pulling {what}")
        there: _There | None = None
        name, own = "", self._layout.own()
        if source.transport == "docker":
            there = await self._look(wanted)
            wanted.lease.add(there.manifest.blobs())
            meter.expect(there.manifest, own)
            source = there.source
        if source.transport in _ARCHIVES:
            source, name = await self._archive(source, staging / "archive.tar", what)
        elif source.transport == "oci":
            await self._look(wanted)
        blobs, here = self._layout.blobs, staging / "blobs/sha256"
        lent = there.manifest.blobs() if there else ()
        blobs.lend(here, lent if own is None else [b for b in lent if b in own])
        await skopeo.copy(source, access, platform, staging, what, meter.tick, self._limits.size)
        await tasks.in_thread(lambda: blobs.take_in(here))
        meter.tick()
        found = next(iter(Layout(staging).names().values()))
        entry = Descriptor(media_type=found.media_type, digest=found.digest, size=found.size)
        return name or name_of(wanted.source), await self._original(there, entry, wanted) if there else entry

    async def _original(self, there: _There, made: Descriptor, wanted: _Wanted) -> Descriptor:
        """What the registry has, byte by byte, in place of what skopeo made of it: Docker's formats become OCI's,
        and lose what these have no place for.

        :raise Unavailable: the registry gives something else by now.
        """
        blobs = self._layout.blobs
        if digest_of(there.raw) != made.digest:
            pinned = there.source != wanted.source
            if not pinned and not wanted.access.trust.takes_anything("docker", wanted.source.location):
                return made  # what was signed is what skopeo saw, and it may not be what we saw
            manifest = msgspec.json.decode(await asyncio.to_thread(blobs.read, made.digest), type=Manifest)
            if [x.digest for x in manifest.layers] != [x.digest for x in there.manifest.layers]:
                raise _changed(wanted.what)
            config = await skopeo.inspect_raw(there.source, wanted.access, wanted.what, config=True)
            if digest_of(config) != there.manifest.config.digest:
                raise _changed(wanted.what)
            await tasks.in_thread(lambda: blobs.add(config))
        entry = await tasks.in_thread(lambda: blobs.add(there.raw, media_type(there.raw, MANIFEST)))
        if there.index:
            image = await asyncio.to_thread(self._layout.load, entry.digest)
            index = await tasks.in_thread(lambda: blobs.add(there.index, media_type(there.index, INDEX)))
            return choose(index, image)
        return entry

    async def _archive(self, source: Source, unpacked: Path, what: str) -> tuple[Source, str]:
        """What skopeo shall read, and the image's name."""
        path, _, name = source.location.partition(":")
        names, compressed = await archive_names(Path(path), what, unpacked, self._limits)
        if compressed:
            source = Source(source.transport, f"{unpacked}:{name}" if name else str(unpacked))
        if name:
            return source, name_of(Source(source.transport, f"{path}:{name}"))
        return source, _full_name(names[0]) if names else ""

    async def _look(self, wanted: _Wanted) -> _There:
        """The platform's manifest, for its sizes, with the index that it is of; and the source pinned to its digest.

        An image that is not of an index is not pinned: a signature may be of its tag.
        """
        source, platform, access, what = wanted.source, wanted.platform, wanted.access, wanted.what
        raw, index = await skopeo.inspect_raw(source, access, what), b""
        if is_index(raw):
            index = raw
            entry = choose_platform(raw, platform.os, platform.architecture, platform.variant)
            if source.transport == "docker":
                reference = parse_reference(source.location)._replace(tag="", digest=entry.digest)
                source = Source("docker", reference.full)
                raw = await skopeo.inspect_raw(source, access, what)
                if digest_of(raw) != entry.digest:
                    raise _changed(what)
            else:
                blobs = Layout(Path(source.location.partition(":")[0])).blobs
                raw = await asyncio.to_thread(_read_small, blobs.path(entry.digest))
        try:
            manifest = msgspec.json.decode(raw, type=Manifest)
        except UNREADABLE as error:
            raise InvalidArgument(f"cannot pull {what}: its manifest is not an image's: {error}") from error
        self._check(manifest, what)
        return _There(source, raw, manifest, index)

    def _check(self, manifest: Manifest, what: str) -> None:
        """:raise InvalidArgument: when it is beyond a limit already."""
        try:
            if len(manifest.layers) > self._limits.layers:
                raise beyond(f"its {len(manifest.layers)} layers are more than {self._limits.layers}", "layers")
            if manifest.config.size > DOCUMENT_MAX:
                raise InvalidArgument(f"its configuration has {manifest.config.size} bytes, more than {DOCUMENT_MAX}")
            if sum(layer.size for layer in manifest.layers) > self._limits.size:
                raise beyond(f"its layers have more than {self._limits.size} bytes", "size")
        except InvalidArgument as error:
            raise InvalidArgument(f"image {what} is refused: {error.message}", hint=error.hint) from None

    async def _finish(self, name: str, entry: Descriptor, wanted: _Wanted) -> StoredImage:
        image = await asyncio.to_thread(self._layout.load, chosen(entry))
        self._check(image.manifest, wanted.what)
        progress = wanted.progress
        progress.update("", "Converting")
        await self._disks.ensure(image, wanted.what, progress.update)
        for layer in image.manifest.layers:
            progress.update(layer.digest, "Pull complete", layer.size, layer.size)
        before = self._layout.names().get(name)
        self._layout.set_name(name or entry.digest, choose(entry, image))
        progress.name = name
        progress.update("", f"Digest: {entry.digest}")
        same = before is not None and chosen(before) == image.digest
        shown = parse_reference(name).familiar if name else wanted.what
        progress.update("", f"Status: {'Image is up to date' if same else 'Downloaded newer image'} for {shown}")
        return image


def _changed(what: str) -> Unavailable:
    return Unavailable(f"cannot pull {what}: the registry gives something else now", hint="try again")


def is_for(image: StoredImage, wanted: Platform) -> bool:
    """Whether it is for a platform; one that does not say may be for any."""
    have = image.config
    return not have.architecture or (
        (have.os, have.architecture) == wanted[:2] and wanted.variant in ("", have.variant or wanted.variant)
    )


def parse_platform(text: str) -> Platform:
    """:raise InvalidArgument: when it is not os/architecture[/variant]."""
    if not text:
        return Platform("linux", architectures.host())
    parts = text.split("/")
    if len(parts) not in (2, 3) or not all(parts):
        raise InvalidArgument(f"invalid platform {text!r}", hint="write it as linux/amd64")
    if parts[0] != "linux":
        raise InvalidArgument(f"platform {text!r} cannot run here", hint="only Linux images run on a Linux kernel")
    return Platform(*parts)


def _read_small(path: Path) -> bytes:
    try:
        with open(path, "rb") as f:
            return f.read(DOCUMENT_MAX)
    except FileNotFoundError:
        raise NotFound(f"blob sha256:{path.name} is missing", hint="check the directory") from None


def _full_name(name: str) -> str:
    """The name in full; "" when it is none."""
    try:
        return parse_reference(name).full if name else ""
    except InvalidArgument:
        return ""


def name_of(source: Source) -> str:
    """The name that a pulled image gets by where it comes from; "" for none.

    :raise InvalidArgument: when a name was given that is none.
    """
    if source.transport in ("docker", "docker-daemon"):
        return parse_reference(source.location).full
    path, _, name = source.location.partition(":")
    if source.transport == "docker-archive":
        return parse_reference(name).full if name else ""
    if not name and source.transport == "oci":
        try:
            entries = json.loads(_read_small(Path(path) / "index.json")).get("manifests", [])
            name = str(entries[0].get("annotations", {}).get(REF_NAME, "")) if entries else ""
        except (ValueError, LookupError, AttributeError, RecursionError):
            return ""
    return _full_name(name)
