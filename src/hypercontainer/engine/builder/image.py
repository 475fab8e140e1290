# SPDX-License-Identifier: Apache-2.0
"""The builder's own image: what `make builder-image` made, or one that the configuration names.

`hyperbuilder/build.py` puts each build into a directory named by the hash of what went into it, an archive with a
`builder.json` beside it that has the image's name.
"""

from __future__ import annotations

import asyncio
import json
from collections.abc import AsyncIterator
from dataclasses import dataclass
from pathlib import Path

from ...errors import NotFound, Unavailable
from ...images.progress import Progress
from ...images.store import ImageStore
from ...sys.caches import cache_directory

SYSTEM = Path("/usr/share/hypercontainer/builder")
_CHUNK = 1 << 20  # bytes


@dataclass(frozen=True)
class Archive:
    """An image that was made here, and its name."""

    path: Path
    name: str


def locate() -> Archive:
    """This user's newest, or the system's. :raise Unavailable: there is none."""
    made = sorted(cache_directory("builder").glob("*/builder.json"), key=lambda p: p.stat().st_mtime, reverse=True)
    for path in [*made, SYSTEM / "builder.json"]:
        try:
            found = Archive(path.with_name("image.tar"), json.loads(path.read_text())["image"])
        except (OSError, ValueError, KeyError):
            continue
        if found.path.exists():
            return found
    raise Unavailable(
        "there is nothing that builds images",
        hint="make it with `make builder-image`, or name an image: `image` of [builder] in hyperd.toml",
    )


async def ensure(images: ImageStore, wanted: str) -> str:
    """Have the image in the store; its name. `wanted` is the configuration's, "" for the one made here.

    :raise Unavailable: there is none. :raise HyperError: it cannot be fetched, or is none.
    """
    archive = None if wanted else locate()
    name = archive.name if archive else wanted
    try:
        images.find(name)
    except NotFound:
        if archive:
            await images.loader.load(_read(archive.path), Progress())
        else:
            await images.pull(name)[1]
    return name


async def _read(path: Path) -> AsyncIterator[bytes]:
    with open(path, "rb") as file:
        while data := await asyncio.to_thread(file.read, _CHUNK):
            yield data
