# SPDX-License-Identifier: Apache-2.0
"""The disks that a template boots with: an image with one program, an empty scratch disk, and blanks."""

from __future__ import annotations

import asyncio
import hashlib
import os
from pathlib import Path

from ...guest.initramfs import hyperstart_path
from ...hypervisor.driver import Disk
from ...images.disk import SUFFIX
from ...images.entry import Inode
from ...images.erofs.writer import Writer
from ...images.tree import Node, Tree
from ...volumes.scratch import ScratchDisks
from .shapes import IMAGE, SCRATCH, VOLUMES

PROGRAM = "/hyperstart"  # in the image


class Parts:
    """Makes them, all of one virtual size in bytes."""

    def __init__(self, cache: Path, scratch: ScratchDisks, slot_size: int) -> None:
        self.slot_size = slot_size
        self._cache = cache
        self._scratch = scratch
        self._lock = asyncio.Lock()

    async def disks(self, directory: Path, image: Path | None = None, scratch: Path | None = None) -> list[Disk]:
        """A disk for every slot: the image and its container's scratch disk, or those that a machine is exercised with.

        What lies in the directory is the machine's own.
        """
        if image is None or scratch is None:
            image, scratch = await self._image(), directory / "scratch.img"
            await self.scratch(scratch)
        blank = directory / "blank.img"
        self.blank(blank)
        return [Disk(IMAGE, image, True), Disk(SCRATCH, scratch, False), *(Disk(v, blank, False) for v in VOLUMES)]

    async def scratch(self, path: Path) -> None:
        """An empty scratch disk."""
        await self._scratch.create(path)

    def blank(self, path: Path) -> None:
        """What lies behind slots that nothing uses."""
        with open(path, "xb") as f:
            f.truncate(self.slot_size)

    async def _image(self) -> Path:
        program = hyperstart_path().read_bytes()
        path = self._cache / f"exercise-{hashlib.sha256(program).hexdigest()[:16]}-{self.slot_size >> 20}m{SUFFIX}"
        async with self._lock:
            if not path.exists():
                self._make_image(len(program), path)
        return path

    def _make_image(self, size: int, path: Path) -> None:
        """One of hyperstart alone, of `size` bytes."""
        tree = Tree()
        assert tree.root.children is not None
        program = Inode(b"0", 0o755, size=size, pieces=((0, 0, size),))
        tree.root.children[PROGRAM.lstrip("/").encode()] = Node(program, 0)
        temporary = path.with_suffix(".tmp")
        with open(hyperstart_path(), "rb") as source, open(temporary, "w+b") as out:
            Writer(out.fileno(), [(source.fileno(), 0)]).write(tree)
        os.truncate(temporary, self.slot_size)
        temporary.rename(path)
