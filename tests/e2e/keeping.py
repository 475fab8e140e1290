# SPDX-License-Identifier: Apache-2.0
"""What tests fetch or make once, and find there from then on."""

from __future__ import annotations

import fcntl
import tempfile
from collections.abc import Callable
from pathlib import Path


def kept(place: Path, make: Callable[[Path, Path], None]) -> Path:
    """What `make(new, scratch)` has put at the path `new`, once; tests run side by side, and wait for it.

    :raise Exception: that of `make`, which has nothing to keep then.
    """
    place.parent.mkdir(parents=True, exist_ok=True)
    with open(f"{place}.lock", "w") as lock:
        fcntl.flock(lock, fcntl.LOCK_EX)
        if not place.exists():
            with tempfile.TemporaryDirectory(dir=place.parent) as scratch:
                new = Path(scratch) / "new"
                make(new, Path(scratch))
                new.rename(place)
    return place
