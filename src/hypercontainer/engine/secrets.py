# SPDX-License-Identifier: Apache-2.0
"""Secrets of pods: encrypted on the host's disk, in the clear only in memory and in the guest.

The key lies in a directory of its own below the daemon's root, so that a
backup or a copy of the rest tells nothing.
"""

from __future__ import annotations

import re
import shutil
from functools import cached_property, partial
from pathlib import Path
from typing import TYPE_CHECKING

from ..errors import InvalidArgument, NotFound
from ..sys import tasks
from ..sys.files import no_space_as_error, write_atomically
from ..sys.trees import remove_tree
from .paths import Paths

if TYPE_CHECKING:
    from cryptography.fernet import Fernet

KEYRING = "rbd-keyring-"  # and a volume's name: the secret that opens it
SIZE_MAX = 500 << 10  # bytes, as Docker's


# Kubernetes' NAME.KEY, in a file name with KEYRING before it and what a temporary file has behind.
_NAME = re.compile(r"^[a-zA-Z0-9][a-zA-Z0-9_.-]{0,219}\Z")


def check_name(name: str) -> None:
    """It becomes a file's name.

    :raise InvalidArgument: it would be another file's, or none.
    """
    if not _NAME.match(name):
        raise InvalidArgument(
            f"invalid name of a secret {name[:250]!r}",
            hint="use letters, digits, '_', '.' and '-', beginning with a letter or digit",
        )


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
        """Keep a secret's value, encrypted, with its pod.

        :raise InvalidArgument: the name is none that a file can have.
        """
        check_name(name)
        directory = self._paths.pod(pod_id) / "secrets"
        directory.mkdir(mode=0o700, parents=True, exist_ok=True)
        write_atomically(directory / name, self._cipher.encrypt(value))

    def get(self, pod_id: str, name: str) -> bytes:
        """:raise NotFound: no such secret."""
        if not _NAME.match(name):
            raise NotFound(f"the pod has no secret {name!r}", hint="define it below `secrets`")
        path = self._paths.pod(pod_id) / "secrets" / name
        try:
            return self._cipher.decrypt(path.read_bytes())
        except FileNotFoundError:
            raise NotFound(f"the pod has no secret {name!r}", hint="define it below `secrets`") from None

    async def hand_out(self, pod_id: str, directory: Path) -> None:
        """Copy those of a pod, as they are, into a directory, where `take_in` finds them."""
        await _copied(self._paths.pod(pod_id) / "secrets", directory / "secrets")

    async def take_in(self, pod_id: str, directory: Path) -> None:
        """Let a pod have those that `hand_out` left in a directory."""
        await _copied(directory / "secrets", self._paths.pod(pod_id) / "secrets")

    def values_in(self, directory: Path) -> dict[str, bytes]:
        """In the clear, of those that `hand_out` left in a directory."""
        found = sorted((directory / "secrets").iterdir()) if (directory / "secrets").exists() else []
        return {path.name: self._cipher.decrypt(path.read_bytes()) for path in found}

    def put_values(self, directory: Path, values: dict[str, bytes]) -> None:
        """Leave them in a directory, encrypted, where `take_in` finds them."""
        if values:
            (directory / "secrets").mkdir(mode=0o700)
        for name, value in values.items():
            check_name(name)
            write_atomically(directory / "secrets" / name, self._cipher.encrypt(value))

    def remove_all(self, pod_id: str) -> None:
        """Idempotent."""
        remove_tree(self._paths.pod(pod_id) / "secrets")


async def _copied(source: Path, target: Path) -> None:
    """All of a directory, if it is there. :raise NoSpace: when the disk is full."""
    if source.exists():
        with no_space_as_error(target.parent):
            await tasks.in_thread(partial(shutil.copytree, source, target))
