# SPDX-License-Identifier: Apache-2.0
"""Packages of Debian 12, by apt with lists of its own: this machine's are left as they are."""

from __future__ import annotations

import subprocess
from pathlib import Path

_LISTS = "deb http://deb.debian.org/debian bookworm main\ndeb-src http://deb.debian.org/debian bookworm main\n"


def source(name: str, scratch: Path) -> Path:
    """The archive of a package's original source, in `scratch`, with Debian's changes beside it."""
    _apt(scratch, "source", "--download-only", name)
    (archive,) = scratch.glob(f"{name}_*.orig.tar.*")
    return archive


def unpacked(name: str, scratch: Path) -> Path:
    """The directory below `scratch` that a package's files were unpacked into."""
    _apt(scratch, "download", name)
    (package,) = scratch.glob(f"{name}_*.deb")
    tree = scratch / "tree"
    subprocess.run(["dpkg-deb", "-x", package, tree], check=True)
    return tree


def _apt(scratch: Path, *words: str) -> None:
    lists = scratch / "sources.list"
    lists.write_text(_LISTS)
    for directory in ("lists/partial", "cache/archives/partial"):
        (scratch / directory).mkdir(parents=True, exist_ok=True)
    apt = ["apt-get", "-qq", "-o", f"Dir::Etc::sourcelist={lists}", "-o", "Dir::Etc::sourceparts=-",
           "-o", f"Dir::State::lists={scratch / 'lists'}", "-o", f"Dir::Cache={scratch / 'cache'}",
           "-o", "APT::Sandbox::User=root"]  # fmt: skip
    subprocess.run([*apt, "update"], check=True)
    subprocess.run([*apt, *words], check=True, cwd=scratch, stderr=subprocess.DEVNULL)
