# SPDX-License-Identifier: Apache-2.0
"""Programs out of Debian's packages that this machine's release does not have: fetched, checked, unpacked, kept."""

from __future__ import annotations

import contextlib
import hashlib
import subprocess
import urllib.error
import urllib.request
from functools import partial
from pathlib import Path

import pytest

from hypercontainer.sys import caches

from .keeping import kept

PLACE = caches.cache_directory("test-packages")
_POOL = "http://deb.debian.org/debian/pool/main"
_DEADLINE = 60.0  # seconds
# The newest first. A package goes from the pool when its release has a newer one; that of a stable release stays.
COMPOSE = (
    ("d/docker-compose/docker-compose_2.40.3-3_amd64.deb",
     "e7603d5e6df0f8404f7b03da478022b87d7b50644cffe68884b071e5cfc17fd3"),
    ("d/docker-compose/docker-compose_2.26.1-4_amd64.deb",
     "47681197cb2b1ab88206b42a1a92fc75f50d9530a6322d03494a473eed0408ea"),
)  # fmt: skip


class NotToBeHad(Exception):
    """A package."""


def unpacked(*packages: tuple[str, str]) -> Path:
    """The directory that the first of these packages that can be had was unpacked into, from then on at once."""
    for path, digest in packages:
        with contextlib.suppress(NotToBeHad):
            return kept(PLACE / digest[:16], partial(_fetch, path, digest))
    pytest.skip(f"none of these packages is to be had: {', '.join(path for path, _ in packages)}")


def _fetch(path: str, digest: str, new: Path, scratch: Path) -> None:
    """:raise NotToBeHad: the pool does not give it."""
    try:
        with urllib.request.urlopen(f"{_POOL}/{path}", timeout=_DEADLINE) as answer:
            data = answer.read()
    except (urllib.error.URLError, TimeoutError) as error:
        raise NotToBeHad(path) from error
    assert hashlib.sha256(data).hexdigest() == digest, f"{path} is another package than it was"
    package = scratch / "package.deb"
    package.write_bytes(data)
    subprocess.run(["dpkg-deb", "-x", package, new], check=True)


def compose() -> Path:
    """Docker's client finds it as its plugin."""
    return unpacked(*COMPOSE) / "usr/libexec/docker/cli-plugins/docker-compose"
