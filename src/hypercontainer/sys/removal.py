# SPDX-License-Identifier: Apache-2.0
"""Removing what may be large: some gigabytes take the kernel a tenth of a second, which the loop would stand still."""

from __future__ import annotations

import contextlib
import tempfile
from collections.abc import AsyncIterator
from pathlib import Path

from . import tasks
from .trees import remove_tree


async def removed(*paths: Path) -> None:
    """Directories with all in them are gone; nothing happens where there is none. Whoever is cancelled waits for it."""
    await tasks.in_thread(lambda: _remove(paths))


def _remove(paths: tuple[Path, ...]) -> None:
    for path in paths:
        remove_tree(path)


async def unlinked(*paths: Path) -> None:
    """The same for files.

    :raise OSError: one cannot be removed.
    """
    await tasks.in_thread(lambda: _unlink(paths))


def _unlink(paths: tuple[Path, ...]) -> None:
    for path in paths:
        path.unlink(missing_ok=True)


@contextlib.asynccontextmanager
async def temporary_directory(parent: Path) -> AsyncIterator[Path]:
    """A directory for its owner only, until the block ends."""
    directory = Path(tempfile.mkdtemp(dir=parent))
    try:
        yield directory
    finally:
        await removed(directory)
