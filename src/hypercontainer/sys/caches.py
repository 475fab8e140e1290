# SPDX-License-Identifier: Apache-2.0
"""Where what was built or made once is kept for the next time.

`hyperkernel/build.py` and `hyperstart/build.py` compute the same: they run before this package is installed.
"""

from __future__ import annotations

import os
from pathlib import Path


def cache_directory(kind: str) -> Path:
    """For one kind of thing: `$HYPER_CACHE/KIND`, else below `$XDG_CACHE_HOME/hyper` or `~/.cache/hyper`."""
    base = os.environ.get("HYPER_CACHE") or os.path.join(
        os.environ.get("XDG_CACHE_HOME") or Path.home() / ".cache", "hyper"
    )
    return Path(base) / kind
