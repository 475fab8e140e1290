# SPDX-License-Identifier: Apache-2.0
"""Finding hyperkernel, or the kernel that the user named.

`hyperkernel/build.py` puts each build into a directory named by the hash of
what went into it, with a `kernel.json` beside the `vmlinux`, or the `Image` of
arm64. Builds of before there was an arm64 do not say that they are for amd64.
"""

from __future__ import annotations

import json
from dataclasses import dataclass
from pathlib import Path

from ..errors import NotFound, Unavailable
from ..model import architectures
from ..sys.caches import cache_directory

SYSTEM = Path("/usr/share/hypercontainer/kernel")
_IMAGES = {"amd64": "vmlinux", "arm64": "Image"}


@dataclass(frozen=True)
class Kernel:
    """A bootable kernel; version and hash are "" for one of the user's."""

    path: Path
    version: str = ""
    config_hash: str = ""


def _described(directory: Path, architecture: str) -> Kernel | None:
    try:
        about = json.loads((directory / "kernel.json").read_text())
        kernel = Kernel(directory / _IMAGES[architecture], about["version"], about["config_hash"])
    except (OSError, ValueError, KeyError):
        return None
    return kernel if about.get("architecture", "amd64") == architecture and kernel.path.exists() else None


def locate(wanted: str = "", architecture: str = "") -> Kernel:
    """The kernel to boot: the given one, this user's newest build, or the system's; "" is this host's architecture.

    :raise NotFound: when the given file does not exist.
    :raise Unavailable: when there is none.
    """
    architecture = architecture or architectures.host()
    if wanted:
        path = Path(wanted)
        if not path.is_file():
            raise NotFound(f"kernel {wanted} does not exist", hint="give the path of a vmlinux")
        described = _described(path.parent, architecture) if path.name == _IMAGES.get(architecture) else None
        return described or Kernel(path)
    builds = cache_directory("kernel")
    found = (
        sorted(builds.glob("*/kernel.json"), key=lambda p: p.stat().st_mtime, reverse=True) if builds.is_dir() else []
    )
    for directory in [p.parent for p in found] + [SYSTEM / architecture, SYSTEM]:
        if kernel := _described(directory, architecture):
            return kernel
    if architectures.is_foreign(architecture):
        raise Unavailable(f"there is no guest kernel for {architecture}", hint=build_hint(architecture))
    raise Unavailable(
        "there is no guest kernel", hint="build hyperkernel with `hyperctl kernel build`, or pass --kernel to hyperd"
    )


def build_hint(architecture: str) -> str:
    """How to get one for another architecture than this host's."""
    return f"build it with `hyperctl kernel build --arch {architecture}`, which takes some minutes"
