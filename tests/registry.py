# SPDX-License-Identifier: Apache-2.0
"""Debian's docker-registry on loopback."""

from __future__ import annotations

import contextlib
import socket
import subprocess
import time
import urllib.request
from collections.abc import Iterator
from dataclasses import dataclass
from pathlib import Path

_DEADLINE = 30.0  # seconds
_ANY = "application/vnd.oci.image.index.v1+json, application/vnd.docker.distribution.manifest.list.v2+json, " \
    "application/vnd.oci.image.manifest.v1+json, application/vnd.docker.distribution.manifest.v2+json"  # fmt: skip


def free_port() -> int:
    """One that nobody listens on."""
    with socket.socket() as s:
        s.bind(("127.0.0.1", 0))
        port: int = s.getsockname()[1]
        return port


@dataclass
class Registry:
    """A registry without TLS and without users."""

    address: str
    storage: Path

    def get(self, path: str) -> bytes:
        """What it answers below /v2/."""
        request = urllib.request.Request(f"http://{self.address}/v2/{path}", headers={"Accept": _ANY})
        with urllib.request.urlopen(request, timeout=_DEADLINE) as answer:
            found: bytes = answer.read()
            return found


@contextlib.contextmanager
def serving(directory: Path, more: str = "") -> Iterator[Registry]:
    """One that answers, and ends with the block; `more` is added to its configuration."""
    port, storage = free_port(), directory / "storage"
    config = directory / "config.yml"
    config.write_text(
        f"version: 0.1\nlog: {{level: error}}\nstorage: {{filesystem: {{rootdirectory: {storage}}}}}\n"
        f"http: {{addr: '127.0.0.1:{port}'}}\n{more}"
    )
    with open(directory / "log", "wb") as log:
        process = subprocess.Popen(["docker-registry", "serve", config], stdout=log, stderr=log)
    try:
        end = time.monotonic() + _DEADLINE
        while True:
            with contextlib.suppress(OSError), socket.create_connection(("127.0.0.1", port), 1):
                break
            assert process.poll() is None and time.monotonic() < end, "docker-registry does not answer"
            time.sleep(0.05)
        yield Registry(f"localhost:{port}", storage)
    finally:
        process.terminate()
        process.wait(10)
