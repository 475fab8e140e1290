# SPDX-License-Identifier: Apache-2.0
"""One saved machine per shape.

In use it lies in sealed memory files, which no clone can write to; a copy in
the cache survives the daemon. A copy that is stale, or is not what was
written, is made again.
"""

from __future__ import annotations

import asyncio
import contextlib
import errno
import fcntl
import hashlib
import logging
import os
from collections.abc import Awaitable, Callable, Iterator
from dataclasses import dataclass, field
from pathlib import Path

import msgspec

from ...errors import HyperError
from ...hypervisor.driver import Snapshot
from ...model import ids
from ...sys.files import write_atomically
from .shapes import Shape

log = logging.getLogger(__name__)
# https://man7.org/linux/man-pages/man2/fcntl_linux.2.html; Python 3.11 does not name them
_F_ADD_SEALS = 1033
_SEALS = 0x0002 | 0x0004 | 0x0008  # shrink, grow, write
_SEAL_TRIES, _SEAL_WAIT = 100, 0.02  # pages of a process that has just ended may be busy; seconds
_CHUNK, _PAGE = 4 << 20, 4096
_ZEROS = bytes(_PAGE)


@dataclass
class Template:
    """A machine at rest."""

    shape: Shape
    key: str  # hash of all that went into it
    snapshot: Snapshot
    token: bytes  # opens the first connection to each clone
    made_at: str = field(default_factory=ids.now)
    clones: int = 0  # started from it

    @property
    def memory(self) -> int:
        """Bytes that its files occupy."""
        return sum(os.fstat(fd).st_blocks * 512 for fd in (self.snapshot.memory, self.snapshot.state))

    def close(self) -> None:
        for fd in (self.snapshot.memory, self.snapshot.state):
            os.close(fd)


class Copy(msgspec.Struct):
    """What the cache says of a template's files."""

    key: str
    token: str
    made_at: str
    size: int  # bytes of guest memory
    digests: dict[str, str]  # sha256 of memory and state


def memory_files(size: int) -> Snapshot:
    """Empty ones; whoever has them may write until they are sealed."""
    memory = os.memfd_create("hyper-template", os.MFD_ALLOW_SEALING | os.MFD_CLOEXEC)
    os.ftruncate(memory, size)
    return Snapshot(memory, os.memfd_create("hyper-template-state", os.MFD_ALLOW_SEALING | os.MFD_CLOEXEC))


async def seal(snapshot: Snapshot) -> None:
    """Nobody writes to it any more, root neither."""
    for fd in (snapshot.memory, snapshot.state):
        for left in reversed(range(_SEAL_TRIES)):
            try:
                fcntl.fcntl(fd, _F_ADD_SEALS, _SEALS)
                break
            except OSError as error:
                if error.errno != errno.EBUSY or not left:
                    raise
                await asyncio.sleep(_SEAL_WAIT)


