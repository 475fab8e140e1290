# SPDX-License-Identifier: Apache-2.0
"""The memory of a machine at rest, as sealed memory files, and as files that outlive the daemon."""

from __future__ import annotations

import asyncio
import contextlib
import errno
import fcntl
import hashlib
import os
from collections.abc import Iterable, Iterator
from pathlib import Path

from ..hypervisor.driver import Snapshot
from ..sys.files import no_space_as_error

# https://man7.org/linux/man-pages/man2/fcntl_linux.2.html; Python 3.11 does not name them
_F_ADD_SEALS = 1033
_SEALS = 0x0002 | 0x0004 | 0x0008  # shrink, grow, write
_SEAL_TRIES, _SEAL_WAIT = 100, 0.02  # pages of a process that has just ended may be busy; seconds
_CHUNK, PAGE = 4 << 20, 4096  # bytes
_ZEROS = bytes(PAGE)


def memory_files(size: int) -> Snapshot:
    """Empty ones; whoever has them may write until they are sealed."""
    memory = os.memfd_create("hyper-memory", os.MFD_ALLOW_SEALING | os.MFD_CLOEXEC)
    os.ftruncate(memory, size)
    return Snapshot(memory, os.memfd_create("hyper-state", os.MFD_ALLOW_SEALING | os.MFD_CLOEXEC))


async def seal(snapshot: Snapshot) -> None:
    """Nobody writes to it any more, root neither; a process that could has just ended."""
    for fd in (snapshot.memory, snapshot.state):
        for left in reversed(range(_SEAL_TRIES)):
            try:
                fcntl.fcntl(fd, _F_ADD_SEALS, _SEALS)
                break
            except OSError as error:
                if error.errno != errno.EBUSY or not left:
                    raise
                await asyncio.sleep(_SEAL_WAIT)


def seal_now(snapshot: Snapshot) -> None:
    """The same, of files that no other process has."""
    for fd in (snapshot.memory, snapshot.state):
        fcntl.fcntl(fd, _F_ADD_SEALS, _SEALS)


def close(snapshot: Snapshot) -> None:
    """Once."""
    for fd in (snapshot.memory, snapshot.state):
        os.close(fd)


class AtRest:
    """A machine at rest, from which others are started."""

    snapshot: Snapshot
    _users = 0
    _closing = False

    @contextlib.contextmanager
    def in_use(self) -> Iterator[None]:
        """While a machine is started from it, its files stay open."""
        self._users += 1
        try:
            yield
        finally:
            self._users -= 1
            if self._closing:
                self.close()

    def close(self) -> None:
        """Once."""
        self._closing = True
        if not self._users:
            close(self.snapshot)


def pages(fd: int, at: int = 0, size: int | None = None) -> Iterator[tuple[int, memoryview]]:
    """Offsets and contents of the pages that are not all zeros, from a page on, to a size; that of the file."""
    size = os.fstat(fd).st_size if size is None else size
    while at < size:
        try:
            at = os.lseek(fd, at, os.SEEK_DATA) & -PAGE
            end = min(os.lseek(fd, at, os.SEEK_HOLE), size)
        except OSError:  # only a hole is left
            return
        while at < end:
            data = memoryview(os.pread(fd, min(end - at, _CHUNK), at))
            for start in range(0, len(data), PAGE):
                page = data[start : start + PAGE]
                if page != _ZEROS[: len(page)]:
                    yield at + start, page
            at += len(data)


def copy_pages(found: Iterable[tuple[int, memoryview]], target: int | None) -> str:
    """Copy them, if there is a target; the digest of them, with their places."""
    digest = hashlib.sha256()
    for at, page in found:
        digest.update(at.to_bytes(8, "little"))
        digest.update(page)
        if target is not None:
            os.pwrite(target, page, at)
    return digest.hexdigest()


def digest(path: Path) -> str:
    """Of a file's pages that are not zero, and their places."""
    with open(path, "rb") as f:
        return copy_pages(pages(f.fileno()), None)


def read_in(path: Path, target: int) -> str:
    """A file's contents into a memory file; their digest."""
    with open(path, "rb") as f:
        os.ftruncate(target, os.fstat(f.fileno()).st_size)
        return copy_pages(pages(f.fileno()), target)


def write_out(source: int, path: Path) -> str:
    """A memory file's contents into a new file, which is its owner's only; their digest.

    :raise NoSpace: when the disk is full.
    """
    path.unlink(missing_ok=True)
    with (
        no_space_as_error(path.parent),
        open(os.open(path, os.O_RDWR | os.O_CREAT | os.O_EXCL, 0o600), "wb") as f,
    ):
        os.ftruncate(f.fileno(), os.fstat(source).st_size)
        return copy_pages(pages(source), f.fileno())
