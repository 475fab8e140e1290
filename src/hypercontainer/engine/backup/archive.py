# SPDX-License-Identifier: Apache-2.0
"""A backup as a file: a tar, packed with zstd, which GNU tar reads, too (`tar --zstd -tvf`).

Its first member says what it is, its last one has the SHA-256 of all between them: of each member's description and of
what is in it. Files with holes have GNU's sparse format 1.0
(https://www.gnu.org/software/tar/manual/html_node/PAX-1.html), extended attributes are as star writes them
(`SCHILY.xattr.`).
"""

from __future__ import annotations

import contextlib
import errno
import hashlib
import os
import stat
import tarfile
from collections.abc import Callable, Iterator, Mapping
from pathlib import Path

import msgspec
import zstandard

from ...model.base import Model

FORMAT = 1
MANIFEST, END = "backup.json", "end.json"
XATTR = "SCHILY.xattr."
_BLOCK, _CHUNK = tarfile.BLOCKSIZE, 1 << 20
_LEVEL = 3
Parts = list[tuple[int, int]]  # of a file: from where on, and how many bytes, it holds data


class Manifest(Model, frozen=True, kw_only=True):
    """What a backup is."""

    format: int = FORMAT
    version: str  # of the hyperd that made it
    schema: int  # of its database
    created_at: str
    root: str
    without: list[str] = msgspec.field(default_factory=list)  # what was left out


class End(Model, frozen=True, kw_only=True):
    """How it ends: what was removed while it was made is not in it as a whole, and is given up."""

    digest: str
    gone: list[str] = msgspec.field(default_factory=list)  # keys of records


class Digest:
    """Of the members between the first and the last one."""

    def __init__(self) -> None:
        self._sum = hashlib.sha256()

    def begin(self, info: tarfile.TarInfo, name: str, parts: Parts, extended: Mapping[str, str]) -> None:
        """A member."""
        told = [name, info.type.decode(), info.mode, info.uid, info.gid, int(info.mtime), info.linkname, parts]
        self._sum.update(repr((told, sorted(extended.items()))).encode(errors="surrogateescape"))

    def add(self, data: bytes) -> None:
        """Of what is in it."""
        self._sum.update(data)

    def value(self) -> str:
        """In hexadecimal."""
        return self._sum.hexdigest()


class Writer:
    """Makes one, piece by piece. All of it blocks."""

    def __init__(self) -> None:
        self._packing = zstandard.ZstdCompressor(level=_LEVEL, write_checksum=True).compressobj()
        self._digest = Digest()
        self._links: dict[tuple[int, int], str] = {}  # files with several names -> the first of them

    def document(self, name: str, document: Model) -> Iterator[bytes]:
        """The first member, or the last one."""
        data = msgspec.json.encode(document)
        info = tarfile.TarInfo(name)
        info.size, info.mode = len(data), 0o600
        yield from self._pack(info.tobuf(tarfile.GNU_FORMAT) + data + _padding(len(data)))

    def end(self, gone: list[str]) -> Iterator[bytes]:
        """The last pieces."""
        yield from self.document(END, End(digest=self._digest.value(), gone=gone))
        yield from self._pack(bytes(2 * _BLOCK))
        yield self._packing.flush()

    def tree(
        self, path: Path, name: str, instead: Mapping[Path, Path], leave: Callable[[Path], bool]
    ) -> Iterator[bytes]:
        """A file, or a directory with all in it, what is there of it: what goes meanwhile is left out.

        For some files their copies are read; `leave` says what is left out.
        """
        yield from self._entry(path, path, name, instead, leave)

    def _entry(
        self, place: Path, path: Path, name: str, instead: Mapping[Path, Path], leave: Callable[[Path], bool]
    ) -> Iterator[bytes]:
        """`place` is where `path` is reached: by its open directory, which no link takes the place of meanwhile."""
        if leave(path):
            return
        with contextlib.suppress(FileNotFoundError, _Replaced):
            about = os.lstat(place)
            if not stat.S_ISDIR(about.st_mode):
                yield from self._member(instead.get(path, place), name, about)
                return
            with _opened(place, os.O_DIRECTORY) as fd:
                yield from self._member(place, name, about)
                for entry in sorted(os.listdir(fd)):
                    yield from self._entry(Path(f"/proc/self/fd/{fd}/{entry}"), path / entry, f"{name}/{entry}",
                                           instead, leave)  # fmt: skip

    def _member(self, path: Path, name: str, about: os.stat_result) -> Iterator[bytes]:
        info = tarfile.TarInfo(name)
        info.mode, info.uid, info.gid = stat.S_IMODE(about.st_mode), about.st_uid, about.st_gid
        info.mtime = int(about.st_mtime)
        if first := self._links.get((about.st_dev, about.st_ino)):
            info.type, info.linkname = tarfile.LNKTYPE, first
        elif kind := _KINDS.get(stat.S_IFMT(about.st_mode)):
            info.type = kind
            if kind == tarfile.SYMTYPE:
                info.linkname = os.readlink(path)
            info.devmajor, info.devminor = os.major(about.st_rdev), os.minor(about.st_rdev)
        elif stat.S_ISREG(about.st_mode):
            yield from self._file(path, info, _attributes(path))
            if about.st_nlink > 1:
                self._links[about.st_dev, about.st_ino] = name
            return
        else:
            return  # a socket
        extended = {} if info.type == tarfile.LNKTYPE else _attributes(path)
        self._digest.begin(info, name, [], extended)
        yield from self._pack(_extension(extended) + info.tobuf(tarfile.GNU_FORMAT))

    def _file(self, path: Path, info: tarfile.TarInfo, extended: dict[str, str]) -> Iterator[bytes]:
        with _opened(path) as fd:
            size, name = os.fstat(fd).st_size, info.name
            parts = list(_parts(fd, size))
            self._digest.begin(info, name, parts, extended)
            head, told = b"", dict(extended)
            if parts != [(0, size)] and size:
                head = _sparse_map([*parts, (size, 0)])  # which tells GNU tar of its end
                told |= {"GNU.sparse.major": "1", "GNU.sparse.minor": "0", "GNU.sparse.name": name,
                         "GNU.sparse.realsize": str(size)}  # fmt: skip
                info.name = "GNUSparseFile.0/file"
            stored = sum(length for _, length in parts)
            info.size = len(head) + stored
            header = info.tobuf(tarfile.GNU_FORMAT)
            yield from self._pack(_extension(told) + (_as_posix(header) if head else header) + head)
            for at, length in parts:
                yield from self._data(fd, at, length)
            yield from self._pack(_padding(stored))

    def _data(self, fd: int, at: int, length: int) -> Iterator[bytes]:
        end = at + length
        while at < end:
            data = os.pread(fd, min(_CHUNK, end - at), at) or bytes(min(_CHUNK, end - at))  # it was cut off meanwhile
            self._digest.add(data)
            yield from self._pack(data)
            at += len(data)

    def _pack(self, data: bytes) -> Iterator[bytes]:
        if packed := self._packing.compress(data):
            yield packed


