# SPDX-License-Identifier: Apache-2.0
"""Packages of Debian, by default of 12, by apt with lists of its own: this machine's are left as they are."""

from __future__ import annotations

import subprocess
from pathlib import Path

RELEASE = "bookworm"


def source(name: str, scratch: Path, release: str = RELEASE) -> Path:
    """The archive of a package's original source, in `scratch`."""
    _apt(scratch, release, "source", "--download-only", "--tar-only", name)
    (archive,) = scratch.glob(f"{name}_*.orig.tar.*")
    return archive


def unpacked(name: str, scratch: Path, *more: str, release: str = RELEASE) -> Path:
    """The directory below `scratch` that the files of a package, and of `more`, were unpacked into."""
    _apt(scratch, release, "download", name, *more)
    tree = scratch / "tree"
    for each in (name, *more):
        (package,) = scratch.glob(f"{each}_*.deb")
        subprocess.run(["dpkg-deb", "-x", package, tree], check=True)
    return tree


def _apt(scratch: Path, release: str, *words: str) -> None:
    lists = scratch / "sources.list"
    lists.write_text("".join(f"{kind} http://deb.debian.org/debian {release} main\n" for kind in ("deb", "deb-src")))
    for directory in ("lists/partial", "cache/archives/partial"):
        (scratch / directory).mkdir(parents=True, exist_ok=True)
    apt = ["apt-get", "-qq", "-o", f"Dir::Etc::sourcelist={lists}", "-o", "Dir::Etc::sourceparts=-",
           "-o", f"Dir::State::lists={scratch / 'lists'}", "-o", f"Dir::Cache={scratch / 'cache'}",
           "-o", "APT::Sandbox::User=root"]  # fmt: skip
    subprocess.run([*apt, "update"], check=True)
    subprocess.run([*apt, *words], check=True, cwd=scratch, stderr=subprocess.DEVNULL)
