# SPDX-License-Identifier: Apache-2.0
"""What proc(5) says of a process; imports little, for commands that are started often."""

from __future__ import annotations

import contextlib
import os
from pathlib import Path


def start_time(pid: int) -> int:
    """When a process started, in clock ticks since boot; 0 when there is none, or all of its threads have ended.

    The first thread of one that goes on may be a zombie: the others have its files and its memory.
    """
    try:
        stat = Path(f"/proc/{pid}/stat").read_text()
    except OSError:
        return 0
    fields = stat.rpartition(")")[2].split()
    return 0 if fields[0] in "ZX" and not _has_threads(pid) else int(fields[19])


def _has_threads(pid: int) -> bool:
    """Besides its first one. The field of `stat` that counts them is of no use: of a zombie it is 1 or 0."""
    with contextlib.suppress(OSError):
        return any(name != str(pid) for name in os.listdir(f"/proc/{pid}/task"))
    return False
