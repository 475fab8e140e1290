# SPDX-License-Identifier: Apache-2.0
"""A saved pod as one file: a tar, packed with zstd, of a manifest and of the files that it names, in its order.

The manifest says of each file how long it is, which parts of it are not zero, and the SHA-256 of these parts, which
are what the archive has. So holes stay holes, and what is another file, or longer, is refused before it is kept.
"""

from __future__ import annotations

import contextlib
import hashlib
import os
import tarfile
from collections.abc import Generator, Iterator, Sequence
from pathlib import Path
from typing import Annotated, BinaryIO

import msgspec
import zstandard
from msgspec import Meta

from ...errors import InvalidArgument, NoSpace
from ...model.base import Model
from ...sys.documents import UNREADABLE
from ...sys.files import no_space_as_error, private
from .layers import Layered
from .saved import SavedPod

MANIFEST, VERSION = "manifest.json", 1
_MANIFEST_MAX = 64 << 20  # bytes
_BLOCK, _CHUNK = tarfile.BLOCKSIZE, 1 << 20
_NEAR = 64 << 10  # bytes of zeros that are not worth a part of their own
_WINDOW = 128 << 20  # bytes; what zstd itself takes unless told otherwise
_LEVEL = 3
_Size = Annotated[int, Meta(ge=0, le=1 << 50)]
_Name = Annotated[str, Meta(pattern=r"^[a-z0-9][a-z0-9.-]{0,79}\Z")]


class Part(Model, frozen=True, kw_only=True):
    """Of a file: what is not all zeros."""

    at: _Size
    size: _Size


class Member(Model, frozen=True, kw_only=True):
    """A file of the saved pod."""

    name: _Name
    size: _Size
    parts: list[Part]  # in their order
    digest: str  # SHA-256 of their contents, hexadecimal

    @property
    def stored(self) -> int:
        """Bytes in the archive."""
        return sum(part.size for part in self.parts)


class Host(Model, frozen=True, kw_only=True):
    """What it was saved on, for people."""

    driver: str
    hypervisor: str  # version
    accelerator: str
    processor: str
    machine_type: str


class ImageNeeded(Model, frozen=True, kw_only=True):
    """An image whose disk its machine has."""

    id: str
    name: str
    digest: str  # SHA-256 of the disk, hexadecimal


class Manifest(Model, frozen=True, kw_only=True):
    """What the archive has."""

    version: int = VERSION
    host: Host
    snapshot: SavedPod
    images: list[ImageNeeded]
    secrets: dict[str, bytes]
    members: list[Member]


# -- writing -------------------------------------------------------------------------------


def describe(path: Path) -> Member:
    """A file, as the manifest has it. It blocks."""
    digest, parts = hashlib.sha256(), list[Part]()
    with Layered(path) as file:
        for at, page in file.pages():
            last = parts[-1] if parts else None
            if last and at - (last.at + last.size) <= _NEAR:
                parts[-1] = Part(at=last.at, size=at + len(page) - last.at)
            else:
                parts.append(Part(at=at, size=len(page)))
        for part in parts:
            for data in _read(file, part):
                digest.update(data)
        return Member(name=path.name, size=file.size, parts=parts, digest=digest.hexdigest())


def _read(file: Layered, part: Part) -> Iterator[bytes]:
    at, end = part.at, part.at + part.size
    while at < end:
        if not (data := file.read(at, min(_CHUNK, end - at))):
            raise InvalidArgument("a file of the snapshot was cut off")
        yield data
        at += len(data)


def pack(directory: Path, manifest: Manifest) -> Generator[bytes, None, None]:
    """The archive, piece by piece. It blocks."""
    packing = zstandard.ZstdCompressor(level=_LEVEL, write_checksum=True).compressobj()
    for data in _plain(directory, manifest):
        if packed := packing.compress(data):
            yield packed
    yield packing.flush()


def _plain(directory: Path, manifest: Manifest) -> Iterator[bytes]:
    document = msgspec.json.encode(manifest)
    yield _header(MANIFEST, len(document)) + document + _padding(len(document))
    for member in manifest.members:
        yield _header(member.name, member.stored)
        with Layered(directory / member.name) as file:
            for part in member.parts:
                yield from _read(file, part)
        yield _padding(member.stored)
    yield bytes(2 * _BLOCK)


def _header(name: str, size: int) -> bytes:
    info = tarfile.TarInfo(name)
    info.size, info.mode = size, 0o600
    return info.tobuf(tarfile.GNU_FORMAT)


