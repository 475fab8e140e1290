# SPDX-License-Identifier: Apache-2.0
"""What stands for podman's test image: busybox, with the files that the tests look for in it."""

from __future__ import annotations

import io
import tarfile
from pathlib import Path

from hypercontainer.images import builtin

NAME = "quay.io/libpod/testimage:20220615"  # as podman's helpers.bash names it
_MADE = 1_600_000_000  # when its file says that it was written, by a test of --tz
_FILES = {
    "home/podman/testimage-id": (b"20220615\n", 0o644),
    "home/podman/pause": (
        b"#!/bin/sh\necho Confirmed: testimage pause invoked as $0\nwhile :; do\n    sleep 0.1\ndone\n", 0o755
    ),
}  # fmt: skip


def write_layer(path: Path) -> None:
    """Of busybox's files and those."""
    path.write_bytes(builtin._layer(builtin._find_busybox()))
    with tarfile.open(path, "a") as tar:
        for name, (content, mode) in _FILES.items():
            info = tarfile.TarInfo(name)
            info.size, info.mode, info.mtime = len(content), mode, _MADE
            tar.addfile(info, io.BytesIO(content))
