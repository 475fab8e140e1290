# SPDX-License-Identifier: Apache-2.0
"""What is mounted where: proc_pid_mountinfo(5), and word of its changes."""

from __future__ import annotations

import asyncio
import os
import re
import select
from pathlib import Path
from typing import NamedTuple

TABLE = Path("/proc/self/mountinfo")


class MountPoint(NamedTuple):
    """A line of it."""

    device: str  # of the file system, MAJOR:MINOR
    root: str  # what of it is mounted
    point: str


def mount_table(table: Path = TABLE) -> list[MountPoint]:
    """In the order of the mounts; in the third to fifth field octal numbers stand for what parts fields and lines.

    Only for that: whoever names a directory may write other ends of lines that Python knows, and no text at all.
    """
    found = []
    for line in os.fsdecode(table.read_bytes()).removesuffix("\n").split("\n"):
        device, root, point = (_plain(field) for field in line.split(" ")[2:5])
        found.append(MountPoint(device, root, point))
    return found


def _plain(field: str) -> str:
    return re.sub(r"\\([0-7]{3})", lambda m: chr(int(m[1], 8)), field)


class MountWatch:
    """Sets `changed` when something is mounted in this process's namespace, or unmounted. Use as a context."""

    def __init__(self) -> None:
        self.changed = asyncio.Event()

    def __enter__(self) -> MountWatch:
        # The file is always readable, so the loop's own poller would be told of nothing else.
        self._table = os.open(TABLE, os.O_RDONLY | os.O_CLOEXEC)
        self._poll = select.epoll()
        self._poll.register(self._table, select.EPOLLPRI)
        self._poll.poll(0)
        asyncio.get_running_loop().add_reader(self._poll.fileno(), self._wake)
        return self

    def _wake(self) -> None:
        self._poll.poll(0)
        self.changed.set()

    def __exit__(self, *_: object) -> None:
        asyncio.get_running_loop().remove_reader(self._poll.fileno())
        self._poll.close()
        os.close(self._table)