def _padding(size: int) -> bytes:
    return bytes(-size % _BLOCK)


# -- reading -------------------------------------------------------------------------------


class Unpacking:
    """An archive that is read from its begin to its end; what is wrong with it is `InvalidArgument`. It blocks."""

    def __init__(self, source: BinaryIO) -> None:
        reader = zstandard.ZstdDecompressor(max_window_size=_WINDOW)
        self._stream = reader.stream_reader(source, read_across_frames=False, closefd=False)

    def manifest(self) -> Manifest:
        """The first of it."""
        size = self._next(MANIFEST)
        if size > _MANIFEST_MAX:
            raise InvalidArgument(f"the archive's manifest has {size} bytes, and none has more than {_MANIFEST_MAX}")
        text = b"".join(self._exactly(size))
        self._skip(-size % _BLOCK)
        try:
            found = msgspec.json.decode(text, type=Manifest)
        except UNREADABLE as error:
            raise InvalidArgument(f"the archive is of no snapshot: {error}") from error
        if found.version != VERSION:
            raise InvalidArgument("the archive was made by a newer hyperd", hint="use that one")
        _check(found.members)
        return found

    def files(self, members: Sequence[Member], directory: Path) -> None:
        """All of them, which are what the manifest says when this returns.

        :raise NoSpace: the disk is full.
        """
        room = os.statvfs(directory)
        if sum(m.stored for m in members) > room.f_bavail * room.f_frsize:
            raise NoSpace(f"the snapshot has more than there is room for in {directory.parent}", hint="make room")
        for member in members:
            if self._next(member.name) != member.stored:
                raise InvalidArgument(f"the archive is damaged: {member.name} is not as long as its manifest says")
            with no_space_as_error(directory), open(directory / member.name, "xb", opener=private) as file:
                self._file(member, file)
            self._skip(-member.stored % _BLOCK)
        self._skip(2 * _BLOCK)
        if next(self._pieces(1), b""):
            raise InvalidArgument("the archive is damaged: something follows its end")

    def _file(self, member: Member, file: BinaryIO) -> None:
        digest = hashlib.sha256()
        os.ftruncate(file.fileno(), member.size)
        for part in member.parts:
            at = part.at
            for data in self._exactly(part.size):
                digest.update(data)
                os.pwrite(file.fileno(), data, at)
                at += len(data)
        if digest.hexdigest() != member.digest:
            raise InvalidArgument(f"the archive is damaged: {member.name} is not what was saved")

    def _next(self, name: str) -> int:
        """The size of the next member, which must be this one."""
        head = b"".join(self._exactly(_BLOCK))
        try:
            info = tarfile.TarInfo.frombuf(head, "ascii", "strict")
        except (tarfile.HeaderError, ValueError) as error:
            raise InvalidArgument(f"the archive is of no snapshot: {error}") from error
        if info.name != name or info.type != tarfile.REGTYPE:
            raise InvalidArgument(f"the archive is of no snapshot: it has {info.name[:80]!r} in the place of {name}")
        if info.size < 0:  # tar has a form for these, too
            raise InvalidArgument(f"the archive is of no snapshot: {name} has less than no bytes")
        return info.size

    def _skip(self, size: int) -> None:
        for _ in self._exactly(size):
            pass

    def _exactly(self, size: int) -> Iterator[bytes]:
        """So many bytes. :raise InvalidArgument: there are less."""
        for data in self._pieces(size):
            size -= len(data)
            yield data
        if size:
            raise InvalidArgument("the archive is cut off", hint="copy it again")

    def _pieces(self, size: int) -> Iterator[bytes]:
        with _faults():
            while size and (data := self._stream.read(min(size, _CHUNK))):
                size -= len(data)
                yield data


@contextlib.contextmanager
def _faults() -> Iterator[None]:
    try:
        yield
    except zstandard.ZstdError as error:
        raise InvalidArgument(f"the archive is damaged, or none of a snapshot: {error}") from error


def _check(members: Sequence[Member]) -> None:
    """Parts follow each other, within their file."""
    if len({m.name for m in members}) != len(members) or any(m.name == MANIFEST for m in members):
        raise InvalidArgument("the archive is of no snapshot: a file is in it twice")
    for member in members:
        end = 0
        for part in member.parts:
            if part.at < end or part.at + part.size > member.size or not part.size:
                raise InvalidArgument(f"the archive is of no snapshot: the parts of {member.name} do not fit into it")
            end = part.at + part.size
