# SPDX-License-Identifier: Apache-2.0
"""What a hypervisor's program says of itself."""

from __future__ import annotations

import subprocess
from pathlib import Path

_TIMEOUT = 10.0  # seconds


def ask(binary: str | Path, *arguments: str) -> str:
    """What it prints when it is started so; "" where it is not there, fails, or does not answer on a busy host."""
    try:
        return subprocess.run(
            [binary, *arguments], capture_output=True, text=True, timeout=_TIMEOUT, check=True
        ).stdout  # fmt: skip
    except (OSError, subprocess.SubprocessError):
        return ""
