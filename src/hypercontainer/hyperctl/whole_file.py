# SPDX-License-Identifier: Apache-2.0
"""Files that a command writes, and others read."""

from __future__ import annotations

import contextlib
import errno
import os
from collections.abc import Iterable, Iterator
from pathlib import Path
from typing import BinaryIO

from ..errors import HyperError
from .standard import write_all


@contextlib.contextmanager
def written(path: str, *, private: bool = False) -> Iterator[BinaryIO]:
    """A file that is there when it is whole, and its owner's only if it is `private`. What is there and is no file, as
    /dev/null, is written to.

    :raise HyperError: it cannot be.
    """
    target = Path(path)
    try:
        if target.exists() and not target.is_file():
            with open(target, "wb") as out:
                yield out
            return
        place = Path(f"{path}.{os.getpid()}.part")
        with _begun(target.parent, place, 0o600 if private else 0o666) as out:
            yield out
            out.flush()
            os.fsync(out.fileno())  # what takes the place of another is there after a power cut, too
            if not place.exists():
                os.link(f"/proc/self/fd/{out.fileno()}", place, src_dir_fd=out.fileno(), follow_symlinks=True)
            os.replace(place, path)
    except OSError as error:
        raise HyperError(f"cannot write {path}: {error.strerror}") from error


@contextlib.contextmanager
def _begun(directory: Path, place: Path, mode: int) -> Iterator[BinaryIO]:
    """A file without a name, which goes with its process; where a file system has none, one with that name."""
    flags = os.O_WRONLY | os.O_CLOEXEC
    try:
        fd = os.open(directory, flags | os.O_TMPFILE, mode)
    except OSError as error:
        if error.errno not in (errno.EOPNOTSUPP, errno.EISDIR):
            raise
        fd = os.open(place, flags | os.O_CREAT | os.O_EXCL, mode)
    try:
        with open(fd, "wb") as out:
            yield out
    finally:
        place.unlink(missing_ok=True)


def write_out(pieces: Iterable[bytes], path: str | None, *, private: bool = False) -> None:
    """To that file, as `written` does; to stdout where there is none."""
    if not path:
        for piece in pieces:
            write_all(1, memoryview(piece))
        return
    with written(path, private=private) as out:
        for piece in pieces:
            out.write(piece)
