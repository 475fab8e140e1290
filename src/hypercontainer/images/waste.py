# SPDX-License-Identifier: Apache-2.0
"""What no image needs any more."""

from __future__ import annotations

import secrets
from pathlib import Path

from ..sys import tasks


class Waste:
    """Files that lose their names at once, and their space in a thread: that of gigabytes takes the kernel a while.

    A daemon that dies between leaves them in `staging/`, which the next one empties.
    """

    def __init__(self, staging: Path) -> None:
        self._staging = staging
        self._files: list[Path] = []

    def add(self, path: Path) -> None:
        """:raise OSError: it can be neither moved nor removed."""
        new = self._staging / f"gone-{secrets.token_hex(8)}"
        try:
            path.rename(new)
        except OSError:  # a full disk may have no place for the name
            path.unlink()
        else:
            self._files.append(new)

    def remove(self) -> None:
        """All that was added. :raise OSError: a file cannot be removed."""
        files, self._files = self._files, []
        for file in files:
            file.unlink(missing_ok=True)

    async def removed(self) -> None:
        """The same, off the loop; whoever is cancelled waits for it."""
        await tasks.in_thread(self.remove)
