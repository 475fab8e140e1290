# SPDX-License-Identifier: Apache-2.0
"""Whose a daemon's control group is: a lock on its directory says that the daemon lives, however it ends."""

from __future__ import annotations

import contextlib
import fcntl
import logging
import os
import re
from collections.abc import Iterator
from pathlib import Path

log = logging.getLogger(__name__)
_NAME = re.compile(r"[0-9a-f]{8}")  # as `host_groups.name_of` makes them


def hold(group: Path) -> int:
    """Make a group, and hold it until the descriptor is closed; several of one process may.

    :raise OSError: it may not be made.
    """
    while True:
        group.mkdir(exist_ok=True)
        with contextlib.suppress(FileNotFoundError):
            fd = os.open(group, os.O_RDONLY | os.O_DIRECTORY | os.O_CLOEXEC)
            fcntl.flock(fd, fcntl.LOCK_SH)  # who removes it has it for a moment
            if _is(group, fd):
                return fd
            os.close(fd)  # it was removed before we had it


def _is(group: Path, fd: int) -> bool:
    try:
        return group.stat().st_ino == os.fstat(fd).st_ino
    except FileNotFoundError:
        return False


def sweep(parent: Path) -> None:
    """Remove groups of daemons that are gone, with those of machines in them; one that has processes stays."""
    with contextlib.suppress(OSError):
        for group in [g for g in parent.iterdir() if _NAME.fullmatch(g.name) and g.is_dir()]:
            with _unheld(group) as nobody:
                if nobody and _emptied(group):
                    log.warning("removed the control group %s, which a hyperd that is gone had left", group)


@contextlib.contextmanager
def _unheld(group: Path) -> Iterator[bool]:
    """Whether nobody holds it, nor can while the block runs."""
    try:
        fd = os.open(group, os.O_RDONLY | os.O_DIRECTORY | os.O_CLOEXEC)
    except FileNotFoundError:
        yield False
        return
    try:
        fcntl.flock(fd, fcntl.LOCK_EX | fcntl.LOCK_NB)
        yield True
    except BlockingIOError:
        yield False
    finally:
        os.close(fd)


def _emptied(group: Path) -> bool:
    """Remove what has no processes, innermost first; whether all of it is gone."""
    if [d for d in sorted(group.iterdir()) if d.is_dir() and not _emptied(d)]:
        return False
    try:
        group.rmdir()
    except OSError:
        return False
    return True
