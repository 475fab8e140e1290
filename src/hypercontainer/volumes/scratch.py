# SPDX-License-Identifier: Apache-2.0
"""Scratch disks: what a container writes over its image.

A disk is a sparse ext4, copied from an empty one that is made once; the copy
moves a few hundred kilobytes. The host never mounts it.
"""

from __future__ import annotations

import asyncio
from pathlib import Path

from ..sys import tasks
from ..sys.files import copy_sparse, make_sparse
from .tools import run_tool

DEFAULT_SIZE = 16 << 30  # bytes, virtual


class ScratchDisks:
    """Makes scratch disks of one size."""

    def __init__(self, cache: Path, size: int = DEFAULT_SIZE) -> None:
        self._size = size
        self._template = cache / f"blank-{size}.ext4"
        self._lock = asyncio.Lock()

    async def create(self, path: Path) -> None:
        """A fresh disk at a path that does not exist.

        :raise NoSpace: when the disk is full; nothing is left behind.
        """
        async with self._lock:
            if not self._template.exists():
                await self._make_template()
        await tasks.in_thread(lambda: copy_sparse(self._template, path))

    async def _make_template(self) -> None:
        temporary = self._template.with_suffix(".tmp")
        temporary.unlink(missing_ok=True)
        self._template.parent.mkdir(mode=0o700, parents=True, exist_ok=True)
        make_sparse(temporary, self._size)
        try:
            # A small journal and late tables keep the file, and so each copy, small.
            await run_tool(
                "mkfs.ext4", "e2fsprogs", "-q", "-F", "-m", "0", "-E",
                "lazy_itable_init=1,lazy_journal_init=1,nodiscard", "-O", "^resize_inode", "-J", "size=8", temporary,
            )  # fmt: skip
            # Programs that want an empty directory stumble over it; e2fsck makes it anew when it needs it.
            await run_tool("debugfs", "e2fsprogs", "-w", "-R", "rmdir /lost+found", temporary)
            temporary.rename(self._template)
        finally:
            temporary.unlink(missing_ok=True)
