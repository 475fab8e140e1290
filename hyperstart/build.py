#!/usr/bin/env python3
# SPDX-License-Identifier: Apache-2.0
"""Build hyperstart with the `ziglang` wheel: static binaries for each machine, no system compiler.

Binaries are cached by the hash of sources, flags and compiler.
"""

from __future__ import annotations

import hashlib
import os
import shutil
import subprocess
import sys
from pathlib import Path

HERE = Path(__file__).resolve().parent
TARGETS = {"x86_64": "x86_64-linux-musl", "aarch64": "aarch64-linux-musl"}
OUTPUT = HERE.parent / "src/hypercontainer/guest/bin"
FLAGS = ["-std=c11", "-D_GNU_SOURCE", "-Os", "-static", "-s", "-Wall", "-Wextra", "-Werror", "-fno-strict-aliasing"]


def version() -> str:
    """The package's version."""
    text = (HERE.parent / "src/hypercontainer/__init__.py").read_text()
    return next(line.split('"')[1] for line in text.splitlines() if line.startswith("__version__"))


def sources() -> list[Path]:
    return sorted((HERE / "src").glob("*.c"))


def cache_directory() -> Path:
    base = os.environ.get("HYPER_CACHE") or os.path.join(
        os.environ.get("XDG_CACHE_HOME") or Path.home() / ".cache", "hyper"
    )
    return Path(base) / "hyperstart"


def key(target: str) -> str:
    """Names a build by everything that goes into it."""
    digest = hashlib.sha256(repr((target, FLAGS, version())).encode())
    for path in [*sources(), *sorted((HERE / "src").glob("*.h")), *sorted((HERE / "include").glob("*.h"))]:
        digest.update(path.name.encode() + path.read_bytes())
    return digest.hexdigest()[:24]


def compile_for(machine: str, output: Path) -> None:
    """One static binary."""
    cached = cache_directory() / key(TARGETS[machine]) / f"hyperstart-{machine}"
    if not cached.exists():
        print(f"hyperstart: compiling for {machine}", flush=True)
        cached.parent.mkdir(parents=True, exist_ok=True)
        temporary = cached.with_suffix(".tmp")
        define = f'-DHYPERSTART_VERSION="{version()}"'
        command = [
            sys.executable,
            "-m",
            "ziglang",
            "cc",
            "-target",
            TARGETS[machine],
            *FLAGS,
            define,
            f"-I{HERE / 'include'}",
        ]
        subprocess.run([*command, "-o", str(temporary), *map(str, sources())], check=True)
        temporary.rename(cached)
    output.parent.mkdir(parents=True, exist_ok=True)
    temporary = output.with_suffix(".tmp")  # the old binary may be running
    shutil.copy2(cached, temporary)
    temporary.rename(output)


def build_all() -> None:
    for machine in TARGETS:
        compile_for(machine, OUTPUT / f"hyperstart-{machine}")


if __name__ == "__main__":
    build_all()
