# SPDX-License-Identifier: Apache-2.0
"""Files of saved pods in layers: what is another than it was in an earlier snapshot, above the files of that one.

The lowest layer is a whole file, with holes where it is all zeros. One above it has the pages that are others, at
their places, and behind the end a byte for each page, which is 1 for these. `memory` lies above `memory.1`, and that
above `memory.2`; those below are hard links to files of the earlier snapshot, which nobody writes to any more. So each
snapshot is whole by itself, whichever others are removed, and what they share takes its place once.
"""

from __future__ import annotations

import contextlib
import logging
import os
import re
from collections.abc import Iterator
from itertools import count
from pathlib import Path
from types import TracebackType

from ...errors import Unavailable
from ...sys.files import copy_sparse, no_space_as_error, private
from ..memory_files import PAGE, copy_pages, pages

log = logging.getLogger(__name__)
DEPTH = 8  # layers at most: each is a descriptor, and one more place that a page may be in
_CHUNK = 4 << 20  # bytes that are compared at a time
_MINE = re.compile(rb"\x01+")
_RUN = re.compile(rb"(.)\1*", re.DOTALL)


def below(path: Path) -> list[Path]:
    """The layers below a file, from the highest."""
    found: list[Path] = []
    for number in count(1):
        layer = path.with_name(f"{path.name}.{number}")
        if not layer.exists():
            return found
        found.append(layer)
    raise AssertionError


def size_of(path: Path) -> int:
    """Bytes of what a file has, without what is told of it."""
    return os.stat([path, *below(path)][-1]).st_size


class Layered:
    """A file of a saved pod as it was, whatever it is made of; open for the time of a `with`. All of it blocks."""

    def __init__(self, path: Path) -> None:
        """:raise OSError: a file cannot be opened. :raise Unavailable: they do not go together."""
        self._layers: list[int] = []
        with contextlib.ExitStack() as undo:
            for layer in (path, *below(path)):
                fd = os.open(layer, os.O_RDONLY | os.O_CLOEXEC)
                undo.callback(os.close, fd)
                self._layers.append(fd)
            self.size = os.fstat(self._layers[-1]).st_size
            self._owners = self._find_owners(path)
            self._open = undo.pop_all()

    def _find_owners(self, path: Path) -> bytearray:
        """Of each page the number of the layer that has it."""
        number = -(-self.size // PAGE)
        owners = bytearray([len(self._layers) - 1]) * number
        for layer, fd in reversed(list(enumerate(self._layers[:-1]))):
            told = os.pread(fd, number, self.size)
            if os.fstat(fd).st_size != self.size + number or len(told) != number:
                raise Unavailable(f"the layers of {path} do not go together", hint="remove the snapshot")
            for found in _MINE.finditer(told):
                owners[found.start() : found.end()] = bytes([layer]) * (found.end() - found.start())
        return owners

    def __enter__(self) -> Layered:
        return self

    def __exit__(self, kind: type[BaseException] | None, error: BaseException | None, at: TracebackType | None) -> None:
        self._open.close()

    @property
    def depth(self) -> int:
        """How many layers it is made of."""
        return len(self._layers)

    def _runs(self, at: int, end: int) -> Iterator[tuple[int, int, int]]:
        """A layer's descriptor, and from where to where it has what is asked for."""
        first = at // PAGE
        for run in _RUN.finditer(self._owners, first, -(-end // PAGE)):
            yield self._layers[run[1][0]], max(at, run.start() * PAGE), min(end, run.end() * PAGE)

    def pages(self) -> Iterator[tuple[int, memoryview]]:
        """As `memory_files.pages` has them."""
        for fd, at, end in self._runs(0, self.size):
            yield from pages(fd, at, end)

    def read(self, at: int, size: int) -> bytes:
        """Of this many bytes those that there are."""
        return b"".join(os.pread(fd, end - at, at) for fd, at, end in self._runs(at, min(at + size, self.size)))

    def data(self, at: int) -> int:
        """Where at the earliest something else than zeros lies from there on; the size where nothing does."""
        return min(_data(fd, at, self.size) for fd in self._layers)


def _data(fd: int, at: int, end: int) -> int:
    try:
        return min(os.lseek(fd, at, os.SEEK_DATA), end)
    except OSError:  # only a hole is left
        return end


def read_in(path: Path, target: int) -> str:
    """A file's contents into a memory file; their digest, as `memory_files.write_out` gives it."""
    with Layered(path) as source:
        os.ftruncate(target, source.size)
        return copy_pages(source.pages(), target)


def copy_whole(source: Path, target: Path) -> None:
    """A file of its own, without layers.

    :raise NoSpace: when the disk is full; the target is removed then.
    """
    if not below(source):
        return copy_sparse(source, target)
    try:
        with (
            no_space_as_error(target.parent), Layered(source) as layered,
            open(target, "xb", opener=private) as file,
        ):  # fmt: skip
            os.ftruncate(file.fileno(), layered.size)
            for at, page in layered.pages():
                os.pwrite(file.fileno(), page, at)
    except FileExistsError:
        raise
    except BaseException:
        target.unlink(missing_ok=True)
        raise


def store_above(path: Path, base: Path) -> bool:
    """Let a new file, which is whole, be a layer above `base`, where most of it is the same there; whether it is.

    Else it stays as it is, also where something fails: the disk is full, or `base` is damaged.
    """
    passing = path.with_name(f"{path.name}.above")
    try:
        return _store_above(path, base, passing)
    except (OSError, Unavailable) as error:
        log.warning("%s is stored as a whole: %s", path, error)
        for left in (passing, *below(path)):
            left.unlink(missing_ok=True)
        return False


def _store_above(path: Path, base: Path, passing: Path) -> bool:
    """:raise OSError: what is left of it are `passing` and layers below. :raise Unavailable: those of `base` differ."""
    try:
        earlier = Layered(base)
    except FileNotFoundError:
        return False
    with earlier, Layered(path) as now:
        if earlier.size != now.size or earlier.depth >= DEPTH:
            return False
        with open(passing, "xb", opener=private) as file:
            most = os.stat(path).st_blocks * 512 // PAGE // 2
            if not _write_changes(now, earlier, file.fileno(), most):
                passing.unlink()
                return False
    for number, layer in enumerate((base, *below(base)), 1):
        os.link(layer, path.with_name(f"{path.name}.{number}"))
    passing.rename(path)
    return True


def _write_changes(now: Layered, earlier: Layered, target: int, most: int) -> bool:
    """Into an empty file; False as soon as they are more than `most` pages."""
    size, changed = now.size, bytearray(-(-now.size // PAGE))
    at = 0
    while (at := min(now.data(at), earlier.data(at))) < size:
        at -= at % PAGE
        mine, other = now.read(at, _CHUNK), earlier.read(at, _CHUNK)
        for offset in range(0, len(mine), PAGE) if mine != other else ():
            page = mine[offset : offset + PAGE]
            if page == other[offset : offset + PAGE]:
                continue
            changed[(at + offset) // PAGE] = 1
            if any(page):
                os.pwrite(target, page, at + offset)
                most -= 1
        if most < 0:
            return False
        at += len(mine)
    os.pwrite(target, changed, size)
    os.ftruncate(target, size + len(changed))
    return True
