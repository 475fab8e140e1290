# SPDX-License-Identifier: Apache-2.0
"""load and import: images of archives that a client sends."""

from __future__ import annotations

import asyncio
import json
import logging
import os
from collections.abc import AsyncIterator, Awaitable, Callable, Sequence
from dataclasses import dataclass, field, replace
from pathlib import Path
from typing import Any, TypeVar

import msgspec

from ..errors import HyperError, InvalidArgument, NotFound, Unsupported
from ..model import architectures
from ..model.appc import Rights
from ..model.moments import write_moment
from ..model.reference import parse_reference, tag_of
from ..sys import clock, tasks
from ..sys.documents import UNREADABLE
from ..sys.files import no_space_as_error, write_all
from ..sys.removal import temporary_directory
from .appc import take
from .bundle import Bundle, Found, Table
from .changes import apply_changes
from .conversion import appc_parts, table_of, unpacked
from .disk import DiskBuilder
from .faults import storage_faults
from .layout import Layout, choose, chosen
from .limits import DOCUMENT_MAX, Limits, beyond
from .manifests import CONFIG, LAYER, MANIFEST, Descriptor, StoredImage
from .progress import Progress
from .pull import is_for, parse_platform
from .skopeo import Platform
from .trust import Trust

log = logging.getLogger(__name__)
T = TypeVar("T")
Body = AsyncIterator[bytes]


@dataclass(frozen=True)
class Loaded:
    """An image that is in the store now; and ids of images that lost a name to it."""

    image: StoredImage
    names: list[str]
    replaced: dict[str, str] = field(default_factory=dict)  # name -> id
    app: Rights | None = None  # of an App Container image


