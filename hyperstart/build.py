#!/usr/bin/env python3
# SPDX-License-Identifier: Apache-2.0
"""Build the C programs with the `ziglang` wheel: static binaries for each machine, no system compiler.

hyperstart is a guest's first process, hyperjail starts a hypervisor with only what it is handed,
hyperjail-filter is what that loads first, hyperjail-files brings directories to guests without a device for them,
and hyperjail-memory copies a machine's memory. Binaries are cached by the hash of sources, flags and compiler.
"""

from __future__ import annotations

import hashlib
import os
import shutil
import subprocess
import sys
from dataclasses import dataclass
from pathlib import Path

HERE = Path(__file__).resolve().parent
TOP = HERE.parent
TARGETS = {"x86_64": "x86_64-linux-musl", "aarch64": "aarch64-linux-musl"}
_ALL = ["-std=c11", "-D_GNU_SOURCE", "-Os", "-Wall", "-Wextra", "-Werror", "-fno-strict-aliasing"]
_STATIC = ["-static", "-s"]


@dataclass(frozen=True)
class Program:
    """One of them: `flags` compile it in one go, or with `link` to an object that `link` makes the binary of."""

    name: str
    sources: Path
    output: Path
    flags: tuple[str, ...] = (*_ALL, *_STATIC)
    include: tuple[Path, ...] = ()
    link: tuple[str, ...] = ()


JAIL = TOP / "src/hypercontainer/jail/bin"
HYPERSTART = Program("hyperstart", HERE / "src", TOP / "src/hypercontainer/guest/bin", include=(HERE / "include",))
HYPERJAIL = Program("hyperjail", TOP / "hyperjail/src", JAIL)
# It is loaded beside whatever libc a hypervisor has, so it has none itself.
FILTER = Program(
    "hyperjail-filter",
    TOP / "hyperjail/filter",
    JAIL,
    flags=(*_ALL, "-fPIC", "-fvisibility=hidden", "-fno-stack-protector", "-fno-builtin"),
    link=("-shared", "-nostdlib", "-s", "-Wl,-z,now"),
)
FILES = Program("hyperjail-files", TOP / "hyperjail/files", JAIL)
MEMORY = Program("hyperjail-memory", TOP / "hyperjail/memory", JAIL)
PROGRAMS = (HYPERSTART, HYPERJAIL, FILTER, FILES, MEMORY)


def version() -> str:
    """The package's version."""
    text = (HERE.parent / "src/hypercontainer/__init__.py").read_text()
    return next(line.split('"')[1] for line in text.splitlines() if line.startswith("__version__"))


def sources(program: Program) -> list[Path]:
    return sorted(program.sources.glob("*.c"))


def cache_directory() -> Path:
    base = os.environ.get("HYPER_CACHE") or os.path.join(
        os.environ.get("XDG_CACHE_HOME") or Path.home() / ".cache", "hyper"
    )
    return Path(base) / "hyperstart"


def key(program: Program, target: str) -> str:
    """Names a build by everything that goes into it."""
    digest = hashlib.sha256(repr((program.name, target, program.flags, program.link, version())).encode())
    headers = [p for d in (program.sources, *program.include) for p in sorted(d.glob("*.h"))]
    for path in [*sources(program), *headers]:
        digest.update(path.name.encode() + path.read_bytes())
    return digest.hexdigest()[:24]


def _compile(program: Program, target: str, output: Path) -> None:
    zig = [sys.executable, "-m", "ziglang", "cc", "-target", target]
    includes = [f"-I{d}" for d in program.include]
    compiled = [*zig, *program.flags, f'-DHYPERSTART_VERSION="{version()}"', *includes, *map(str, sources(program))]
    if not program.link:
        subprocess.run([*compiled, "-o", str(output)], check=True)
        return
    made = output.with_suffix(".o")
    subprocess.run([*compiled, "-c", "-o", str(made)], check=True)
    subprocess.run([*zig, *program.link, str(made), "-o", str(output)], check=True)
    made.unlink()


def compile_for(program: Program, machine: str) -> None:
    """One binary."""
    name = f"{program.name}-{machine}"
    cached = cache_directory() / key(program, TARGETS[machine]) / name
    if not cached.exists():
        print(f"{program.name}: compiling for {machine}", flush=True)
        cached.parent.mkdir(parents=True, exist_ok=True)
        temporary = cached.with_suffix(".tmp")
        _compile(program, TARGETS[machine], temporary)
        temporary.rename(cached)
    program.output.mkdir(parents=True, exist_ok=True)
    temporary = program.output / f"{name}.tmp"  # the old binary may be running
    shutil.copy2(cached, temporary)
    temporary.rename(program.output / name)


def build_all() -> None:
    for program in PROGRAMS:
        for machine in TARGETS:
            compile_for(program, machine)


if __name__ == "__main__":
    build_all()
