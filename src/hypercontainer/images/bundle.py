# SPDX-License-Identifier: Apache-2.0
"""What is in an archive of images: which parts of the file are its blobs.

The process without rights tells where they are; nothing of that is believed but by its digest.
"""

from __future__ import annotations

import json
from collections.abc import Mapping
from dataclasses import dataclass
from typing import Any

import msgspec

from ..errors import InvalidArgument
from ..model.reference import parse_reference
from ..sys.documents import UNREADABLE
from .blobs import Blobs
from .limits import DOCUMENT_MAX
from .manifests import CONFIG, INDEX, LAYER, MANIFEST, REF_NAME, Descriptor, Index, Manifest, is_index, media_type
from .save import CONTAINERD_NAME

_LINKS_MAX = 8


class Table(msgspec.Struct, frozen=True):
    """Of one archive: names -> offset and size, names -> what they are links to, and its documents as text."""

    members: dict[str, tuple[int, int]] = {}
    links: dict[str, str] = {}
    documents: dict[str, str] = {}
    appc: bool = False  # it is an App Container image, of which there is no more to be said here


class _Image(msgspec.Struct, frozen=True, rename="pascal"):
    """An entry of Docker's manifest.json."""

    config: str
    layers: list[str]
    repo_tags: list[str] | None = None


@dataclass(frozen=True)
class Found:
    """An image of an archive, whose blobs are in the store now."""

    entry: Descriptor
    names: list[str]
    brought: frozenset[str] = frozenset()  # digests of manifests that the archive has with all that they need


class Bundle:
    """Takes the blobs of an open archive into the store."""

    def __init__(
        self, source: int, size: int, table: Table, blobs: Blobs, shared: Mapping[str, Descriptor] | None = None
    ) -> None:
        """`shared` are layers of our store by the digests of what is in them, which take the place of the archive's."""
        self._shared = shared or {}
        self._ours = {layer.digest for layer in self._shared.values()}
        self._source = source
        self._size = size
        self._table = table
        self._blobs = blobs
        self._whole: set[str] = set()

    @property
    def kind(self) -> str:
        """As a policy calls it."""
        return "docker-archive" if "manifest.json" in self._table.documents else "oci-archive"

    def take(self) -> list[Found]:
        """All of its images.

        :raise InvalidArgument: it has none, or something is missing or damaged. :raise NoSpace: the disk is full.
        """
        documents = self._table.documents
        try:
            if "index.json" in documents and (entries := self._entries(documents["index.json"])):
                return self._merged([Found(self._oci(e), _names(e)) for e in entries])
            if "manifest.json" in documents:
                images = msgspec.json.decode(documents["manifest.json"], type=list[_Image])
                return [Found(self._docker(i), [n for t in i.repo_tags or [] if (n := _name(t))]) for i in images]
        except UNREADABLE as error:
            raise InvalidArgument(f"is damaged: {error}") from error
        raise InvalidArgument("is not an archive of images", hint="check what the file is")

    def _entries(self, text: str) -> list[Descriptor]:
        """Of an OCI layout, as far as they are in it."""
        return [e for e in msgspec.json.decode(text, type=Index).manifests if _path(e.digest) in self._table.members]

    def _merged(self, found: list[Found]) -> list[Found]:
        """An image that has several names has an entry for each."""
        brought = frozenset(self._whole)
        names: dict[str, list[str]] = {}
        for each in found:
            names.setdefault(each.entry.digest, []).extend(each.names)
        first = {each.entry.digest: each.entry for each in found}
        return [Found(first[digest], every, brought) for digest, every in names.items()]

    def _oci(self, entry: Descriptor) -> Descriptor:
        raw = self._small(_path(entry.digest), entry.digest)
        if is_index(raw):
            children = msgspec.json.decode(raw, type=Index).manifests
            there = [c for c in children if _path(c.digest) in self._table.members]
            if not there:
                raise InvalidArgument(f"is incomplete: it has no image of the index {entry.digest}")
            for child in there:
                self._oci(child)
            return Descriptor(media_type=media_type(raw, INDEX), digest=entry.digest, size=len(raw))
        manifest = msgspec.json.decode(raw, type=Manifest)
        if any(layer.digest in self._shared for layer in manifest.layers):
            return self._sharing(raw, manifest)
        for digest in manifest.blobs():
            self._part(_path(digest), digest)
        self._whole.add(entry.digest)
        return Descriptor(media_type=media_type(raw, MANIFEST), digest=entry.digest, size=len(raw))

    def _sharing(self, raw: bytes, manifest: Manifest) -> Descriptor:
        """The same image, with layers that we have in place of its own; its id is that of its configuration."""
        layers = [self._shared.get(layer.digest, layer) for layer in manifest.layers]
        for blob in [manifest.config, *(x for x in layers if x.digest not in self._ours)]:
            self._part(_path(blob.digest), blob.digest)
        document = json.loads(raw) | {"layers": [msgspec.to_builtins(layer) for layer in layers]}
        return self._blobs.add(json.dumps(document).encode(), media_type(raw, MANIFEST))

    def _docker(self, image: _Image) -> Descriptor:
        """The configuration stays as it is, so the image keeps its id; a manifest is made."""
        config = self._blobs.add(self._small(image.config), CONFIG)
        layers = []
        for name in image.layers:
            at, size = self._place(name)
            digest = self._blobs.take(self._source, at, size)
            with open(self._blobs.path(digest), "rb") as file:
                kind = {b"\x1f\x8b": "+gzip", b"\x28\xb5": "+zstd"}.get(file.read(2), "")
            own = Descriptor(media_type=f"{LAYER}{kind}", digest=digest, size=size)
            layers.append(self._shared.get(digest, own))
        document = {
            "schemaVersion": 2,
            "mediaType": MANIFEST,
            "config": msgspec.to_builtins(config),
            "layers": [msgspec.to_builtins(layer) for layer in layers],
        }
        return self._blobs.add(json.dumps(document).encode(), MANIFEST)

    def _small(self, name: str, digest: str = "") -> bytes:
        at, size = self._place(name)
        if size > DOCUMENT_MAX:
            raise InvalidArgument(f"has a description {name!r} of {size} bytes, more than {DOCUMENT_MAX}")
        return self._blobs.read(self._blobs.take(self._source, at, size, digest))

    def _part(self, name: str, digest: str) -> None:
        at, size = self._place(name)
        self._blobs.take(self._source, at, size, digest)

    def _place(self, name: str) -> tuple[int, int]:
        """Offset and size, within the file."""
        for _ in range(_LINKS_MAX):
            if name in self._table.members:
                at, size = self._table.members[name]
                if 0 <= at <= at + size <= self._size:
                    return at, size
            if name not in self._table.links:
                break
            name = self._table.links[name]
        raise InvalidArgument(f"is incomplete: it has no {name!r}")


def _path(digest: str) -> str:
    return f"blobs/{digest.replace(':', '/', 1)}"


def _names(entry: Descriptor) -> list[str]:
    notes: dict[str, Any] = entry.annotations
    given = notes.get(CONTAINERD_NAME) or notes.get(REF_NAME, "")
    # A tag alone, as OCI has it, names nothing without its repository.
    name = _name(given) if CONTAINERD_NAME in notes or _has_repository(given) else ""
    return [name] if name else []


def _has_repository(given: str) -> bool:
    """Whether an annotation has more than a tag."""
    return ":" in given or "/" in given


def _name(given: str) -> str:
    try:
        return parse_reference(given).full if given else ""
    except InvalidArgument:
        return ""
