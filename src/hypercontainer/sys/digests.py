# SPDX-License-Identifier: Apache-2.0
"""Digests of files that are asked for again and again."""

from __future__ import annotations

import hashlib
from pathlib import Path

from . import tasks


class FileDigests:
    """SHA-256, in hexadecimal; each file is read once for as long as it is the same."""

    def __init__(self) -> None:
        self._known: dict[Path, tuple[tuple[int, ...], str]] = {}  # what was read, by its identity

    async def of(self, path: Path) -> str:
        """:raise OSError: the file cannot be read."""
        about = path.stat()
        identity = (about.st_dev, about.st_ino, about.st_size, about.st_mtime_ns, about.st_ctime_ns)
        known = self._known.get(path)
        if known is None or known[0] != identity:
            known = self._known[path] = (identity, await tasks.in_thread(lambda: _digest(path)))
        return known[1]


def _digest(path: Path) -> str:
    with open(path, "rb") as f:
        return hashlib.file_digest(f, "sha256").hexdigest()
