# SPDX-License-Identifier: Apache-2.0
"""The image store: pull, find, tag, remove, prune.

images/oci-layout, index.json, blobs/   an OCI layout; names are in its index
images/disks/                           read-only disks by chain id
images/staging/                         pulls under way; emptied at start
"""

from __future__ import annotations

import asyncio
import json
import tarfile
import tempfile
from collections.abc import Awaitable, Callable
from dataclasses import dataclass
from pathlib import Path

import msgspec

from ..errors import Conflict, InvalidArgument, NotFound
from ..model.ids import short
from ..model.reference import Source, parse_reference, parse_source
from ..model.status import Image, RemovedImage
from ..sys.files import disk_usage, remove_tree
from . import builtin, skopeo
from .disk import FSTYPE, DiskBuilder
from .layout import REF_NAME, Descriptor, Layout, Manifest, StoredImage, choose_platform, is_index
from .progress import DownloadMeter, Progress
from .skopeo import Access, Platform

InUse = Callable[[], dict[str, list[str]]]  # image id -> names of the containers that use it


@dataclass(frozen=True)
class ImageDisk:
    """What a machine needs of an image."""

    path: Path
    fstype: str


@dataclass
class _Pull:
    task: asyncio.Task[StoredImage]
    progress: Progress
    waiting: int = 0


