# SPDX-License-Identifier: Apache-2.0
"""References: an OCI image layout whose index carries the names.

Its source is https://github.com/opencontainers/image-spec/blob/main/image-layout.md. An entry is what a name
stands for: a manifest, or an index of several platforms, kept as it came. Two annotations of our own say what
of it is in use here: the manifest that was chosen of an index, and the image's id. Entries that an earlier version
wrote name a manifest, and may lack both.
"""

from __future__ import annotations

import contextlib
import json
import logging
import os
from collections.abc import Callable, Collection
from pathlib import Path

import msgspec

from ..errors import HyperError, InvalidArgument
from ..sys.documents import UNREADABLE
from ..sys.files import write_atomically
from .blobs import PRIVATE_DIRECTORY, Blobs
from .documents import Documents
from .manifests import (
    DOCKER_LIST,
    INDEX,
    REF_NAME,
    Descriptor,
    ImageConfig,
    Index,
    Manifest,
    StoredImage,
    is_index,
    read_index,
)

log = logging.getLogger(__name__)

ID_NOTE = "org.hypercontainer.image.id"  # annotation of the index: the digest of the configuration
TENANT_NOTE = "org.hypercontainer.image.tenant"  # whose the name is; one that does not say is of no project
CHOSEN_NOTE = "org.hypercontainer.image.manifest"  # the digest of the manifest that is used of an index


def choose(entry: Descriptor, image: StoredImage) -> Descriptor:
    """An entry that stands for this image of it."""
    notes = {ID_NOTE: image.id} | ({CHOSEN_NOTE: image.digest} if image.digest != entry.digest else {})
    return msgspec.structs.replace(entry, annotations=notes)


def _whose(entry: Descriptor) -> tuple[str, str]:
    return entry.annotations.get(TENANT_NOTE, ""), entry.annotations.get(REF_NAME, entry.digest)


def chosen(entry: Descriptor) -> str:
    """The digest of the manifest that a name stands for on this machine."""
    return entry.annotations.get(CHOSEN_NOTE, entry.digest)


