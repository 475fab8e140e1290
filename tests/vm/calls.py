# SPDX-License-Identifier: Apache-2.0
"""calls.c as a static program, for 64 and for 32 bits.

Cached: an emulated processor compiles its C library for half an hour.
"""

from __future__ import annotations

import hashlib
import os
import subprocess
import sys
from pathlib import Path

from hypercontainer.sys.caches import cache_directory

MACHINES = ("x86_64", "x86")
_SOURCE = Path(__file__).with_name("calls.c")
_FLAGS = ("-static", "-Os", "-D_GNU_SOURCE")


def build(machine: str) -> Path:
    """The program for a machine, one of `MACHINES` or another of zig's."""
    key = hashlib.sha256(repr((_FLAGS, machine)).encode() + _SOURCE.read_bytes()).hexdigest()[:24]
    built = cache_directory("calls") / key
    if not built.exists():
        built.parent.mkdir(parents=True, exist_ok=True)
        temporary = built.with_suffix(f".{os.getpid()}")
        compiler = (sys.executable, "-m", "ziglang", "cc", "-target", f"{machine}-linux-musl")
        subprocess.run([*compiler, *_FLAGS, "-o", temporary, _SOURCE], check=True)
        temporary.rename(built)
    return built
