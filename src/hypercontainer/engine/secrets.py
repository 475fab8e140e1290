# SPDX-License-Identifier: Apache-2.0
"""Secrets of pods: encrypted on the host's disk, in the clear only in memory and in the guest.

The key lies in a directory of its own below the daemon's root, so that a
backup or a copy of the rest tells nothing.
"""

from __future__ import annotations

from functools import cached_property
from typing import TYPE_CHECKING

from ..errors import NotFound
from ..sys.files import remove_tree, write_atomically
from .paths import Paths

if TYPE_CHECKING:
    from cryptography.fernet import Fernet

KEYRING = "rbd-keyring-"  # and a volume's name: the secret that opens it
SIZE_MAX = 500 << 10  # bytes, as Docker's


class Secrets:
    """By pod and name."""

    def __init__(self, paths: Paths) -> None:
        self._paths = paths

    @cached_property
    def _cipher(self) -> Fernet:
        from cryptography.fernet import Fernet  # a twentieth of a second that most daemons need not spend

        path = self._paths.keys / "secrets.key"
        if not path.exists():
            self._paths.keys.mkdir(mode=0o700, exist_ok=True)
            write_atomically(path, Fernet.generate_key())
        return Fernet(path.read_bytes())

    def put(self, pod_id: str, name: str, value: bytes) -> None:
        directory = self._paths.pod(pod_id) / "secrets"
        directory.mkdir(mode=0o700, parents=True, exist_ok=True)
        write_atomically(directory / name, self._cipher.encrypt(value))

    def get(self, pod_id: str, name: str) -> bytes:
        """:raise NotFound: no such secret."""
        path = self._paths.pod(pod_id) / "secrets" / name
        try:
            return self._cipher.decrypt(path.read_bytes())
        except FileNotFoundError:
            raise NotFound(f"the pod has no secret {name!r}", hint="define it below `secrets`") from None

    def remove_all(self, pod_id: str) -> None:
        """Idempotent."""
        remove_tree(self._paths.pod(pod_id) / "secrets")
