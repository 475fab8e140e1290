# SPDX-License-Identifier: Apache-2.0
"""Kernels and initramfs as hypervisors without rights can read them."""

from __future__ import annotations

import atexit
import os
import stat
from typing import IO

from ..sys.files import sealed_copy

_copies: dict[tuple[int, ...], IO[bytes]] = {}  # one for all machines: a daemon boots few kernels


@atexit.register
def _close_copies() -> None:
    while _copies:
        _copies.popitem()[1].close()


def for_all(fd: int, *, jailed: bool) -> int:
    """A descriptor that a user without rights can open again, as a hypervisor does with what it boots.

    It is the file's, or one of a copy in memory: Landlock keeps a jailed one from files that it does not see.
    """
    about = os.fstat(fd)
    if not jailed and (about.st_mode & stat.S_IROTH or os.geteuid() != 0):
        return fd
    key = (about.st_dev, about.st_ino, about.st_mtime_ns, about.st_size)
    if key not in _copies:
        _copies[key] = sealed_copy(fd)
    return _copies[key].fileno()