class Layout:
    """Blobs, and names for those that describe images. Nobody else writes to it.

    Names are a tenant's, and what they stand for is shared: `names` and what works with it sees those of who asks.
    """

    def __init__(self, root: Path, tenant: Callable[[], str | None] = lambda: "") -> None:
        """`tenant` says who asks: "" is no project, None the daemon itself."""
        self.root = root
        self.blobs = Blobs(root / "blobs")
        self.tenant = tenant
        self._state: tuple[int, ...] = ()  # of the file, when names were read from it
        self._names: dict[str, dict[str, Descriptor]] = {}  # by whose they are
        self._loaded = Documents[StoredImage]()
        self._indexes = Documents[list[Descriptor]]()

    def create(self) -> None:
        """Make what is missing; nothing of it is for others to read."""
        self.root.mkdir(parents=True, exist_ok=True, mode=PRIVATE_DIRECTORY)
        self.root.chmod(PRIVATE_DIRECTORY)
        self.blobs.create()
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
        for entry in os.scandir(self.root):
            if entry.is_file(follow_symlinks=False):
                os.chmod(entry.path, 0o600)  # an earlier version let others read it

    def load(self, digest: str) -> StoredImage:
        """Decode a manifest and its configuration; the usual ones are kept in memory.

        :raise NotFound: when a blob is missing.
        :raise InvalidArgument: when it is no image.
        """
        if image := self._loaded.get(digest):
            return image
        raw = self.blobs.read(digest)
        try:
            manifest = msgspec.json.decode(raw, type=Manifest)
            raw_config = self.blobs.read(manifest.config.digest)
            config = msgspec.json.decode(raw_config, type=ImageConfig)
        except UNREADABLE as error:
            raise InvalidArgument(f"{digest} is not an image that can be run: {error}") from error
        if len(config.rootfs.diff_ids) != len(manifest.layers):
            raise InvalidArgument(
                f"image {digest} names {len(config.rootfs.diff_ids)} layers but has {len(manifest.layers)}"
            )
        image = StoredImage(digest, manifest, config)
        self._loaded.keep(digest, image, len(raw) + len(raw_config))
        return image

    def names(self) -> dict[str, Descriptor]:
        """Name -> what it stands for; an image without a name has the digest of that as name, as has for the daemon
        itself what only projects have.
        """
        found = self._own_names()
        if self.tenant() is None:
            known = {(d.digest, chosen(d)) for d in found.values()}
            found |= {d.digest: d for d in self.entries() if (d.digest, chosen(d)) not in known}
        return found

    def _own_names(self) -> dict[str, Descriptor]:
        return dict(self._read().get(self.tenant() or "", {}))

    def entries(self) -> list[Descriptor]:
        """What all names stand for, whosever they are."""
        return [d for own in self._read().values() for d in own.values()]

    def own(self) -> set[str] | None:
        """The digests of blobs that images of the project that asks have; None where it is none: all count as its."""
        if not self.tenant():
            return None
        return set[str]().union(*(self.held(d) for d in self.names().values()))

    def held(self, entry: Descriptor) -> set[str]:
        """The digests of blobs that who asks has by a name. An index may tell of images that only others have."""
        return self.reach(chosen(entry)) | {entry.digest} if self.tenant() else self.reach(entry.digest)

    def has_layers(self, chain_id: str) -> bool:
        """Whether an image of the project that asks has these layers; outside of projects that is not asked."""
        return not self.tenant() or any(self._has_chain(d, chain_id) for d in self.names().values())

    def _has_chain(self, entry: Descriptor, chain_id: str) -> bool:
        try:
            return self.load(chosen(entry)).chain_id == chain_id
        except HyperError:
            return False

    def _read(self) -> dict[str, dict[str, Descriptor]]:
        path = self.root / "index.json"
        found = path.stat()
        state = (found.st_ino, found.st_mtime_ns, found.st_size)
        if self._state != state:
            names: dict[str, dict[str, Descriptor]] = {}
            for entry in msgspec.json.decode(path.read_bytes(), type=Index).manifests:
                whose, name = _whose(entry)
                names.setdefault(whose, {})[name] = entry
            self._state, self._names = state, names
        return self._names

    def id_of(self, entry: Descriptor) -> str:
        """The id of a named image, from the index; a digest when that does not have it and the image is damaged."""
        if id_ := entry.annotations.get(ID_NOTE):
            return id_
        try:
            return self.load(chosen(entry)).id
        except HyperError:
            return chosen(entry)

    def variants(self, entry: Descriptor, brought: Collection[str] | None = None) -> list[Descriptor]:
        """What a name can stand for here: of an index, each platform whose manifest and configuration are there; in a
        project only what it has chosen, or now brings: `brought` are digests of manifests.
        """
        if entry.media_type not in (INDEX, DOCKER_LIST) or (self.tenant() and brought is None):
            return [entry]
        found = []
        with contextlib.suppress(HyperError):
            for child in self._children(entry.digest):
                if self.tenant() and child.digest not in (brought or ()):
                    continue
                with contextlib.suppress(HyperError):
                    if self.blobs.has(child.digest):
                        found.append(choose(entry, self.load(child.digest)))
        return found or [entry]

    def _children(self, digest: str) -> list[Descriptor]:
        """What an index names. :raise HyperError: it is missing, or none."""
        if (children := self._indexes.get(digest)) is None:
            raw = self.blobs.read(digest)
            children = read_index(raw).manifests
            self._indexes.keep(digest, children, len(raw))
        return children

    def layers(self) -> dict[str, Descriptor]:
        """Layers of the images that have names, by the digests of what they unpack to."""
        found: dict[str, Descriptor] = {}
        for entry in self.names().values():
            with contextlib.suppress(HyperError):
                image = self.load(chosen(entry))
                for diff_id, layer in zip(image.config.rootfs.diff_ids, image.manifest.layers, strict=True):
                    if self.blobs.has(layer.digest):
                        found.setdefault(diff_id, layer)
        return found

    def set_name(self, name: str, entry: Descriptor, id_: str = "") -> None:
        """Point a name (or, for an image without one, its digest) at a manifest or an index; idempotent.

        An image that loses its last name this way stays, without a name.
        """
        names = self._own_names()
        if id_:
            entry = msgspec.structs.replace(entry, annotations=entry.annotations | {ID_NOTE: id_})
        if name == entry.digest and any(d.digest == name for d in names.values()):
            return
        if name != entry.digest:
            names.pop(entry.digest, None)
        old = names.get(name)
        names[name] = entry
        if old and all(d.digest != old.digest for d in names.values()):
            names[old.digest] = old
        self._write_names(names)

    def remove_names(self, gone: Collection[str], *, keeps: Descriptor | None = None) -> None:
        """Take these names away; what they named stays until it is collected, and what this `keeps` without a name."""
        if gone:
            left = {name: d for name, d in self._own_names().items() if name not in gone}
            self._write_names(left | ({keeps.digest: keeps} if keeps else {}))

    def _write_names(self, names: dict[str, Descriptor]) -> None:
        """Of who asks; those of others stay."""
        every, entries = self._read() | {self.tenant() or "": names}, []
        for whose, name, d in ((w, n, own[n]) for w, own in sorted(every.items()) for n in sorted(own)):
            notes = {note: d.annotations[note] for note in (ID_NOTE, CHOSEN_NOTE) if note in d.annotations}
            notes |= ({} if name == d.digest else {REF_NAME: name}) | ({TENANT_NOTE: whose} if whose else {})
            entries.append(Descriptor(media_type=d.media_type, digest=d.digest, size=d.size, annotations=notes))
        self._write_index(entries)

    def _write_index(self, entries: list[Descriptor]) -> None:
        document = {"schemaVersion": 2, "mediaType": INDEX, "manifests": [msgspec.to_builtins(e) for e in entries]}
        write_atomically(self.root / "index.json", json.dumps(document, indent=1).encode())

    def reach(self, digest: str) -> set[str]:
        """The digests of all blobs that a manifest or an index needs, as far as damaged ones tell."""
        keep = {digest}
        if image := self._loaded.get(digest):
            return keep.union(image.manifest.blobs())
        with contextlib.suppress(HyperError, *UNREADABLE):
            if self._indexes.get(digest) is None and not is_index(raw := self.blobs.read(digest)):
                return keep.union(msgspec.json.decode(raw, type=Manifest).blobs())
            for child in self._children(digest):
                keep |= self.reach(child.digest) if self.blobs.has(child.digest) else set()
        return keep

    def collect_garbage(self, keep: Collection[str], away: Callable[[Path], None]) -> int:
        """Put `away` blobs that are not among these, which names reach, and that no lease keeps; bytes freed."""
        freed = self.blobs.collect(keep, away)
        self._loaded.forget_others(keep)
        self._indexes.forget_others(keep)
        return freed
