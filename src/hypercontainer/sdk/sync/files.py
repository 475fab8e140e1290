# SPDX-License-Identifier: Apache-2.0
"""Made of `sdk/files.py` by scripts/make_sync_sdk.py: change that, and run it."""

from __future__ import annotations

import builtins
import os

from ...model.files import FileEntry
from ...model.status import PathStat
from ..files import AsyncFiles
from ..limits import DEFAULT
from ..portal import run
from .watch import Watch


class Files:
    """Read and written by hyperd, so that nothing need be in the image."""

    def __init__(self, wrapped: AsyncFiles) -> None:
        self._wrapped = wrapped

    def read(self, path: str, *, offset: int = 0, limit: int | None = None, timeout: float = DEFAULT) -> bytes:
        """A file's contents, from byte `offset` on and at most `limit` bytes; symbolic links are followed.

        :raise NotFound: there is none. :raise InvalidArgument: it is a directory, or a device.
        """
        return run(self._wrapped.read(path, offset=offset, limit=limit, timeout=timeout))

    def read_text(self, path: str, *, timeout: float = DEFAULT) -> str:
        """A file's contents as UTF-8. :raise InvalidArgument: they are something else; and what `read` raises."""
        return run(self._wrapped.read_text(path, timeout=timeout))

    def write(self, path: str, data: str | bytes, *, mode: int = 420, timeout: float = DEFAULT) -> None:
        """A file in the place of what file was there; directories above it are made."""
        run(self._wrapped.write(path, data, mode=mode, timeout=timeout))

    def mkdir(self, path: str, *, mode: int = 493, timeout: float = DEFAULT) -> None:
        """A directory, and those above it; one that is there stays."""
        run(self._wrapped.mkdir(path, mode=mode, timeout=timeout))

    def stat(self, path: str, *, timeout: float = DEFAULT) -> PathStat:
        """Of a path itself: a symbolic link is not followed. :raise NotFound: there is none."""
        return run(self._wrapped.stat(path, timeout=timeout))

    def list(self, path: str, *, depth: int = 1, timeout: float = DEFAULT) -> builtins.list[FileEntry]:
        """What is in a directory; with a greater `depth`, what is in those within it, too.

        :raise NotFound: there is none.
        """
        return run(self._wrapped.list(path, depth=depth, timeout=timeout))

    def remove(self, path: str, *, recursive: bool = False, timeout: float = DEFAULT) -> None:
        """A file, or an empty directory; `recursive`: with all that is below it.

        :raise NotFound: there is none. :raise GuestError: it is a directory that is not empty.
        """
        run(self._wrapped.remove(path, recursive=recursive, timeout=timeout))

    def rename(self, path: str, new: str, *, timeout: float = DEFAULT) -> None:
        """In the place of what file has the new path.

        :raise NotFound: there is none. :raise GuestError: it cannot be, as between two file systems.
        """
        run(self._wrapped.rename(path, new, timeout=timeout))

    def watch(self, path: str, *, recursive: bool = False, timeout: float = DEFAULT) -> Watch:
        """What happens in a directory from now on; `timeout` is until it is watched.

        :raise NotFound: there is none.
        """
        return Watch(run(self._wrapped.watch(path, recursive=recursive, timeout=timeout)))

    def exists(self, path: str, *, timeout: float = DEFAULT) -> bool:
        """Whether there is such a path, of whatever kind."""
        return run(self._wrapped.exists(path, timeout=timeout))

    def upload(self, local: str | os.PathLike[str], path: str, *, timeout: float = 600.0) -> None:
        """A file or a directory of this host, as `path`; what is in a directory there already stays."""
        run(self._wrapped.upload(local, path, timeout=timeout))

    def download(self, path: str, local: str | os.PathLike[str], *, timeout: float = 600.0) -> None:
        """A file or a directory of the sandbox, as `local` on this host. Nothing is written outside of that, whatever
        the sandbox sends.

        :raise NotFound: there is none. :raise InvalidArgument: something in it cannot be made here, such as a device.
        """
        run(self._wrapped.download(path, local, timeout=timeout))