class Loader:
    """Takes archives in; what fails leaves nothing."""

    def __init__(
        self, layout: Layout, staging: Path, disks: DiskBuilder, limits: Limits,
        collect: Callable[[], Awaitable[object]], trust: Callable[[], Trust],
        admits: Callable[[], None],
    ) -> None:  # fmt: skip
        """`collect` removes blobs of no image; `admits` raises for who may bring none."""
        self._admits = admits
        self._layout = layout
        self._staging = staging
        self._disks = disks
        self._limits = limits
        self._collect = collect
        self._trust = trust

    def check_unsigned(self, what: str) -> None:
        """Before `what` is made, an archive. :raise PermissionDenied: the policy would refuse it."""
        self._trust().require("docker-archive", what)

    async def load(self, body: Body, progress: Progress, *, shares: bool = False, platform: str = "") -> list[Loaded]:
        """All images of an archive of Docker's kind or of OCI's, compressed or not.

        With `shares` layers that the store has, compressed perhaps, take the place of the archive's, so that an image
        which was built here has its base's own; its manifest is not what the archive says then, its id is.

        With a `platform` the names stand for the images of that.

        :raise InvalidArgument: it is none, damaged, or beyond a limit. :raise PermissionDenied: the policy refuses it.
        :raise NotFound: it has nothing for the platform.
        """
        wanted = parse_platform(platform) if platform else None

        async def work(directory: Path) -> list[Loaded]:
            progress.update("", "Receiving")
            path = await self.receive(body, directory / "archive", "the archive")
            text, plain = await table_of(path, "the archive", directory, self._limits)
            try:
                table = msgspec.json.decode(text, type=Table)
            except UNREADABLE as error:
                raise InvalidArgument(f"the archive is damaged: {error}") from error
            if table.appc:
                return [await self._load_appc(plain, directory, progress)]
            shared = self._layout.layers() if shares else {}
            with open(plain, "rb") as file, self._layout.blobs.lease({d.digest for d in shared.values()}):
                bundle = Bundle(file.fileno(), os.fstat(file.fileno()).st_size, table, self._layout.blobs, shared)
                self._trust().require(bundle.kind, "the archive")
                progress.update("", "Reading")
                found = await tasks.in_thread(lambda: _told("the archive", bundle.take))
                return [await self.finish(each, progress, wanted) for each in found]

        return await self.within(work)

    async def _load_appc(self, plain: Path, directory: Path, progress: Progress) -> Loaded:
        """An App Container image; what it depends on is in the store, or told."""
        self._trust().require("tarball", "the archive")
        progress.update("", "Reading")
        text, layer = await appc_parts(plain, "the archive", directory, self._limits)
        needed = {d.digest for d in self._layout.layers().values()}
        with self._layout.blobs.lease(needed):
            found, rights = await tasks.in_thread(
                lambda: _told("the archive", lambda: take(self._layout, text, layer, plain))
            )
            return replace(await self.finish(found, progress), app=rights)

    async def import_(
        self, body: Body, *, reference: str, message: str, changes: Sequence[str], platform: str, source: str
    ) -> Loaded:
        """An image whose one layer is an archive of files.

        :raise InvalidArgument: it is none, or what is said of it is malformed.
        :raise PermissionDenied: the policy refuses it.
        """
        name = tag_of(reference)
        wanted = parse_platform(platform)
        config = apply_changes({}, changes)
        self._trust().require("tarball", "the archive")

        async def work(directory: Path) -> Loaded:
            path = await self.receive(body, directory / "archive", "the archive")
            plain = await unpacked(path, "the archive", directory, self._limits)
            created = write_moment(clock.now_ns())
            described: dict[str, Any] = {
                "created": created, "os": wanted.os, "architecture": wanted.architecture or architectures.host(),
                "config": config, "history": [{"created": created, "comment": message or f"Imported from {source}"}],
            }  # fmt: skip
            if wanted.variant:
                described["variant"] = wanted.variant
            entry = await tasks.in_thread(lambda: self._store(plain, described))
            return await self.finish(Found(entry, [name] if name else []), Progress())

        return await self.within(work)

    def _store(self, layer: Path, described: dict[str, Any]) -> Descriptor:
        blobs = self._layout.blobs
        with open(layer, "rb") as file:
            size = os.fstat(file.fileno()).st_size
            digest = blobs.take(file.fileno(), 0, size)
        described |= {"rootfs": {"type": "layers", "diff_ids": [digest]}}
        config = blobs.add(json.dumps(described).encode(), CONFIG)
        manifest = {
            "schemaVersion": 2, "mediaType": MANIFEST, "config": msgspec.to_builtins(config),
            "layers": [{"mediaType": LAYER, "digest": digest, "size": size}],
        }  # fmt: skip
        return blobs.add(json.dumps(manifest).encode(), MANIFEST)

    async def within(self, work: Callable[[Path], Awaitable[T]]) -> T:
        """Do it in a directory of its own, with what comes kept; where it fails, that goes."""
        self._admits()
        try:
            with storage_faults(self._layout.root), self._layout.blobs.lease(arriving=True):
                async with temporary_directory(self._staging) as directory:
                    return await work(directory)
        except BaseException:
            try:
                await self._collect()
            except HyperError as error:
                log.warning("what a failed load left cannot be removed yet: %s", error)
            raise

    async def receive(self, body: Body, path: Path, what: str) -> Path:
        """:raise InvalidArgument: it is larger than an image may be, or empty. :raise NoSpace: the disk is full."""
        size = 0
        with no_space_as_error(path.parent), open(path, "xb", buffering=0) as file:
            async for piece in body:
                size += len(piece)
                if size > self._limits.size:
                    raise beyond(f"{what} has more than {self._limits.size} bytes", "size")
                await asyncio.to_thread(write_all, file.fileno(), piece)
        if not size:
            raise InvalidArgument(f"{what} is empty", hint="check what was sent")
        return path

    async def finish(self, found: Found, progress: Progress, wanted: Platform | None = None) -> Loaded:
        """Give an image whose blobs are there its disk and its names.

        :raise InvalidArgument: it is none that can be run. :raise NotFound: it is not for the platform that is wanted.
        """
        entry = self._for(found, wanted)
        image = await asyncio.to_thread(self._layout.load, chosen(entry))
        self._check(image)
        what = parse_reference(found.names[0]).familiar if found.names else "of the archive"
        await self._disks.ensure(image, what, progress.update)
        replaced = {}
        before = self._layout.names()
        for name in found.names or [entry.digest]:
            old = before.get(name)
            if old and name != entry.digest and self._layout.id_of(old) != image.id:
                replaced[name] = self._layout.id_of(old)
            self._layout.set_name(name, choose(entry, image))
        for layer in image.manifest.layers:
            progress.update(layer.digest, "Loaded", layer.size, layer.size)
        return Loaded(image, found.names, replaced)

    def _for(self, found: Found, wanted: Platform | None) -> Descriptor:
        """Of several platforms the one that is wanted, else this machine's, else any."""
        variants = self._layout.variants(found.entry, found.brought)
        for variant in variants:
            if is_for(self._layout.load(chosen(variant)), wanted or parse_platform("")):
                return variant
        if wanted:
            raise NotFound(f"the archive has no image for {'/'.join(filter(None, wanted))}", hint="leave it out")
        return variants[0]

    def _check(self, image: StoredImage) -> None:
        if len(image.manifest.layers) > self._limits.layers:
            raise beyond(
                f"the image has {len(image.manifest.layers)} layers, more than {self._limits.layers}", "layers"
            )
        if image.manifest.config.size > DOCUMENT_MAX:
            raise InvalidArgument(f"the image's configuration is larger than {DOCUMENT_MAX} bytes")


def _told(what: str, work: Callable[[], T]) -> T:
    """With the subject before what is wrong."""
    try:
        return work()
    except (InvalidArgument, NotFound, Unsupported) as error:
        raise type(error)(f"{what} {error.message}", hint=error.hint) from error
