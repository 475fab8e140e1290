# SPDX-License-Identifier: Apache-2.0
"""Where hyperjail and its library are in this installation."""

from __future__ import annotations

import platform
from pathlib import Path

from ..errors import Unavailable

BINARIES = Path(__file__).parent / "bin"
REINSTALL = "run `make setup` in the source tree, or reinstall the package"
START = 60.0  # seconds for a program to start on a busy host


def binary(name: str = "hyperjail") -> Path:
    """:raise Unavailable: when this installation has none."""
    path = BINARIES / f"{name}-{platform.machine()}"
    if not path.exists():
        raise Unavailable(f"{name} is not in this installation",
                          hint=REINSTALL)  # fmt: skip
    return path
