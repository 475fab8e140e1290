# SPDX-License-Identifier: Apache-2.0
"""Files that are either whole or not there."""

from __future__ import annotations

import contextlib
import errno
import fcntl
import os
import tempfile
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import IO

from ..errors import InvalidArgument, NoSpace

_CHUNK = 1 << 20  # bytes that are copied at a time where the kernel does not do it
_PIECE = 64 << 20  # bytes that are copied between two words of how far it is


@contextlib.contextmanager
def no_space_as_error(path: Path) -> Iterator[None]:
    """Turn ENOSPC and EDQUOT into `NoSpace` with the place's name."""
    try:
        yield
    except OSError as error:
        if error.errno not in (errno.ENOSPC, errno.EDQUOT):
            raise
        raise no_space(path) from error


def no_space(path: Path) -> NoSpace:
    return NoSpace(f"no space left on the disk of {path}", hint="free some, for example by `hyperctl image-prune -a`")


def write_atomically(path: Path, data: bytes) -> None:
    """Temporary file, which is its owner's only, fsync, rename.

    :raise NoSpace: when the disk is full; nothing is left behind then.
    """
    path.parent.mkdir(mode=0o700, parents=True, exist_ok=True)
    with no_space_as_error(path.parent):
        fd, name = tempfile.mkstemp(dir=path.parent, prefix=f".{path.name}.")
        try:
            with os.fdopen(fd, "wb") as f:
                f.write(data)
                f.flush()
                os.fsync(f.fileno())
            os.rename(name, path)
        except BaseException:
            os.unlink(name)
            raise


def _copy_range(source: int, target: int, count: int, at: int) -> int:
    """Copy at most so many bytes to the same place; how many it were. The kernel does it within a file system only."""
    try:
        return os.copy_file_range(source, target, count, at, at)
    except OSError as error:
        if error.errno != errno.EXDEV:
            raise
    return os.pwrite(target, os.pread(source, min(count, _CHUNK), at), at)


def private(path: str, flags: int) -> int:
    """For `open`: a file that is made is its owner's only."""
    return os.open(path, flags, 0o600)


def write_all(fd: int, data: bytes) -> None:
    """However little is taken at a time. It blocks."""
    left = memoryview(data)
    while left:
        left = left[os.write(fd, left) :]


def copy_sparse(source: Path, target: Path, told: Callable[[int], None] = lambda count: None) -> None:
    """Copy only what holds data; a reflink where the file system can. `told` hears of bytes that were copied.

    :raise NoSpace: when the disk is full; the target is removed then.
    """
    try:
        with open(source, "rb") as src, open(target, "xb", opener=private) as dst, no_space_as_error(target.parent):
            size = os.fstat(src.fileno()).st_size
            os.truncate(dst.fileno(), size)
            at = 0
            while at < size:
                try:
                    start = os.lseek(src.fileno(), at, os.SEEK_DATA)
                except OSError as error:
                    if error.errno == errno.ENXIO:
                        break
                    raise
                end = os.lseek(src.fileno(), start, os.SEEK_HOLE)
                at = start
                while at < end:
                    count = _copy_range(src.fileno(), dst.fileno(), min(end - at, _PIECE), at)
                    told(count)
                    at += count
    except FileExistsError:
        raise
    except BaseException:
        target.unlink(missing_ok=True)
        raise


def make_sparse(path: Path, size: int) -> None:
    """A file of one hole.

    :raise InvalidArgument: the file system takes none of this size. :raise NoSpace: when the disk is full.
    """
    with open(path, "xb", opener=private) as f, no_space_as_error(path.parent):
        try:
            f.truncate(size)
        except OSError as error:
            path.unlink()
            if error.errno not in (errno.EFBIG, errno.EINVAL):
                raise
            raise InvalidArgument(
                f"the file system of {path.parent} takes no file of {size} bytes", hint="give less"
            ) from error


def sealed_copy(fd: int) -> IO[bytes]:
    """A file's content in memory, which whoever gets the descriptor can open again, and nobody can change."""
    made = os.fdopen(os.memfd_create("copy", os.MFD_CLOEXEC | os.MFD_ALLOW_SEALING), "r+b")
    at = 0
    while sent := os.sendfile(made.fileno(), fd, at, _CHUNK):
        at += sent
    fcntl.fcntl(
        made, fcntl.F_ADD_SEALS, fcntl.F_SEAL_WRITE | fcntl.F_SEAL_SHRINK | fcntl.F_SEAL_GROW | fcntl.F_SEAL_SEAL
    )
    return made