class ImageStore:
    """All images of one daemon; the only writer of its directory."""

    def __init__(self, root: Path, *, insecure: frozenset[str] = frozenset(), in_use: InUse = dict) -> None:
        self._layout = Layout(root)
        self._staging = root / "staging"
        self._disks = DiskBuilder(self._layout, root / "disks")
        self._disk_directory = root / "disks"
        self._insecure = insecure
        self._in_use = in_use
        self._pulls: dict[tuple[str, str], _Pull] = {}

    def open(self) -> None:
        """Create what is missing, clear what a crash left."""
        self._layout.create()
        remove_tree(self._staging)
        for directory in (self._staging, self._disk_directory):
            directory.mkdir(parents=True, exist_ok=True)
        for leftover in self._disk_directory.glob("*.tmp"):
            leftover.unlink()

    # -- finding ----------------------------------------------------------------

    def find(self, name: str) -> StoredImage:
        """An image by name, id or unique id prefix.

        :raise NotFound: when there is none.
        """
        return self._layout.load(self._resolve(name)[1].digest)

    def _resolve(self, name: str) -> tuple[str, Descriptor]:
        names = self._layout.names()
        plain = name.removeprefix("builtin:").removeprefix("docker://")
        try:
            reference = parse_reference(plain)
        except InvalidArgument:
            if not plain.startswith("sha256:"):
                raise
        else:
            for key in (reference.full, reference._replace(digest="").full):
                if key in names and reference.digest in ("", names[key].digest):
                    return key, names[key]
        prefix = plain.removeprefix("sha256:")
        if len(prefix) >= 3 and all(c in "0123456789abcdef" for c in prefix):
            found = {d.digest: (k, d) for k, d in names.items() if self._is_called(d, prefix)}
            if len(found) == 1:
                return next(iter(found.values()))
            if found:
                raise InvalidArgument(f"image id {plain!r} is ambiguous", hint="give more digits")
        raise NotFound(f"no such image: {name}", hint=f"pull it with `hyperctl pull {name}`")

    def _is_called(self, descriptor: Descriptor, prefix: str) -> bool:
        image = self._layout.load(descriptor.digest)
        return any(d.removeprefix("sha256:").startswith(prefix) for d in (image.id, image.digest))

    def describe(self, name: str) -> Image:
        image = self.find(name)
        names = [k for k, d in self._layout.names().items() if d.digest == image.digest and k != d.digest]
        return self._describe(image, names)

    def describe_all(self) -> list[Image]:
        by_digest: dict[str, list[str]] = {}
        for name, descriptor in self._layout.names().items():
            by_digest.setdefault(descriptor.digest, []).extend([name] if name != descriptor.digest else [])
        images = [self._describe(self._layout.load(d), names) for d, names in by_digest.items()]
        return sorted(images, key=lambda i: i.created, reverse=True)

    def _describe(self, image: StoredImage, names: list[str]) -> Image:
        disk = disk_usage(self._disks.path(image.chain_id))
        return Image(
            id=image.id,
            names=sorted(names),
            digest=image.digest,
            created=image.config.created,
            size=disk or sum(layer.size for layer in image.manifest.layers),
            architecture=image.config.architecture,
            os=image.config.os,
            layers=image.config.rootfs.diff_ids,
            config=image.config.config,
        )

    # -- pulling ----------------------------------------------------------------

    def pull(self, text: str, *, platform: str = "", auth: str = "") -> tuple[Progress, Awaitable[StoredImage]]:
        """Begin a pull, or join one of the same image; the awaitable gives the image.

        :raise InvalidArgument: when the reference or the platform is malformed.
        """
        source = parse_source(text)
        wanted = parse_platform(platform)
        key = (skopeo.spelled(source), f"{wanted} {auth}")
        pull = self._pulls.get(key)
        if pull is None:
            progress = Progress()
            task = asyncio.create_task(self._pull(source, wanted, Access(self._insecure, auth), progress))
            pull = self._pulls[key] = _Pull(task, progress)

            def ended(_: object) -> None:
                self._pulls.pop(key, None)
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
        try:
            with tempfile.TemporaryDirectory(dir=self._staging) as staging:
                name, descriptor = await self._fetch(Path(staging), source, platform, access, progress)
            finish = asyncio.ensure_future(self._finish(name, descriptor, progress))
            try:
                return await asyncio.shield(finish)
            except asyncio.CancelledError:
                return await finish  # all is there: the image is made rather than thrown away
        except BaseException:
            self._collect(own_pulls=1)
            raise

    async def _fetch(self, staging: Path, source: Source, platform: Platform, access: Access, progress: Progress) -> tuple[str, Descriptor]:
        """Bring all blobs into the layout; the image's name ("" for none) and manifest."""
        if source.transport == "builtin":
            return await asyncio.to_thread(builtin.builtin, source.location, self._layout)
        what = parse_reference(source.location).familiar if source.transport == "docker" else skopeo.spelled(source)
        meter = DownloadMeter(self._layout, staging, progress)
        progress.update("", f"Pulling {what}")
        pinned = source
        if source.transport == "docker":
            pinned, manifest = await self._manifest(source, platform, access, what)
            meter.expect(manifest)
        await skopeo.copy(pinned, access, platform, staging, self._layout.blobs, what, meter.tick)
        meter.tick()
        found = next(iter(Layout(staging).names().values()))
        descriptor = Descriptor(media_type=found.media_type, digest=found.digest, size=found.size)
        return await asyncio.to_thread(_name_of, source), descriptor

    async def _manifest(self, source: Source, platform: Platform, access: Access, what: str) -> tuple[Source, Manifest]:
        """The platform's manifest, for its sizes; and the source pinned to its digest."""
        raw = await skopeo.inspect_raw(source, access, what)
        if is_index(raw):
            chosen = choose_platform(raw, platform.os, platform.architecture, platform.variant)
            reference = parse_reference(source.location)._replace(tag="", digest=chosen.digest)
            source = Source("docker", reference.full)
            raw = await skopeo.inspect_raw(source, access, what)
        try:
            return source, msgspec.json.decode(raw, type=Manifest)
        except msgspec.DecodeError as error:
            raise InvalidArgument(f"cannot pull {what}: its manifest is not an image's: {error}") from error

    async def _finish(self, name: str, descriptor: Descriptor, progress: Progress) -> StoredImage:
        image = self._layout.load(descriptor.digest)
        progress.update("", "Converting")
        await self._disks.ensure(image, lambda layer, done, total: progress.update(layer, "Extracting", done, total))
        for layer in image.manifest.layers:
            progress.update(layer.digest, "Pull complete", layer.size, layer.size)
        self._layout.set_name(name or descriptor.digest, descriptor)
        progress.update("", f"Digest: {descriptor.digest}")
        return image

    async def disk(self, image: StoredImage) -> ImageDisk:
        """The disk of a stored image; remade when it was removed."""
        return ImageDisk(await self._disks.ensure(image, lambda *_: None), FSTYPE)

    # -- changing ---------------------------------------------------------------

    def tag(self, name: str, new: str) -> str:
        """Give an image a further name; the full new name."""
        reference = parse_reference(new)
        if reference.digest:
            raise InvalidArgument(f"cannot tag as {new!r}: a tag has no digest")
        self._layout.set_name(reference.full, self._resolve(name)[1])
        return reference.full

    def remove(self, name: str, *, force: bool = False) -> RemovedImage:
        """Remove a name, and with the last name the image.

        :raise Conflict: when containers use it.
        """
        key, descriptor = self._resolve(name)
        image = self._layout.load(descriptor.digest)
        siblings = [k for k, d in self._layout.names().items() if d.digest == descriptor.digest]
        by_id = self._is_id(name, key)
        if by_id and len(siblings) > 1 and not force:
            raise Conflict(f"image {short(image.id)} has {len(siblings)} names", hint="remove them by name, or use --force")
        goes = siblings if by_id else [key]
        users = self._in_use().get(image.id, [])
        if users and len(goes) == len(siblings):
            raise Conflict(f"image {name} is in use by container {', '.join(users)}", hint="remove the container first with `hyperctl rm`")
        for sibling in goes:
            self._layout.remove_name(sibling)
        untagged = [_familiar(k) for k in goes if k != descriptor.digest]
        if len(goes) < len(siblings):
            return RemovedImage(untagged=untagged)
        return RemovedImage(untagged=untagged, deleted=[image.id], freed=self._collect())

    @staticmethod
    def _is_id(name: str, key: str) -> bool:
        try:
            return parse_reference(name).full != key and parse_reference(name)._replace(digest="").full != key
        except InvalidArgument:
            return True

    def prune(self, *, everything: bool) -> RemovedImage:
        """Remove images without a name, or with `everything` all that no container uses."""
        used = self._in_use()
        untagged, deleted = [], []
        for name, descriptor in self._layout.names().items():
            image = self._layout.load(descriptor.digest)
            if image.id in used or not (everything or name == descriptor.digest):
                continue
            self._layout.remove_name(name)
            untagged += [_familiar(name)] if name != descriptor.digest else []
            deleted += [image.id] if image.id not in deleted else []
        return RemovedImage(untagged=untagged, deleted=deleted, freed=self._collect())

    def _collect(self, own_pulls: int = 0) -> int:
        """Remove blobs and disks of no image; not while another pull is about to name some."""
        if len(self._pulls) > own_pulls:
            return 0
        freed = self._layout.collect_garbage(set())
        kept = {self._disks.path(self._layout.load(d.digest).chain_id) for d in self._layout.names().values()}
        for disk in set(self._disk_directory.glob("*.sqfs")) - kept:
            freed += disk_usage(disk)
            disk.unlink()
        return freed


