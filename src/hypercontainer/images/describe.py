# SPDX-License-Identifier: Apache-2.0
"""Images as they are shown: what `inspect`, `images` and `history` tell."""

from __future__ import annotations

import contextlib
from collections.abc import Callable, Sequence

import msgspec

from ..errors import HyperError
from ..model.filters import Filters, before_until, flag, has_labels
from ..model.images import HistoryEntry, Image, ImageDisk, RootFs
from ..model.moments import read_moment
from ..model.reference import name_matches, parse_reference
from ..sys.trees import disk_usage
from .disk import FSTYPE, DiskBuilder
from .layout import Layout, chosen
from .manifests import Descriptor, StoredImage

FILTERS = ("reference", "dangling", "before", "since", "until", "label")
Named = tuple[str, Descriptor]  # a name, and what it stands for
MISSING = "<missing>"


def describe(layout: Layout, disks: DiskBuilder, image: StoredImage, entries: Sequence[Named]) -> Image:
    """All about an image; `entries` are its names."""
    path, config = disks.path(image.chain_id), image.config
    disk = disk_usage(path)
    named = sorted((name, entry) for name, entry in entries if name != entry.digest)
    references = [(parse_reference(name), entry) for name, entry in named]
    digests = {r._replace(tag="", digest=entry.digest).familiar for r, entry in references}
    platforms = [layout.load(chosen(v)).config for v in layout.variants(entries[0][1])] if entries else []
    history = config.history or []
    return Image(
        id=image.id,
        names=[name for name, _ in named],
        digest=image.digest,
        created=config.created,
        size=disk or sum(layer.size for layer in image.manifest.layers),
        architecture=config.architecture,
        os=config.os,
        variant=config.variant,
        author=config.author,
        comment=(history[-1].comment or "") if history else "",
        layers=config.rootfs.diff_ids,
        config=config.config,
        repo_tags=[r.familiar for r, _ in references if r.tag],
        repo_digests=sorted(digests),
        root_fs=RootFs(layers=config.rootfs.diff_ids),
        graph_driver=ImageDisk(name=FSTYPE, data={"disk": str(path)} if disk else {}),
        platforms=["/".join(filter(None, (p.os, p.architecture, p.variant))) for p in platforms],
    )


def damaged(id_: str, entries: Sequence[Named], error: HyperError) -> Image:
    """One of which nothing is known but its names."""
    named = sorted(name for name, entry in entries if name != entry.digest)
    return Image(
        id=id_, names=named, digest=entries[0][1].digest, created="", size=0, architecture="", os="", layers=[],
        config={}, damaged=error.message, repo_tags=[parse_reference(name).familiar for name in named],
    )  # fmt: skip


def history(image: StoredImage, tags: list[str]) -> list[HistoryEntry]:
    """Steps, the last one first; layers that no step tells of are steps without words."""
    layers = [layer.size for layer in image.manifest.layers]
    steps = image.config.history or []
    found: list[HistoryEntry] = []
    for step in steps:
        size = 0 if step.empty_layer or not layers else layers.pop(0)
        created, by, comment = step.created or "", step.created_by or "", step.comment or ""
        found.append(HistoryEntry(id=MISSING, created=created, created_by=by, size=size, comment=comment))
    found += [HistoryEntry(id=MISSING, created=image.config.created, created_by="", size=size) for size in layers]
    if found:
        last = found[-1]
        found[-1] = HistoryEntry(
            id=image.id, created=last.created, created_by=last.created_by, size=last.size, comment=last.comment,
            tags=tags,
        )  # fmt: skip
    return found[::-1]


def select(images: list[Image], filters: Filters, find: Callable[[str], Image]) -> list[Image]:
    """Those that all filters let through; of `reference` any will do, and only names that it lets through are shown.

    :raise NotFound: `before` or `since` name no image. :raise InvalidArgument: a value is none.
    """
    dangling = flag(filters, "dangling")
    before = [_moment(find(name)) for name in filters.get("before", [])]
    since = [_moment(find(name)) for name in filters.get("since", [])]
    return [
        _named_by(image, filters.get("reference", []))
        for image in images
        if (dangling is None or bool(image.names) != dangling)
        and ("reference" not in filters or any(name_matches(n, p) for n in image.names for p in filters["reference"]))
        and all(_moment(image) < limit for limit in before)
        and all(_moment(image) > limit for limit in since)
        and before_until(image.created, filters)
        and has_labels(labels(image), filters)
    ]


def _named_by(image: Image, patterns: list[str]) -> Image:
    """With those of its names that match one of the patterns, if there are any patterns."""
    if not patterns:
        return image

    def matching(names: list[str]) -> list[str]:
        return [n for n in names if any(name_matches(n, p) for p in patterns)]

    return msgspec.structs.replace(
        image, names=matching(image.names), repo_tags=matching(image.repo_tags),
        repo_digests=matching(image.repo_digests),
    )  # fmt: skip


def labels(image: Image) -> dict[str, str]:
    """What its configuration says, as far as it is text."""
    found = image.config.get("Labels")
    return {str(k): str(v) for k, v in found.items()} if isinstance(found, dict) else {}


def _moment(image: Image) -> int:
    with contextlib.suppress(HyperError):
        return read_moment(image.created) if image.created else 0
    return 0
