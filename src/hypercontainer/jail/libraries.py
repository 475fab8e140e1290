# SPDX-License-Identifier: Apache-2.0
"""The files that a program loads before it runs: what its dynamic loader says."""

from __future__ import annotations

import functools
import os
import re
import subprocess
from pathlib import Path

from ..errors import Unavailable

# "libc.so.6 => /lib/x86_64-linux-gnu/libc.so.6 (0x...)", "/lib64/ld-linux-x86-64.so.2 (0x...)"; ld.so(8)
_LINE = re.compile(r"^\s*(?:\S+ => )?(/\S+) \(0x[0-9a-f]+\)$", re.MULTILINE)
_PATIENCE = 10  # seconds


def libraries(binary: Path) -> tuple[Path, ...]:
    """Libraries and loader, by the paths under which they are looked for; none of a static program.

    :raise Unavailable: when the loader does not answer.
    """
    about = os.stat(binary)
    return _libraries(binary, about.st_mtime_ns, about.st_size)


@functools.lru_cache(maxsize=16)
def _libraries(binary: Path, *_version: int) -> tuple[Path, ...]:
    environment = {"LD_TRACE_LOADED_OBJECTS": "1"}
    try:
        with open(binary, "rb") as f:
            if b"\0/lib" not in f.read(64 << 10):  # no loader is named: it would be executed
                return ()
        done = subprocess.run(
            [binary], env=environment, capture_output=True, text=True, timeout=_PATIENCE, check=False
        )  # fmt: skip
    except (OSError, subprocess.SubprocessError) as error:
        raise Unavailable(f"the libraries of {binary} cannot be listed: {error}") from error
    return tuple(dict.fromkeys(Path(p) for p in _LINE.findall(done.stdout)))
