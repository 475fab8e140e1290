# SPDX-License-Identifier: Apache-2.0
"""Trees that somebody else may have made, and changes meanwhile: of any depth, with a few open directories.

What is in a directory is reached by that directory, held open, and never through a link; so it does not matter how
long its path is, or what is put in its place. All of it blocks.
"""

from __future__ import annotations

import contextlib
import os
import stat
from collections.abc import Callable, Iterator
from dataclasses import dataclass
from pathlib import Path

_HELD = 64  # directories that are held open, from the top on; of those below, the lowest one
_READ = os.O_RDONLY | os.O_DIRECTORY | os.O_CLOEXEC
_Entries = list[tuple[str, bool]]  # names, and whether it is a directory


@dataclass
class _Level:
    """A directory on the way down."""

    name: str
    identity: tuple[int, int]
    entries: Iterator[tuple[str, bool]]
    fd: int | None

    @property
    def open(self) -> int:
        assert self.fd is not None, "it is the lowest"
        return self.fd


class Walk:
    """Of all that there is, a directory before what is in it."""

    def __init__(self, top: Path, lost: Callable[[str], None] = lambda path: None) -> None:
        """`lost` is told the path of a directory that was moved meanwhile or cannot be read: not all in it is found."""
        self._top = top
        self._lost = lost
        self._levels: list[_Level] = []
        self._name = ""
        self._skipped = False

    def __iter__(self) -> Iterator[tuple[int, str]]:
        """An open directory, and a name in it, and so on; first the directory in which the top is, and its name."""
        try:
            is_directory = stat.S_ISDIR(os.lstat(self._top).st_mode)
            self._enter("", os.open(self._top.parent, _READ), [(self._top.name, is_directory)])
        except FileNotFoundError:
            return
        try:
            yield from self._found()
        finally:
            for level in self._levels:
                if level.fd is not None:
                    os.close(level.fd)
            self._levels.clear()

    def skip(self) -> None:
        """What is in the directory that was found last is not asked for."""
        self._skipped = True

    def path(self) -> str:
        """Of what was found last, seen from the top, which is "" itself."""
        return "/".join([*(level.name for level in self._levels[2:]), self._name]) if len(self._levels) > 1 else ""

    def _found(self) -> Iterator[tuple[int, str]]:
        while self._levels:
            level = self._levels[-1]
            name, is_directory = next(level.entries, ("", False))
            if not name:
                self._leave()
                continue
            self._name, self._skipped = name, False
            yield level.open, name
            if is_directory and not self._skipped:
                try:
                    self._descend(level, name)
                except OSError:
                    self._lost(self.path())

    def _descend(self, level: _Level, name: str) -> None:
        self._enter(name, os.open(name, _READ | os.O_NOFOLLOW, dir_fd=level.open))
        if len(self._levels) > _HELD:
            os.close(level.open)
            level.fd = None

    def _enter(self, name: str, fd: int, entries: _Entries | None = None) -> None:
        try:
            about = os.fstat(fd)
            found = _entries(fd) if entries is None else entries
        except BaseException:
            os.close(fd)
            raise
        self._levels.append(_Level(name, (about.st_dev, about.st_ino), iter(found), fd))

    def _leave(self) -> None:
        """Up again: to a directory that is open yet, or to what the lowest one's `..` is if that is where it was."""
        left = self._levels.pop()
        try:
            if self._levels and self._levels[-1].fd is None:
                self._levels[-1].fd = _parent(left.open, self._levels[-1].identity)
        finally:
            os.close(left.open)
        while self._levels and self._levels[-1].fd is None:
            self._name = self._levels.pop().name
            self._lost(self.path())


def _entries(fd: int) -> _Entries:
    with os.scandir(fd) as inside:
        return sorted({entry.name: entry.is_dir(follow_symlinks=False) for entry in inside}.items())


def _parent(fd: int, identity: tuple[int, int]) -> int | None:
    """It, open, if it is the one."""
    try:
        parent = os.open("..", _READ, dir_fd=fd)
    except OSError:
        return None
    about = os.fstat(parent)
    if (about.st_dev, about.st_ino) == identity:
        return parent
    os.close(parent)
    return None


def remove_tree(path: Path) -> None:
    """Remove a directory and all in it that can be; nothing happens when it is not there."""
    try:
        top = os.open(path, _READ | os.O_NOFOLLOW)
    except OSError:
        return
    try:
        while _emptied(top):  # what lay too deep lies in it now
            pass
    finally:
        os.close(top)
    with contextlib.suppress(OSError):
        os.rmdir(path)


def _emptied(top: int) -> bool:
    """Remove what is in a directory; whether something lay so deep that it was moved up instead."""
    levels, moved = [("", top, iter(_entries(top)))], False
    try:
        while levels:
            name, fd, entries = levels[-1]
            inside, is_directory = next(entries, ("", False))
            with contextlib.suppress(OSError):
                if not inside:
                    levels.pop()
                    if levels:
                        os.close(fd)
                        os.rmdir(name, dir_fd=levels[-1][1])
                elif not is_directory:
                    os.unlink(inside, dir_fd=fd)
                elif len(levels) < _HELD:
                    deeper = os.open(inside, _READ | os.O_NOFOLLOW, dir_fd=fd)
                    levels.append((inside, deeper, iter(())))
                    levels[-1] = (inside, deeper, iter(_entries(deeper)))
                else:
                    os.rename(inside, f".deep-{os.urandom(8).hex()}", src_dir_fd=fd, dst_dir_fd=top)
                    moved = True
    finally:
        for _, fd, _ in levels[1:]:
            os.close(fd)
    return moved


def disk_usage(path: Path) -> int:
    """Bytes that a file, or a directory with all in it, occupies; holes are not counted, hard links once."""
    seen: set[tuple[int, int]] = set()
    total = 0
    for fd, name in Walk(path):
        with contextlib.suppress(OSError):  # it may have gone in the meantime
            about = os.stat(name, dir_fd=fd, follow_symlinks=False)
            if (about.st_dev, about.st_ino) not in seen:
                total += about.st_blocks * 512
                if about.st_nlink > 1:
                    seen.add((about.st_dev, about.st_ino))
    return total
