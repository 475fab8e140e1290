# SPDX-License-Identifier: Apache-2.0
"""The files that a program loads before it runs: what its dynamic loader says."""

from __future__ import annotations

import functools
import os
import re
import struct
import subprocess
from pathlib import Path

from ..errors import Unavailable

# "libc.so.6 => /lib/x86_64-linux-gnu/libc.so.6 (0x...)", "/lib64/ld-linux-x86-64.so.2 (0x...)"; ld.so(8)
_LINE = re.compile(r"^\s*(?:\S+ => )?(/\S+) \(0x[0-9a-f]+\)$", re.MULTILINE)
_PATIENCE = 10  # seconds
_HEADERS = struct.Struct("<32xQ14xHH")  # of ELF, 64 bits: where program headers are, how long each is, how many; elf(5)
_INTERP = 3  # PT_INTERP


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
            if not _names_a_loader(f.read(64 << 10)):  # it would be executed
                return ()
        done = subprocess.run(
            [binary], env=environment, capture_output=True, text=True, timeout=_PATIENCE, check=False
        )  # fmt: skip
    except (OSError, subprocess.SubprocessError) as error:
        raise Unavailable(f"the libraries of {binary} cannot be listed: {error}") from error
    return tuple(dict.fromkeys(Path(p) for p in _LINE.findall(done.stdout)))


def _names_a_loader(head: bytes) -> bool:
    """By the beginning of a file: whether it is a program of 64 bits that a loader starts, wherever that lies."""
    if head[:5] != b"\x7fELF\2" or len(head) < _HEADERS.size:
        return False
    begin, size, number = _HEADERS.unpack_from(head)
    headers = (head[at : at + 4] for at in range(begin, begin + size * number, max(size, 1)))
    return any(kind == _INTERP.to_bytes(4, "little") for kind in headers)
