# SPDX-License-Identifier: Apache-2.0
"""User numbers that nothing else on a host has: for processes that serve one machine each."""

from __future__ import annotations

import contextlib
import os
import secrets

_COUNT = 1 << 24
# Those of the first range are kept from the host's loopback (network/fence.py).
FENCED = range(0x70000000, 0x70000000 + _COUNT)
OPEN = range(FENCED.stop, FENCED.stop + _COUNT)


def pick(*, fenced: bool = True) -> int:
    """One of them as which no process of this host runs; a process must be started as it before another is asked for."""
    taken = _in_use()
    while (uid := secrets.choice(FENCED if fenced else OPEN)) in taken:
        pass
    return uid


def _in_use() -> set[int]:
    found = set()
    for name in os.listdir("/proc"):
        if name.isdecimal():
            with contextlib.suppress(OSError):  # it may have ended
                found.add(os.stat(f"/proc/{name}").st_uid)
    return found
