# SPDX-License-Identifier: Apache-2.0
"""Kernels and initramfs where a QEMU that libvirt starts for root can read them.

It opens them by their paths, as a user who may not look into hyperd's directories. So copies lie in a directory of the
host's that all may pass through, as long as hyperd runs.
"""

from __future__ import annotations

import hashlib
import os
import uuid
from pathlib import Path

from ...sys.trees import remove_tree

_RUN = Path("/run")


class BootPlace:
    """The copies of one daemon."""

    def __init__(self, own: Path, parent: Path = _RUN) -> None:
        """`own` is a directory that no other daemon has: the copies of one that was killed are its next one's."""
        self._directory = parent / f"hyper-boot-{hashlib.sha256(os.fsencode(own)).hexdigest()[:12]}"

    def copy(self, path: Path) -> Path:
        """Where this file's content is to be read by all; made at the first time.

        :raise OSError: it cannot be read, or there is no space.
        """
        about = path.stat()
        copy = self._directory / f"{path.name}-{about.st_ino:x}-{about.st_size:x}-{about.st_mtime_ns:x}"
        if not copy.exists():
            self._directory.mkdir(mode=0o711, exist_ok=True)
            self._directory.chmod(0o711)
            new = copy.with_name(f"{copy.name}.{uuid.uuid4().hex}.new")  # another thread may be at the same
            try:
                new.write_bytes(path.read_bytes())
                new.chmod(0o444)
                new.rename(copy)
            finally:
                new.unlink(missing_ok=True)
        return copy

    def remove(self) -> None:
        """Idempotent; who runs has read them."""
        remove_tree(self._directory)
