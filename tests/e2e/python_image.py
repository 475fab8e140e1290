# SPDX-License-Identifier: Apache-2.0
"""An image with Python and Jupyter's kernel, made of Debian's packages once and kept; by the text of this file."""

from __future__ import annotations

import hashlib
from pathlib import Path

from hypercontainer.sys import caches

from .conftest import Daemon
from .images import run
from .keeping import kept

NAME = "python:3.12-slim"  # as the documents call it
_PACKAGES = "python3-ipykernel,python3-jupyter-client"


def _make(layout: Path, scratch: Path) -> None:
    rootfs = scratch / "rootfs.tar"
    run("mmdebstrap", "--quiet", "--variant=minbase", f"--include={_PACKAGES}", "bookworm", rootfs)
    run("umoci", "init", "--layout", layout)
    run("umoci", "new", "--image", f"{layout}:test")
    run("umoci", "raw", "add-layer", "--image", f"{layout}:test", rootfs)


def with_python(hyper: Daemon) -> str:
    """Its name, in this daemon's store."""
    if hyper.ctl("inspect", "--type", "image", NAME, check=False).returncode:
        digest = hashlib.sha256(Path(__file__).read_bytes()).hexdigest()[:16]
        layout = kept(caches.cache_directory("test-images") / f"python-{digest}", _make)
        hyper.ctl("tag", hyper.out("pull", "-q", f"oci:{layout}:test"), NAME)
    return NAME
