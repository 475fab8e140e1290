# SPDX-License-Identifier: Apache-2.0
"""Roots for tests: small files in a directory, whatever an image is called."""

from __future__ import annotations

import shutil
from collections.abc import Container
from pathlib import Path

from ..errors import NotFound
from .root import DiskRoot
from .store import ImageDisk


class FakeRoots:
    """`images` are the ids of those that there are."""

    def __init__(self, directory: Path, images: Container[str] = ("image",)) -> None:
        self._directory = directory
        self._images = images

    def _own(self, container: str) -> Path:
        return self._directory / f"{container}.own"

    async def create(self, container: str, *, base: str = "") -> None:
        if base:
            shutil.copyfile(self._own(base), self._own(container))
        else:
            self._own(container).touch()

    async def prepare(self, container: str, image: str) -> DiskRoot:
        disk = await self.image(image)
        return DiskRoot(disk.path, disk.fstype, self._own(container))

    async def image(self, image: str) -> ImageDisk:
        if image not in self._images:
            raise NotFound(f"no such image: {image}")
        disk = self._directory / f"{image}.disk"
        disk.touch()
        return ImageDisk(disk, "fake")

    async def release(self, container: str) -> None:
        self._own(container).unlink(missing_ok=True)
