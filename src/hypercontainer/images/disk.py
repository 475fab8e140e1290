# SPDX-License-Identifier: Apache-2.0
"""Image disks: each made once, however many ask for it."""

from __future__ import annotations

import asyncio
import os
from collections.abc import Callable
from dataclasses import dataclass
from pathlib import Path

from ..sys.removal import unlinked
from .conversion import convert
from .layout import Layout
from .limits import Limits
from .manifests import StoredImage

FSTYPE = "erofs"
SUFFIX = ".erofs"
Report = Callable[[str, str, int, int], None]  # layer's digest or "", what is done, bytes done, bytes in all


@dataclass
class _Building:
    task: asyncio.Task[Path]
    waiting: int = 0


class DiskBuilder:
    """Makes each image disk once, however many ask for it."""

    def __init__(self, layout: Layout, directory: Path, limits: Limits) -> None:
        self._layout = layout
        self._directory = directory
        self._limits = limits
        self._building: dict[tuple[str, str], _Building] = {}  # by chain id, and whose

    def path(self, chain_id: str) -> Path:
        """Where the disk of these layers is, or would be."""
        return self._directory / f"{chain_id.removeprefix('sha256:')}{SUFFIX}"

    async def ensure(self, image: StoredImage, what: str, report: Report) -> Path:
        """The disk of an image, made when it is not there; idempotent, safe to call at once. For a project that has no
        image of these layers yet it is made though another has it: how long that takes would tell.

        The conversion ends with the last that waits for it. `what` is the image's name for messages.

        :raise HyperError: what `convert` raises.
        """
        path, key = self.path(image.chain_id), (image.chain_id, self._layout.tenant() or "")
        if path.exists() and self._layout.has_layers(image.chain_id):
            return path
        building = self._building.get(key)
        if building is None or building.task.cancelling():
            building = _Building(asyncio.create_task(self._build(image, what, path, report)))
            self._building[key] = building
            building.task.add_done_callback(lambda task: self._forget(key, task))
        building.waiting += 1
        try:
            return await asyncio.shield(building.task)
        finally:
            building.waiting -= 1
            if not building.waiting and not building.task.done():
                building.task.cancel()
                await asyncio.wait([building.task])  # so that nothing of it is left when the caller goes on

    def _forget(self, key: tuple[str, str], task: asyncio.Task[Path]) -> None:
        if (building := self._building.get(key)) and building.task is task:
            del self._building[key]
        if not task.cancelled():
            task.exception()  # told to those who waited; when none did, nobody misses it

    async def _build(self, image: StoredImage, what: str, path: Path, report: Report) -> Path:
        layers = image.manifest.layers
        blobs = [self._layout.blobs.path(layer.digest) for layer in layers]
        temporary = path.with_name(f"{path.name}.{os.urandom(4).hex()}.tmp")
        try:
            without_acl = await convert(
                image,
                what,
                blobs,
                temporary,
                self._limits,
                lambda i, done: report(layers[i].digest, "Extracting", done, layers[i].size),
            )
            if without_acl:
                why = "which are damaged or name users without numbers"
                report("", f"Left out: the access control lists of {without_acl} entries, {why}", 0, 0)
            if not path.exists():  # machines have it open
                os.rename(temporary, path)
        finally:
            await unlinked(temporary)
        return path
