# SPDX-License-Identifier: Apache-2.0
"""Files that a machine in a jail gets after its start: for the disks of one that has waited, or that come later.

A jail shows what it was made with. So each has a directory beside its disks, which is empty and lies where the
state of hyperd does: a file that the machine is to open is linked there for as long as that takes.
"""

from __future__ import annotations

import contextlib
import os
import shutil
from collections.abc import Iterator
from dataclasses import dataclass
from pathlib import Path

from ...errors import Unavailable
from .places import DISKS

INSIDE = DISKS / "late"


@dataclass(frozen=True)
class Late:
    """A machine's directory; `directory` is where we find it."""

    directory: Path

    @classmethod
    def make(cls, parent: Path, name: str) -> Late:
        """A new one, empty."""
        directory = parent / name
        shutil.rmtree(directory, ignore_errors=True)
        directory.mkdir(mode=0o700, parents=True)
        return cls(directory)

    @contextlib.contextmanager
    def shown(self, path: Path, name: str) -> Iterator[Path]:
        """A file, by the path that the machine can open it by meanwhile.

        :raise Unavailable: it lies in another file system than hyperd's state.
        """
        link = self.directory / name
        link.unlink(missing_ok=True)  # of a daemon that was killed meanwhile
        try:
            os.link(path, link)
        except OSError as error:
            raise Unavailable(f"{path} cannot be shown to a machine that runs: {error.strerror}") from error
        try:
            yield INSIDE / name
        finally:
            link.unlink()

    def rename(self, name: str) -> Late:
        """The same one, of a machine that is called so now."""
        return Late(self.directory.rename(self.directory.with_name(name)))

    def remove(self) -> None:
        """Idempotent; the machine finds nothing there from now on."""
        shutil.rmtree(self.directory, ignore_errors=True)


def sweep(parent: Path, machines: Path) -> None:
    """Remove what belongs to no machine: those have a directory of the same name there."""
    for left in parent.iterdir() if parent.is_dir() else ():
        if not (machines / left.name).exists():
            shutil.rmtree(left, ignore_errors=True)
