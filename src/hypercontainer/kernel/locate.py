# SPDX-License-Identifier: Apache-2.0
"""Finding hyperkernel, or the kernel that the user named.

`hyperkernel/build.py` puts each build into a directory named by the hash of
what went into it, with a `kernel.json` beside the `vmlinux`.
"""

from __future__ import annotations

import json
from dataclasses import dataclass
from pathlib import Path

from ..errors import NotFound, Unavailable
from ..sys.caches import cache_directory

SYSTEM = Path("/usr/share/hypercontainer/kernel")


@dataclass(frozen=True)
class Kernel:
    """A bootable kernel; version and hash are "" for one of the user's."""

    path: Path
    version: str = ""
    config_hash: str = ""


def _described(directory: Path) -> Kernel | None:
    try:
        about = json.loads((directory / "kernel.json").read_text())
        kernel = Kernel(directory / "vmlinux", about["version"], about["config_hash"])
    except (OSError, ValueError, KeyError):
        return None
    return kernel if kernel.path.exists() else None


def locate(wanted: str = "") -> Kernel:
    """The kernel to boot: the given one, this user's newest build, or the system's.

    :raise NotFound: when the given file does not exist.
    :raise Unavailable: when there is none.
    """
    if wanted:
        path = Path(wanted)
        if not path.is_file():
            raise NotFound(f"kernel {wanted} does not exist", hint="give the path of a vmlinux")
        return (_described(path.parent) if path.name == "vmlinux" else None) or Kernel(path)
    builds = cache_directory("kernel")
    found = (
        sorted(builds.glob("*/kernel.json"), key=lambda p: p.stat().st_mtime, reverse=True) if builds.is_dir() else []
    )
    for directory in [p.parent for p in found] + [SYSTEM]:
        if kernel := _described(directory):
            return kernel
    raise Unavailable(
        "there is no guest kernel", hint="build hyperkernel with `hyperctl kernel build`, or pass --kernel to hyperd"
    )