_KINDS = {stat.S_IFDIR: tarfile.DIRTYPE, stat.S_IFLNK: tarfile.SYMTYPE, stat.S_IFIFO: tarfile.FIFOTYPE,
          stat.S_IFCHR: tarfile.CHRTYPE, stat.S_IFBLK: tarfile.BLKTYPE}  # fmt: skip


class _Replaced(Exception):
    """By something of another kind, since it was looked at."""


@contextlib.contextmanager
def _opened(path: Path, kind: int = 0) -> Iterator[int]:
    """A file, or by O_DIRECTORY a directory. It does not wait for a pipe's other end. :raise _Replaced: it is none."""
    try:
        fd = os.open(path, os.O_RDONLY | os.O_CLOEXEC | os.O_NOFOLLOW | os.O_NONBLOCK | kind)
    except OSError as error:
        if error.errno in (errno.ELOOP, errno.ENOTDIR, errno.ENXIO):  # a link, a file, a socket
            raise _Replaced from error
        raise
    try:
        if not kind and not stat.S_ISREG(os.fstat(fd).st_mode):
            raise _Replaced
        yield fd
    finally:
        os.close(fd)


def _parts(fd: int, size: int) -> Iterator[tuple[int, int]]:
    """From where on, and how much, holds data."""
    at = 0
    while at < size:
        try:
            start = os.lseek(fd, at, os.SEEK_DATA)
            end = min(os.lseek(fd, start, os.SEEK_HOLE), size)
        except OSError:  # only a hole is left
            return
        if start >= size:
            return
        yield start, end - start
        at = end


def _sparse_map(parts: Parts) -> bytes:
    numbers = [len(parts), *(n for part in parts for n in part)]
    data = "".join(f"{n}\n" for n in numbers).encode()
    return data + _padding(len(data))


def _extension(told: Mapping[str, str]) -> bytes:
    """A header of pax for the member that follows; nothing where nothing is told."""
    if not told:
        return b""
    body = b"".join(_record(k.encode(), v.encode(errors="surrogateescape")) for k, v in told.items())
    info = tarfile.TarInfo("PaxHeaders/file")
    info.type, info.size = tarfile.XHDTYPE, len(body)
    return info.tobuf(tarfile.USTAR_FORMAT) + body + _padding(len(body))


def _as_posix(header: bytes) -> bytes:
    """GNU tar takes what its header of pax says of holes from a file of POSIX' format only; sizes may be GNU's."""
    blank = header[:148] + b" " * 8 + header[156:257] + b"ustar\x0000" + header[265:]
    return blank[:148] + b"%06o\0 " % sum(blank) + blank[156:]


def _record(key: bytes, value: bytes) -> bytes:
    """`LENGTH KEY=VALUE`, where the length has its own digits in it."""
    rest = b" " + key + b"=" + value + b"\n"
    length = len(rest)
    while len(str(length)) + len(rest) != length:
        length = len(str(length)) + len(rest)
    return str(length).encode() + rest


def _attributes(path: Path) -> dict[str, str]:
    found = {}
    with contextlib.suppress(OSError):  # a file system that has none
        for name in os.listxattr(path, follow_symlinks=False):
            value = os.getxattr(path, name, follow_symlinks=False)
            found[f"{XATTR}{name}"] = value.decode(errors="surrogateescape")
    return found


def _padding(size: int) -> bytes:
    return bytes(-size % _BLOCK)