class Templates:
    """Makes, keeps and finds them."""

    def __init__(
        self, directory: Path, limit: int, key: Callable[[Shape], Awaitable[str]], make: Callable[[Shape, str], Awaitable[Template]]
    ) -> None:
        """`limit` is in bytes, of all that are in memory."""
        self.limit = limit
        self._directory = directory
        self._key = key
        self._make = make
        self._known: dict[Shape, Template] = {}
        self._lock = asyncio.Lock()

    def all(self) -> list[Template]:
        return list(self._known.values())

    def get(self, shape: Shape) -> Template | None:
        """The one in memory; it counts as used."""
        template = self._known.pop(shape, None)
        if template:
            self._known[shape] = template
        return template

    async def ensure(self, shape: Shape) -> Template:
        """From memory, the cache, or made now.

        :raise HyperError: when it cannot be made.
        """
        async with self._lock:
            key = await self._key(shape)
            template = self.get(shape)
            if template and template.key == key:
                return template
            template = await asyncio.to_thread(self._load, shape, key)
            if template is None:
                template = await self._make(shape, key)
                await asyncio.to_thread(self._store, template)
            self.drop(shape)
            self._known[shape] = template
            self._trim(keep=shape)
            return template

    def drop(self, shape: Shape) -> None:
        """Forget one; its clones go on."""
        template = self._known.pop(shape, None)
        if template:
            template.close()

    def discard(self, shape: Shape) -> None:
        """Forget one that is of no use, and its copy."""
        self.drop(shape)
        for path in self._files(shape).values():
            path.unlink(missing_ok=True)

    def close(self) -> None:
        for shape in list(self._known):
            self.drop(shape)

    def _trim(self, keep: Shape) -> None:
        """The least recently used go, until the rest is within the limit."""
        for shape in list(self._known):
            if shape != keep and sum(t.memory for t in self._known.values()) > self.limit:
                self.drop(shape)

    # -- the cache ----------------------------------------------------------------------

    def _files(self, shape: Shape) -> dict[str, Path]:
        return {kind: self._directory / f"{shape.name}.{kind}" for kind in ("memory", "state", "json")}

    def _load(self, shape: Shape, key: str) -> Template | None:
        files = self._files(shape)
        try:
            copy = msgspec.json.decode(files["json"].read_bytes(), type=Copy)
        except (OSError, msgspec.DecodeError):
            return None
        if copy.key != key:
            return None
        snapshot = memory_files(copy.size)
        try:
            found = {"memory": _transfer(files["memory"], snapshot.memory), "state": _transfer(files["state"], snapshot.state)}
            if found != copy.digests:
                raise OSError("it is not what was written")
            for fd in (snapshot.memory, snapshot.state):
                fcntl.fcntl(fd, _F_ADD_SEALS, _SEALS)
        except OSError as error:
            log.warning("the template %s is made again: %s", shape.name, error)
            os.close(snapshot.memory)
            os.close(snapshot.state)
            return None
        return Template(shape, key, snapshot, bytes.fromhex(copy.token), copy.made_at)

    def _store(self, template: Template) -> None:
        """Best effort: without a copy the next daemon makes it again."""
        files = self._files(template.shape)
        snapshot = template.snapshot
        try:
            self._directory.mkdir(mode=0o700, parents=True, exist_ok=True)
            files["json"].unlink(missing_ok=True)
            digests = {"memory": _save(snapshot.memory, files["memory"]), "state": _save(snapshot.state, files["state"])}
            size = os.fstat(snapshot.memory).st_size
            copy = Copy(template.key, template.token.hex(), template.made_at, size, digests)
            write_atomically(files["json"], msgspec.json.encode(copy))
        except (OSError, HyperError) as error:
            log.warning("the template %s is not kept: %s", template.shape.name, error)
            for path in files.values():
                with contextlib.suppress(OSError):
                    path.unlink(missing_ok=True)


def _pages(fd: int) -> Iterator[tuple[int, memoryview]]:
    """Offsets and contents of the pages that are not all zeros."""
    at, size = 0, os.fstat(fd).st_size
    while at < size:
        try:
            at = os.lseek(fd, at, os.SEEK_DATA) & -_PAGE
        except OSError:  # only a hole is left
            return
        end = os.lseek(fd, at, os.SEEK_HOLE)
        while at < end:
            data = memoryview(os.pread(fd, min(end - at, _CHUNK), at))
            for start in range(0, len(data), _PAGE):
                page = data[start : start + _PAGE]
                if page != _ZEROS[: len(page)]:
                    yield at + start, page
            at += len(data)


def _copy(source: int, target: int) -> str:
    """Copy what is not zero; the digest of it, with its places."""
    digest = hashlib.sha256()
    for at, page in _pages(source):
        digest.update(at.to_bytes(8, "little"))
        digest.update(page)
        os.pwrite(target, page, at)
    return digest.hexdigest()


def _transfer(path: Path, target: int) -> str:
    with open(path, "rb") as f:
        os.ftruncate(target, os.fstat(f.fileno()).st_size)
        return _copy(f.fileno(), target)


def _save(source: int, path: Path) -> str:
    path.unlink(missing_ok=True)
    with open(os.open(path, os.O_RDWR | os.O_CREAT | os.O_EXCL, 0o600), "wb") as f:
        os.ftruncate(f.fileno(), os.fstat(source).st_size)
        return _copy(source, f.fileno())
