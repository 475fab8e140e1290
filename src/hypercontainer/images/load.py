# SPDX-License-Identifier: Apache-2.0
"""load and import: images of archives that a client sends."""

from __future__ import annotations

import asyncio
import json
import logging
import os
import shutil
import tempfile
from collections.abc import AsyncIterator, Awaitable, Callable, Sequence
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any, TypeVar

import msgspec

from ..errors import HyperError, InvalidArgument
from ..model.moments import write_moment
from ..model.reference import parse_reference
from ..sys import clock, tasks
from ..sys.documents import UNREADABLE
from ..sys.files import no_space_as_error
from .builtin import host_architecture
from .bundle import Bundle, Found, Table
from .changes import apply_changes
from .conversion import table_of, unpacked
from .disk import DiskBuilder
from .faults import storage_faults
from .layout import Layout, choose, chosen
from .limits import DOCUMENT_MAX, Limits, beyond
from .manifests import CONFIG, LAYER, MANIFEST, Descriptor, StoredImage
from .progress import Progress
from .pull import parse_platform
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


class Loader:
    """Takes archives in; what fails leaves nothing."""

    def __init__(
        self, layout: Layout, staging: Path, disks: DiskBuilder, limits: Limits, collect: Callable[[], object],
        trust: Trust,
    ) -> None:  # fmt: skip
        """`collect` removes blobs of no image."""
        self._layout = layout
        self._staging = staging
        self._disks = disks
        self._limits = limits
        self._collect = collect
        self._trust = trust

    async def load(self, body: Body, progress: Progress) -> list[Loaded]:
        """All images of an archive of Docker's kind or of OCI's, compressed or not.

        :raise InvalidArgument: it is none, damaged, or beyond a limit. :raise PermissionDenied: the policy refuses it.
        """

        async def work(directory: Path) -> list[Loaded]:
            progress.update("", "Receiving")
            path = await self._receive(body, directory / "archive", "the archive")
            text, plain = await table_of(path, "the archive", directory, self._limits)
            try:
                table = msgspec.json.decode(text, type=Table)
            except UNREADABLE as error:
                raise InvalidArgument(f"the archive is damaged: {error}") from error
            with open(plain, "rb") as file:
                bundle = Bundle(file.fileno(), os.fstat(file.fileno()).st_size, table, self._layout.blobs)
                self._trust.require(bundle.kind, "the archive")
                progress.update("", "Reading")
                found = await tasks.in_thread(lambda: _told("the archive", bundle.take))
            return [await self._finish(each, progress) for each in found]

        return await self._within(work)

    async def import_(
        self, body: Body, *, reference: str, message: str, changes: Sequence[str], platform: str, source: str
    ) -> Loaded:
        """An image whose one layer is an archive of files.

        :raise InvalidArgument: it is none, or what is said of it is malformed.
        :raise PermissionDenied: the policy refuses it.
        """
        name = _tag(reference)
        wanted = parse_platform(platform)
        config = apply_changes({}, changes)
        self._trust.require("tarball", "the archive")

        async def work(directory: Path) -> Loaded:
            path = await self._receive(body, directory / "archive", "the archive")
            plain = await unpacked(path, "the archive", directory, self._limits)
            created = write_moment(clock.now_ns())
            described: dict[str, Any] = {
                "created": created, "os": wanted.os, "architecture": wanted.architecture or host_architecture(),
                "config": config, "history": [{"created": created, "comment": message or f"Imported from {source}"}],
            }  # fmt: skip
            if wanted.variant:
                described["variant"] = wanted.variant
            entry = await tasks.in_thread(lambda: self._store(plain, described))
            return await self._finish(Found(entry, [name] if name else []), Progress())

        return await self._within(work)

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

    async def _within(self, work: Callable[[Path], Awaitable[T]]) -> T:
        """Do it in a directory of its own, with what comes kept; where it fails, that goes."""
        try:
            with storage_faults(self._layout.root), self._layout.blobs.lease(arriving=True):
                directory = Path(tempfile.mkdtemp(dir=self._staging))
                try:
                    return await work(directory)
                finally:
                    shutil.rmtree(directory, ignore_errors=True)
        except BaseException:
            try:
                self._collect()
            except HyperError as error:
                log.warning("what a failed load left cannot be removed yet: %s", error)
            raise

    async def _receive(self, body: Body, path: Path, what: str) -> Path:
        """:raise InvalidArgument: it is larger than an image may be, or empty. :raise NoSpace: the disk is full."""
        size = 0
        with no_space_as_error(path.parent), open(path, "xb", buffering=0) as file:
            async for piece in body:
                size += len(piece)
                if size > self._limits.size:
                    raise beyond(f"{what} has more than {self._limits.size} bytes", "size")
                await asyncio.to_thread(_write, file.fileno(), piece)
        if not size:
            raise InvalidArgument(f"{what} is empty", hint="check what was sent")
        return path

    async def _finish(self, found: Found, progress: Progress) -> Loaded:
        entry = self._for_this_machine(found.entry)
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

    def _for_this_machine(self, entry: Descriptor) -> Descriptor:
        variants = self._layout.variants(entry)
        for variant in variants:
            config = self._layout.load(chosen(variant)).config
            if (config.os, config.architecture) == ("linux", host_architecture()):
                return variant
        return variants[0]

    def _check(self, image: StoredImage) -> None:
        if len(image.manifest.layers) > self._limits.layers:
            raise beyond(
                f"the image has {len(image.manifest.layers)} layers, more than {self._limits.layers}", "layers"
            )
        if image.manifest.config.size > DOCUMENT_MAX:
            raise InvalidArgument(f"the image's configuration is larger than {DOCUMENT_MAX} bytes")


def _told(what: str, work: Callable[[], list[Found]]) -> list[Found]:
    """With the subject before what is wrong."""
    try:
        return work()
    except InvalidArgument as error:
        raise InvalidArgument(f"{what} {error.message}", hint=error.hint) from error


def _tag(reference: str) -> str:
    """:raise InvalidArgument: it is malformed, or has a digest."""
    if not reference:
        return ""
    found = parse_reference(reference)
    if found.digest:
        raise InvalidArgument(f"cannot name an image {reference!r}: a tag has no digest")
    return found.full


def _write(fd: int, data: bytes) -> None:
    left = memoryview(data)
    while left:
        left = left[os.write(fd, left) :]
