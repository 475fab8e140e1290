# SPDX-License-Identifier: Apache-2.0
"""An OCI image layout on disk: https://github.com/opencontainers/image-spec/blob/main/image-layout.md"""

from __future__ import annotations

import contextlib
import hashlib
import json
import logging
import os
from collections import OrderedDict
from collections.abc import Collection
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import msgspec

from ..errors import HyperError, InvalidArgument, NotFound
from ..model.units import format_binary
from ..sys.documents import UNREADABLE
from ..sys.files import write_atomically
from .limits import DOCUMENT_MAX

log = logging.getLogger(__name__)

INDEX = "application/vnd.oci.image.index.v1+json"
MANIFEST = "application/vnd.oci.image.manifest.v1+json"
CONFIG = "application/vnd.oci.image.config.v1+json"
LAYER = "application/vnd.oci.image.layer.v1.tar"
REF_NAME = "org.opencontainers.image.ref.name"
PRIVATE_DIRECTORY = 0o700
ID_NOTE = "org.hypercontainer.image.id"  # annotation of the index: the digest of the configuration
_KEPT, _KEPT_SIZE = 1024, 64 << 10  # decoded images in memory, each of at most so many bytes
_DOCKER_LIST = "application/vnd.docker.distribution.manifest.list.v2+json"


class Descriptor(msgspec.Struct, frozen=True, omit_defaults=True, rename="camel"):
    """A reference to a blob, with its size in bytes."""

    media_type: str
    digest: str
    size: int
    annotations: dict[str, str] = {}
    platform: dict[str, Any] | None = None


class Manifest(msgspec.Struct, frozen=True, rename="camel"):
    """An image manifest, OCI's or Docker's schema 2."""

    config: Descriptor
    layers: list[Descriptor]
    media_type: str = MANIFEST


class _RootFs(msgspec.Struct, frozen=True):
    diff_ids: list[str]


class ImageConfig(msgspec.Struct, frozen=True):
    """An image's configuration blob."""

    rootfs: _RootFs
    architecture: str = ""
    os: str = ""
    created: str = ""
    config: dict[str, Any] = {}


class _Index(msgspec.Struct, frozen=True, rename="camel"):
    manifests: list[Descriptor]
    media_type: str = ""


@dataclass(frozen=True)
class StoredImage:
    """A manifest of the layout, decoded."""

    digest: str  # of the manifest
    manifest: Manifest
    config: ImageConfig

    @property
    def id(self) -> str:
        return self.manifest.config.digest

    @property
    def chain_id(self) -> str:
        """The chain id of all layers: names the file tree that they make."""
        return chain_id(self.config.rootfs.diff_ids)


def chain_id(diff_ids: list[str]) -> str:
    """The name of a stack of layers, by the digests of what they unpack to.

    Its source is https://github.com/opencontainers/image-spec/blob/main/config.md#layer-chainid.
    """
    chain = "sha256:" + hashlib.sha256(b"").hexdigest()
    for index, diff in enumerate(diff_ids):
        chain = diff if index == 0 else "sha256:" + hashlib.sha256(f"{chain} {diff}".encode()).hexdigest()
    return chain


def is_index(raw: bytes) -> bool:
    """Whether a raw manifest is a list of manifests."""
    try:
        document = json.loads(raw)
    except (ValueError, RecursionError):
        return False
    return isinstance(document, dict) and (
        document.get("mediaType") in (INDEX, _DOCKER_LIST) or "manifests" in document
    )


def choose_platform(raw: bytes, os_: str, architecture: str, variant: str) -> Descriptor:
    """The manifest for a platform.

    :raise NotFound: when the index has none.
    """
    try:
        entries = msgspec.json.decode(raw, type=_Index).manifests
    except UNREADABLE as error:
        raise InvalidArgument(f"the index of the image cannot be read: {error}") from error
    for entry in entries:
        p = entry.platform or {}
        if (p.get("os"), p.get("architecture")) == (os_, architecture) and variant in ("", p.get("variant", "")):
            return entry
    have = sorted({f"{(e.platform or {}).get('os')}/{(e.platform or {}).get('architecture')}" for e in entries})
    raise NotFound(f"the image has no variant for {os_}/{architecture}", hint=f"it has {', '.join(have)}")


