# SPDX-License-Identifier: Apache-2.0
"""The documents that describe images: indexes, manifests, configurations.

https://github.com/opencontainers/image-spec, and what Docker had before it (schema 2).
"""

from __future__ import annotations

import hashlib
import json
from dataclasses import dataclass
from typing import Any

import msgspec

from ..errors import InvalidArgument, NotFound
from ..sys.documents import UNREADABLE

INDEX = "application/vnd.oci.image.index.v1+json"
MANIFEST = "application/vnd.oci.image.manifest.v1+json"
CONFIG = "application/vnd.oci.image.config.v1+json"
LAYER = "application/vnd.oci.image.layer.v1.tar"
REF_NAME = "org.opencontainers.image.ref.name"
DOCKER_LIST = "application/vnd.docker.distribution.manifest.list.v2+json"


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

    def blobs(self) -> list[str]:
        """The digests of what it is made of."""
        return [self.config.digest, *(layer.digest for layer in self.layers)]


class Index(msgspec.Struct, frozen=True, rename="camel"):
    """A list of manifests: of one image for several platforms, or of all that is in a layout."""

    manifests: list[Descriptor]
    media_type: str = ""


class RootFs(msgspec.Struct, frozen=True):
    """What the layers are once they are uncompressed."""

    diff_ids: list[str]


class Step(msgspec.Struct, frozen=True):
    """One step of how an image was made; a step that changed no file has an empty layer."""

    created: str | None = ""
    created_by: str | None = ""
    comment: str | None = ""
    author: str | None = ""
    empty_layer: bool = False


class ImageConfig(msgspec.Struct, frozen=True):
    """An image's configuration blob."""

    rootfs: RootFs
    architecture: str = ""
    os: str = ""
    variant: str = ""
    created: str = ""
    author: str = ""
    config: dict[str, Any] = {}
    history: list[Step] | None = None


@dataclass(frozen=True)
class StoredImage:
    """A manifest of the store, decoded."""

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


def digest_of(data: bytes) -> str:
    """As a descriptor has it."""
    return "sha256:" + hashlib.sha256(data).hexdigest()


def chain_id(diff_ids: list[str]) -> str:
    """The name of a stack of layers, by the digests of what they unpack to.

    Its source is https://github.com/opencontainers/image-spec/blob/main/config.md#layer-chainid.
    """
    chain = digest_of(b"")
    for index, diff in enumerate(diff_ids):
        chain = diff if index == 0 else digest_of(f"{chain} {diff}".encode())
    return chain


def is_index(raw: bytes) -> bool:
    """Whether a raw manifest is a list of manifests."""
    try:
        document = json.loads(raw)
    except (ValueError, RecursionError):
        return False
    return isinstance(document, dict) and (document.get("mediaType") in (INDEX, DOCKER_LIST) or "manifests" in document)


def media_type(raw: bytes, default: str) -> str:
    """What kind of document it says it is; the default where it does not."""
    return str(json.loads(raw).get("mediaType") or default)


def read_index(raw: bytes) -> Index:
    """:raise InvalidArgument: when it is none."""
    try:
        return msgspec.json.decode(raw, type=Index)
    except UNREADABLE as error:
        raise InvalidArgument(f"the index of the image cannot be read: {error}") from error


def fits(entry: Descriptor, os_: str, architecture: str, variant: str = "") -> bool:
    """Whether an index's entry is for this platform."""
    p = entry.platform or {}
    return (p.get("os"), p.get("architecture")) == (os_, architecture) and variant in ("", p.get("variant", ""))


def choose_platform(raw: bytes, os_: str, architecture: str, variant: str) -> Descriptor:
    """The manifest for a platform.

    :raise NotFound: when the index has none.
    """
    entries = read_index(raw).manifests
    for entry in entries:
        if fits(entry, os_, architecture, variant):
            return entry
    have = sorted({text for entry in entries if (text := _platform(entry.platform or {}))})
    wanted = _platform({"os": os_, "architecture": architecture, "variant": variant})
    raise NotFound(f"the image has no variant for {wanted}", hint=f"it has {', '.join(have) or 'none that is named'}")


def _platform(entry: dict[str, Any]) -> str:
    """For people; "" of what is no image, as attestations, which buildx files under unknown/unknown."""
    named = [str(entry.get(part, "")) for part in ("os", "architecture", "variant")]
    return "" if named[0] in ("", "unknown") else "/".join(filter(None, named))
