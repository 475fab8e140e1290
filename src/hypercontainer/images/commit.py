# SPDX-License-Identifier: Apache-2.0
"""commit: an image that is another one and a layer above it.

Steps of its history are as https://github.com/opencontainers/image-spec/blob/main/config.md says.
"""

from __future__ import annotations

import json
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import msgspec

from ..model.moments import write_moment
from ..model.reference import tag_of
from ..sys import clock, tasks
from .bundle import Found
from .layout import Layout
from .load import Body, Loaded, Loader
from .manifests import CONFIG, LAYER, MANIFEST, Descriptor, StoredImage
from .progress import Progress

_EMPTY_MAX = 10240  # bytes of an archive with nothing in it, which are all 0


@dataclass(frozen=True)
class Addition:
    """What an image has beside those of the one below it: a configuration in whole, and one step of history."""

    config: dict[str, Any]
    name: str = ""  # "" for an image without one
    author: str = ""
    message: str = ""
    created_by: str = ""


class Committer:
    """Puts layers on images; what fails leaves nothing."""

    def __init__(self, layout: Layout, loader: Loader) -> None:
        self._layout = layout
        self._loader = loader

    async def commit(self, base: StoredImage, layer: Body, added: Addition) -> Loaded:
        """The layers below are shared; a layer without anything in it is none, as with Docker.

        :raise InvalidArgument: the name is malformed, or the layer damaged or beyond a limit.
        :raise NotFound: a blob of the image is missing. :raise NoSpace: the disk is full.
        """
        name = tag_of(added.name)
        raw = self._layout.blobs.read(base.id)

        async def work(directory: Path) -> Loaded:
            path = await self._loader.receive(layer, directory / "layer", "the container's layer")
            entry = await tasks.in_thread(lambda: self._store(base, json.loads(raw), path, added))
            return await self._loader.finish(Found(entry, [name] if name else []), Progress())

        with self._layout.blobs.lease([base.digest, *base.manifest.blobs()]):
            return await self._loader.within(work)

    def _store(self, base: StoredImage, document: dict[str, Any], path: Path, added: Addition) -> Descriptor:
        blobs, layers = self._layout.blobs, [_as_oci(layer) for layer in base.manifest.layers]
        with open(path, "rb") as file:
            size = path.stat().st_size
            empty = size <= _EMPTY_MAX and not any(file.read())
            if not empty:
                layers.append(Descriptor(media_type=LAYER, digest=blobs.take(file.fileno(), 0, size), size=size))
        created = write_moment(clock.now_ns())
        step = {"created": created, "created_by": added.created_by}
        step |= {"author": added.author} if added.author else {}
        step |= {"comment": added.message} if added.message else {}
        diff_ids = base.config.rootfs.diff_ids + ([] if empty else [layers[-1].digest])
        document |= {
            "created": created, "config": added.config, "rootfs": {"type": "layers", "diff_ids": diff_ids},
            "history": [*_history(document, base), step | ({"empty_layer": True} if empty else {})],
        }  # fmt: skip
        document.pop("author", None)
        document |= {"author": added.author} if added.author else {}
        for of_a_container in ("container", "container_config", "parent"):  # Docker's, and of the step before
            document.pop(of_a_container, None)
        config = blobs.add(json.dumps(document).encode(), CONFIG)
        manifest = {
            "schemaVersion": 2, "mediaType": MANIFEST, "config": msgspec.to_builtins(config),
            "layers": [msgspec.to_builtins(layer) for layer in layers],
        }  # fmt: skip
        return blobs.add(json.dumps(manifest).encode(), MANIFEST)


def _history(document: dict[str, Any], base: StoredImage) -> list[dict[str, Any]]:
    """Of the image below; layers of which it does not tell get a step, so that those that follow fit theirs."""
    steps = list(document.get("history") or [])
    told = sum(not step.get("empty_layer") for step in steps)
    return steps + [{"created": base.config.created}] * max(0, len(base.manifest.layers) - told)


def _as_oci(layer: Descriptor) -> Descriptor:
    """With OCI's name for what Docker calls `application/vnd.docker.image.rootfs.diff.tar.gzip`."""
    if not layer.media_type.startswith("application/vnd.docker."):
        return layer
    _, _, compression = layer.media_type.rpartition(".tar")
    kind = LAYER + {".gzip": "+gzip", ".zstd": "+zstd"}.get(compression, "")
    return Descriptor(media_type=kind, digest=layer.digest, size=layer.size)