class Layout:
    """Blobs by digest, and an index whose entries carry the names. Nobody else writes to it."""

    def __init__(self, root: Path) -> None:
        self.root = root
        self.blobs = root / "blobs"
        self._names: tuple[tuple[int, ...], dict[str, Descriptor]] = ((), {})  # of which state of the file
        self._loaded: OrderedDict[str, StoredImage] = OrderedDict()

    def create(self) -> None:
        """Make what is missing; nothing of it is for others to read."""
        for directory in (self.root, self.blobs, self.blobs / "sha256"):
            directory.mkdir(parents=True, exist_ok=True, mode=PRIVATE_DIRECTORY)
            directory.chmod(PRIVATE_DIRECTORY)
        if not (self.root / "oci-layout").exists():
            write_atomically(self.root / "oci-layout", b'{"imageLayoutVersion":"1.0.0"}')
        try:
            self.names()
        except FileNotFoundError:
            self._write_index([])
        except UNREADABLE as error:
            aside = self.root / "index.json.damaged"
            log.error("the index of the images is damaged, and kept as %s; pull the images again: %s", aside, error)
            os.replace(self.root / "index.json", aside)
            self._write_index([])
        self.make_private()

    def make_private(self) -> None:
        """Take rights from others that an earlier version or skopeo gave them."""
        for directory in (self.root, self.blobs / "sha256"):
            for entry in os.scandir(directory):
                if entry.is_file(follow_symlinks=False) and entry.stat().st_mode & 0o077:
                    os.chmod(entry.path, 0o600)

    def blob(self, digest: str) -> Path:
        """Where the bytes of a digest are, or would be."""
        algorithm, _, value = digest.partition(":")
        if algorithm != "sha256" or len(value) != 64 or not value.isalnum():
            raise InvalidArgument(f"unknown digest {digest!r}")
        return self.blobs / algorithm / value

    def read_blob(self, digest: str) -> bytes:
        """A small blob, verified.

        :raise NotFound: when it is missing or its content has changed.
        :raise InvalidArgument: when it is not small.
        """
        try:
            with open(self.blob(digest), "rb") as f:
                data = f.read(DOCUMENT_MAX + 1)
        except FileNotFoundError:
            raise NotFound(f"blob {digest} is missing", hint="pull the image again") from None
        if len(data) > DOCUMENT_MAX:
            raise InvalidArgument(
                f"blob {digest} is larger than {format_binary(DOCUMENT_MAX)}, too large for a description of an image"
            )
        if "sha256:" + hashlib.sha256(data).hexdigest() != digest:
            self.blob(digest).unlink(missing_ok=True)
            raise NotFound(f"blob {digest} is corrupt and was removed", hint="pull the image again")
        return data

    def add_blob(self, data: bytes) -> Descriptor:
        """Store a blob; idempotent."""
        digest = "sha256:" + hashlib.sha256(data).hexdigest()
        if not self.blob(digest).exists():
            write_atomically(self.blob(digest), data)
        return Descriptor(media_type="", digest=digest, size=len(data))

    def load(self, digest: str) -> StoredImage:
        """Decode a manifest and its configuration; the usual ones are kept in memory.

        :raise NotFound: when a blob is missing.
        :raise InvalidArgument: when it is no image.
        """
        if image := self._loaded.get(digest):
            self._loaded.move_to_end(digest)
            return image
        raw = self.read_blob(digest)
        try:
            manifest = msgspec.json.decode(raw, type=Manifest)
            raw_config = self.read_blob(manifest.config.digest)
            config = msgspec.json.decode(raw_config, type=ImageConfig)
        except UNREADABLE as error:
            raise InvalidArgument(f"{digest} is not an image that can be run: {error}") from error
        if len(config.rootfs.diff_ids) != len(manifest.layers):
            raise InvalidArgument(
                f"image {digest} names {len(config.rootfs.diff_ids)} layers but has {len(manifest.layers)}"
            )
        image = StoredImage(digest, manifest, config)
        if len(raw) + len(raw_config) <= _KEPT_SIZE:
            self._loaded[digest] = image
            if len(self._loaded) > _KEPT:
                self._loaded.popitem(last=False)
        return image

    def names(self) -> dict[str, Descriptor]:
        """Name -> manifest; an image without a name has its digest as name."""
        path = self.root / "index.json"
        found = path.stat()
        state = (found.st_ino, found.st_mtime_ns, found.st_size)
        if self._names[0] != state:
            index = msgspec.json.decode(path.read_bytes(), type=_Index)
            self._names = (state, {d.annotations.get(REF_NAME, d.digest): d for d in index.manifests})
        return dict(self._names[1])

    def id_of(self, manifest: Descriptor) -> str:
        """The id of a named image, from the index; its digest when that does not have it and the image is damaged."""
        if id_ := manifest.annotations.get(ID_NOTE):
            return id_
        try:
            return self.load(manifest.digest).id
        except HyperError:
            return manifest.digest

    def set_name(self, name: str, manifest: Descriptor, id_: str = "") -> None:
        """Point a name (or, for an image without one, its digest) at a manifest; idempotent.

        An image that loses its last name this way stays, without a name.
        """
        names = self.names()
        if id_:
            manifest = msgspec.structs.replace(manifest, annotations={ID_NOTE: id_})
        if name == manifest.digest and any(d.digest == name for d in names.values()):
            return
        if name != manifest.digest:
            names.pop(manifest.digest, None)
        old = names.get(name)
        names[name] = manifest
        if old and all(d.digest != old.digest for d in names.values()):
            names[old.digest] = old
        self._write_names(names)

    def remove_names(self, gone: Collection[str]) -> None:
        """Take these names away; what they named stays until it is collected."""
        if gone:
            self._write_names({name: d for name, d in self.names().items() if name not in gone})

    def _write_names(self, names: dict[str, Descriptor]) -> None:
        entries = []
        for name, d in sorted(names.items()):
            notes = {ID_NOTE: d.annotations[ID_NOTE]} if ID_NOTE in d.annotations else {}
            notes |= {} if name == d.digest else {REF_NAME: name}
            entries.append(Descriptor(media_type=d.media_type, digest=d.digest, size=d.size, annotations=notes))
        self._write_index(entries)

    def _write_index(self, entries: list[Descriptor]) -> None:
        document = {"schemaVersion": 2, "mediaType": INDEX, "manifests": [msgspec.to_builtins(e) for e in entries]}
        write_atomically(self.root / "index.json", json.dumps(document, indent=1).encode())

    def needed(self) -> set[str]:
        """Digests of all blobs of named images, as far as damaged ones tell."""
        keep: set[str] = set()
        for descriptor in self.names().values():
            keep.add(descriptor.digest)
            with contextlib.suppress(HyperError, *UNREADABLE):
                manifest = msgspec.json.decode(self.read_blob(descriptor.digest), type=Manifest)
                keep |= {manifest.config.digest} | {layer.digest for layer in manifest.layers}
        return keep

    def collect_garbage(self) -> int:
        """Remove blobs that no named image needs; bytes freed."""
        freed, keep = 0, self.needed()
        for path in (self.blobs / "sha256").iterdir():
            if f"sha256:{path.name}" not in keep:
                freed += path.stat().st_size
                path.unlink()
        for digest in [d for d in self._loaded if d not in keep]:
            del self._loaded[digest]
        return freed
