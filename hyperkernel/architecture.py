# SPDX-License-Identifier: Apache-2.0
"""The machines that hyperkernel is built for, and what of fragment.config is for which."""

from __future__ import annotations

import platform
import re
from dataclasses import dataclass
from pathlib import Path

_SECTION = re.compile(r"# \[(\w+)\]")
_ALL = "all"


@dataclass(frozen=True)
class Architecture:
    """`name` is OCI's, `machine` what `uname -m` says."""

    name: str
    machine: str
    kbuild: str  # ARCH of Linux' make
    target: str  # what make is to build
    image: str  # where that is in the tree; hypervisors enter it without firmware
    triplet: str  # of a compiler for it
    package: str  # of Debian, with that compiler on another machine

    @property
    def variables(self) -> list[str]:
        """Of make, on this machine."""
        prefix = [] if self.machine == platform.machine() else [f"CROSS_COMPILE={self.triplet}-"]
        return [f"ARCH={self.kbuild}", *prefix]

    @property
    def tools(self) -> str:
        """What names of its binutils begin with here."""
        return "" if self.machine == platform.machine() else f"{self.triplet}-"


ARCHITECTURES = {
    a.name: a
    for a in (
        Architecture("amd64", "x86_64", "x86", "vmlinux", "vmlinux", "x86_64-linux-gnu", "gcc-x86-64-linux-gnu"),
        Architecture(
            "arm64", "aarch64", "arm64", "Image", "arch/arm64/boot/Image", "aarch64-linux-gnu", "gcc-aarch64-linux-gnu"
        ),
    )
}


def host() -> str:
    """OCI's name of this machine; amd64 where hyperkernel is not built for it, so that there is something to say."""
    return next((a.name for a in ARCHITECTURES.values() if a.machine == platform.machine()), "amd64")


def options_of(fragment: Path, machine: str) -> list[str]:
    """The fragment's lines that set or unset an option, of all machines and of this one."""
    section, found = _ALL, []
    for line in fragment.read_text().splitlines():
        if match := _SECTION.fullmatch(line):
            section = match[1]
        option = line.startswith("CONFIG_") or (line.startswith("# CONFIG_") and line.endswith(" is not set"))
        if option and section in (_ALL, machine):
            found.append(line)
    return found
