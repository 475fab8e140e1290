# SPDX-License-Identifier: Apache-2.0
"""A hyperstart that breaks the protocol, to boot in the place of the real one.

Cached as tests/vm/calls.py is. Which way it breaks it is a number in the binary.
"""

from __future__ import annotations

import hashlib
import platform
import re
import subprocess
import sys
from pathlib import Path

from hypercontainer.guest import initramfs
from hypercontainer.sys.caches import cache_directory

_HERE = Path(__file__).parent
_HYPERSTART = _HERE.parent.parent / "hyperstart"
_MARK = b"hostile-case=00"
_FLAGS = ("-std=c11", "-D_GNU_SOURCE", "-Os", "-static", "-s", "-Wall", "-Wextra", "-Werror", "-fno-strict-aliasing")

# What each number does, as tests/hostile/hyperstart.c has it.
CASES: dict[str, int] = {
    name: int(number)
    for number, name in re.findall(r"^ \*  +(\d+) ([a-z -]+[a-z])$", (_HERE / "hyperstart.c").read_text(), re.MULTILINE)
}


def build() -> Path:
    """The static binary, of case 0, which does nothing wrong."""
    sources = [
        _HERE / "hyperstart.c",
        *(_HYPERSTART / "src" / f"{name}.c" for name in ("loop", "port", "util", "wire")),
    ]
    headers = [*(_HYPERSTART / "src").glob("*.h"), *(_HYPERSTART / "include").glob("*.h")]
    contents = b"".join(p.read_bytes() for p in [*sources, *sorted(headers)])
    digest = hashlib.sha256(repr(_FLAGS).encode() + contents)
    built = cache_directory("hostile") / digest.hexdigest()[:24]
    if not built.exists():
        built.parent.mkdir(parents=True, exist_ok=True)
        temporary = built.with_suffix(".tmp")
        compiler = (sys.executable, "-m", "ziglang", "cc", "-target", f"{platform.machine()}-linux-musl", *_FLAGS)
        includes = (f"-I{_HYPERSTART / 'include'}", f"-I{_HYPERSTART / 'src'}")
        subprocess.run([*compiler, *includes, "-o", temporary, *sources], check=True)
        temporary.rename(built)
    return built


def initramfs_of(case: int) -> bytes:
    """What boots, with it as /init."""
    binary = build().read_bytes()
    assert binary.count(_MARK) == 1, "the number's place is not in the binary"
    return initramfs.build(binary.replace(_MARK, b"hostile-case=%02d" % case))
