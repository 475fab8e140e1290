# SPDX-License-Identifier: Apache-2.0
"""Processes of machines, found again whatever became of the daemon that started them.

Each has the directory of its machine and its driver in its environment, from
its first instant on; in that directory a file says which process it is. An
earlier version named no driver: it had QEMU.
"""

from __future__ import annotations

import contextlib
import os
from collections.abc import Container, Mapping
from pathlib import Path
from types import MappingProxyType
from typing import NamedTuple

from ..jail.jail import Started
from ..sys import process, users

_PIDFILE = "pid"
_DRIVER = "HYPER_DRIVER"
_FIRST = "qemu"


class Found(NamedTuple):
    """The process of a machine; `started` is in clock ticks since the host's boot."""

    directory: Path
    pid: int
    started: int


def mark(driver: str, directory: Path) -> dict[str, str]:
    """Variables for the environment of a machine's process."""
    return {process.MACHINE: str(directory), _DRIVER: driver}


def write(driver: str, directory: Path, started: Started) -> None:
    """Say in the machine's directory which process it is."""
    (directory / _PIDFILE).write_text(f"{started.pid} {started.started} {driver}")


def strays(
    driver: str, parent: Path, keep: Container[Path], unmarked: Mapping[int, Path] = MappingProxyType({})
) -> list[Found]:
    """Living ones of this driver, with a directory below `parent` that is not in `keep`.

    One whose daemon was killed may have no directory any more, or not that of its launch. `unmarked` are processes of
    this driver without such an environment, and their directories.
    """
    begun = dict(process.environments(process.MACHINE))  # both at once: one that becomes another program shows neither
    named = [*((pid, Path(e[process.MACHINE])) for pid, e in begun.items()), *unmarked.items()]
    marked = {pid: directory for pid, directory in named if directory.parent == parent and _may_be_ours(pid)}
    found: dict[int, Found] = {}
    for directory in parent.iterdir() if parent.is_dir() else ():
        for pid, started, whose in _written(directory):
            if directory in keep:
                marked.pop(pid, None)
            elif whose == driver:
                found[pid] = Found(directory, pid, started)
    for pid, directory in marked.items():
        if directory in keep and not _written(directory):
            continue  # it is to be kept, and its directory has vanished
        if pid in unmarked or (begun[pid].get(_DRIVER) or _FIRST) == driver:
            found[pid] = Found(directory, pid, process.start_time(pid))
    return [f for f in found.values() if f.started and process.start_time(f.pid) == f.started]


def _may_be_ours(pid: int) -> bool:
    """Anybody can give a process of his own such an environment, and a driver is told by it what to end."""
    user = process.real_user(pid)
    return user == os.getuid() or users.is_ours(user)


def _written(directory: Path) -> list[tuple[int, int, str]]:
    """The process of a machine's directory, when it started, and its driver."""
    with contextlib.suppress(OSError, ValueError):
        pid, started, *driver = (directory / _PIDFILE).read_text().split()
        return [(int(pid), int(started), driver[0] if driver else _FIRST)]
    return []