def _familiar(name: str) -> str:
    return parse_reference(name).familiar


def parse_platform(text: str) -> Platform:
    """:raise InvalidArgument: when it is not os/architecture[/variant]."""
    if not text:
        return Platform("linux", builtin.host_architecture())
    parts = text.split("/")
    if len(parts) not in (2, 3) or not all(parts):
        raise InvalidArgument(f"invalid platform {text!r}", hint="write it as linux/amd64")
    if parts[0] != "linux":
        raise InvalidArgument(f"platform {text!r} cannot run here", hint="only Linux images run on a Linux kernel")
    return Platform(*parts)


def _name_of(source: Source) -> str:
    """The name that a pulled image gets; "" when its archive has none."""
    if source.transport == "docker":
        return parse_reference(source.location).full
    if source.transport == "docker-daemon":
        return parse_reference(source.location).full
    path, _, name = source.location.partition(":")
    if source.transport == "docker-archive":
        if not name:
            with tarfile.open(path) as tar, tar.extractfile("manifest.json") or open("/dev/null", "rb") as f:
                name = (json.load(f)[0].get("RepoTags") or [""])[0]
        return parse_reference(name).full if name else ""
    if not name and source.transport == "oci":
        entries = json.loads((Path(path) / "index.json").read_bytes()).get("manifests", [])
        name = entries[0].get("annotations", {}).get(REF_NAME, "") if entries else ""
    try:
        return parse_reference(name).full if name else ""
    except InvalidArgument:
        return ""
