# SPDX-License-Identifier: Apache-2.0
"""Images as an archive: an OCI layout in a tar, for Docker's kind with its manifest.json, as `docker save` has both.

Its sources are the image layout of OCI, and "Docker image specification v1.2" for manifest.json.
"""

from __future__ import annotations

import asyncio
import hashlib
import json
import tarfile
from collections.abc import AsyncGenerator, Sequence
from typing import Any

import msgspec

from ..errors import InternalError, InvalidArgument, NotFound
from ..model.reference import parse_reference
from .layout import Layout, chosen
from .manifests import INDEX, REF_NAME, Descriptor

KINDS = ("docker-archive", "oci-archive")
CONTAINERD_NAME = "io.containerd.image.name"
_CHUNK = 1 << 20  # bytes


async def save(layout: Layout, images: Sequence[tuple[str, Descriptor]], kind: str) -> AsyncGenerator[bytes, None]:
    """The archive, piece by piece; blobs that images share are in it once. A name of "" is that of an image by its id.

    :raise InvalidArgument: no such kind. :raise NotFound: a blob is missing; before the first piece.
    """
    if kind not in KINDS:
        raise InvalidArgument(f"unknown kind of archive {kind!r}", hint=f"use one of {', '.join(KINDS)}")
    blobs = sorted({d for _, entry in images for d in layout.reach(entry.digest)})
    with layout.blobs.lease(blobs):
        for digest in blobs:
            if not layout.blobs.has(digest):
                raise NotFound(f"blob {digest} is missing", hint="pull the image again")
        documents = {"oci-layout": {"imageLayoutVersion": "1.0.0"}, "index.json": _index(images)}
        if kind == "docker-archive":
            documents["manifest.json"] = _manifest(layout, images)
        for digest in blobs:
            async for piece in _blob(layout, digest):
                yield piece
        for name, document in documents.items():
            data = json.dumps(document).encode()
            yield _header(name, len(data)) + data + _padding(len(data))
        yield bytes(1024)


def _index(images: Sequence[tuple[str, Descriptor]]) -> Any:
    entries = []
    for name, entry in images:
        notes = {CONTAINERD_NAME: name, REF_NAME: name} if name else {}
        plain = Descriptor(media_type=entry.media_type, digest=entry.digest, size=entry.size, annotations=notes)
        entries.append(msgspec.to_builtins(plain))
    return {"schemaVersion": 2, "mediaType": INDEX, "manifests": entries}


def _manifest(layout: Layout, images: Sequence[tuple[str, Descriptor]]) -> Any:
    """Docker's: an image with all of its names, for the platform that is in use."""
    found: dict[str, list[str]] = {}
    for name, entry in images:
        tags = found.setdefault(chosen(entry), [])
        if name:
            tags.append(parse_reference(name).familiar)
    entries = []
    for digest, tags in found.items():
        manifest = layout.load(digest).manifest
        entries.append({"Config": _path(manifest.config.digest), "RepoTags": tags or None,
                        "Layers": [_path(layer.digest) for layer in manifest.layers]})  # fmt: skip
    return entries


def _path(digest: str) -> str:
    return f"blobs/{digest.replace(':', '/')}"


def _header(name: str, size: int) -> bytes:
    info = tarfile.TarInfo(name)
    info.size, info.mode = size, 0o644
    return info.tobuf(tarfile.PAX_FORMAT)


def _padding(size: int) -> bytes:
    return bytes(-size % 512)


async def _blob(layout: Layout, digest: str) -> AsyncGenerator[bytes, None]:
    """:raise InternalError: it is not what its name says, when it has been read."""
    found = hashlib.sha256()
    with open(layout.blobs.path(digest), "rb") as file:
        size = file.seek(0, 2)
        file.seek(0)
        yield _header(_path(digest), size)
        while data := await asyncio.to_thread(file.read, _CHUNK):
            await asyncio.to_thread(found.update, data)
            yield data
    if f"sha256:{found.hexdigest()}" != digest:
        raise InternalError(f"blob {digest} is damaged: pull the image again")
    yield _padding(size)
