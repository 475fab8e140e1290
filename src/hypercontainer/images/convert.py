# SPDX-License-Identifier: Apache-2.0
"""From layers to a read-only image disk; runs in a process without rights (see `worker`).

Each layer is uncompressed and verified on the way; the merged tree is written
as EROFS. Nothing in it is compressed: the guest would pay for that at every
read, and under emulation dearly.
"""

from __future__ import annotations

import hashlib
import io
import os
import queue
from collections.abc import Callable, Sequence
from concurrent.futures import ThreadPoolExecutor
from dataclasses import dataclass
from typing import IO, cast

from ..errors import HyperError, NotFound
from .archive import CORRUPT, uncompressed
from .erofs.writer import Writer
from .guard import Guard
from .limits import Budget
from .tree import Tree

_READ_AHEAD = 128 << 10
_TAR_BLOCK = 512

_FAILURES = (HyperError, OSError, MemoryError)


class LayerError(Exception):
    """What is wrong with which layer."""

    def __init__(self, layer: int, cause: BaseException) -> None:
        super().__init__(str(cause))
        self.layer = layer
        self.cause = cause


@dataclass(frozen=True)
class Layer:
    """A compressed layer: a descriptor to read it from, and the digest of its contents."""

    blob: int
    diff_id: str


@dataclass(frozen=True)
class Spooled:
    """An uncompressed layer: a part of a file."""

    fd: int
    begin: int
    size: int


class _View(io.RawIOBase):
    """A layer as a file of its own. Beyond its end are zeros: some tools leave out the last
    padding and the end blocks; Go's readers do not mind, and the digest says that nothing is missing."""

    def __init__(self, layer: Spooled) -> None:
        super().__init__()
        self._layer = layer
        self._at = 0
        self._from = 0  # of the buffer, in the layer
        self._buffer = b""

    def read(self, count: int = -1) -> bytes:
        begin = self._at - self._from
        if not 0 <= begin <= len(self._buffer) - count:
            self._from, begin = self._at, 0
            want = max(0, min(max(count, _READ_AHEAD), self._layer.size - self._at))
            self._buffer = os.pread(self._layer.fd, want, self._layer.begin + self._at)
            missing = min(count, self._layer.size + 3 * _TAR_BLOCK - self._at) - len(self._buffer)
            self._buffer += bytes(max(0, missing))
        data = self._buffer[begin : begin + count]
        self._at += len(data)
        return data

    def seek(self, offset: int, whence: int = 0) -> int:
        self._at = offset
        return offset

    def tell(self) -> int:
        return self._at


def spool_layer(layer: Layer, spool: int, budget: Budget, report: Callable[[int], None]) -> Spooled:
    """Uncompress a layer behind what its spool has; `report` is told how many bytes of the blob are read.

    :raise NotFound: when the blob is corrupt.
    :raise InvalidArgument: when it is beyond a limit.
    """
    digest, guard, begin, size = hashlib.sha256(), Guard(budget), os.lseek(spool, 0, os.SEEK_END), 0
    try:
        with os.fdopen(os.dup(layer.blob), "rb") as source, os.fdopen(os.dup(spool), "wb", buffering=0) as out:
            for chunk in uncompressed(source):
                budget.unpack(len(chunk))
                guard.feed(chunk)
                digest.update(chunk)
                size += len(chunk)
                left = memoryview(chunk)
                while left:
                    left = left[out.write(left) :]
                report(source.tell())
    except CORRUPT as error:
        raise NotFound("is corrupt") from error
    if f"sha256:{digest.hexdigest()}" != layer.diff_id:
        raise NotFound("is corrupt")
    return Spooled(spool, begin, size)


def _spool_all(
    layers: Sequence[Layer], spools: Sequence[int], budget: Budget, report: Callable[[int, int], None]
) -> list[Spooled]:
    """As many at once as there are spools; the first that fails ends all."""
    free: queue.SimpleQueue[int] = queue.SimpleQueue()
    for spool in spools:
        free.put(spool)
    failed: list[LayerError] = []

    def one(index: int) -> Spooled | None:
        if failed:
            return None
        spool = free.get()

        def tell(done: int) -> None:
            if failed:
                raise failed[0].cause
            report(index, done)

        try:
            return spool_layer(layers[index], spool, budget, tell)
        except _FAILURES as error:
            failed.append(LayerError(index, error))
            return None
        finally:
            free.put(spool)

    with ThreadPoolExecutor(len(spools)) as pool:
        spooled = list(pool.map(one, range(len(layers))))
    if failed:
        raise failed[0]
    return [s for s in spooled if s is not None]


def convert(
    layers: Sequence[Layer], spools: Sequence[int], target: int, budget: Budget, report: Callable[[int, int], None]
) -> int:  # fmt: skip
    """Make the image disk of some layers in the file `target`; how many entries have ACLs that nobody can read.

    `report` is told of a layer's bytes.

    :raise LayerError: with what is wrong with which layer.
    :raise HyperError: what is wrong with all of it.
    """
    spooled = _spool_all(layers, spools, budget, report)
    tree = Tree(budget)
    for index, layer in enumerate(spooled):
        try:
            tree.apply(index, cast(IO[bytes], _View(layer)), layer.size)
        except _FAILURES as error:
            raise LayerError(index, error) from error
    Writer(target, [(layer.fd, layer.begin) for layer in spooled]).write(tree)
    return tree.without_acl
