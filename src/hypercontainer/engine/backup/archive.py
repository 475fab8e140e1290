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
from collections.abc import Callable, Generator, Iterator, Mapping
from pathlib import Path

import msgspec
import zstandard

from ...model.base import Model
from ...sys.trees import Walk

FORMAT = 1
MANIFEST, END = "backup.json", "end.json"
XATTR = "SCHILY.xattr."
_BLOCK, _CHUNK = tarfile.BLOCKSIZE, 1 << 20
_LEVEL = 3
_NAME_MAX = 4095  # bytes of a member's name: no path of this system's is longer
_APART = (
    "volumes/"  # a file that goes meanwhile and one of another volume may have had one number: they are not the same
)
_TOLD, _SHOWN = 100, 200  # of missing files, and characters of a name of theirs
_Identity = tuple[int, int, int, int]  # of a file: device, number, size, time
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
    missing: int = 0  # files that went, were replaced or cut off meanwhile, or cannot be read
    such_as: list[str] = msgspec.field(default_factory=list)  # some of these, each with the reason


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
        self._shared: dict[_Identity, str] = {}  # files with several names -> the first of them
        self._links = self._shared
        self.missing = 0
        self.such_as: list[str] = []

    def document(self, name: str, document: Model) -> Iterator[bytes]:
        """The first member, or the last one."""
        data = msgspec.json.encode(document)
        info = tarfile.TarInfo(name)
        info.size, info.mode = len(data), 0o600
        yield from self._pack(info.tobuf(tarfile.GNU_FORMAT) + data + _padding(len(data)))

    def end(self, gone: list[str]) -> Iterator[bytes]:
        """The last pieces."""
        end = End(digest=self._digest.value(), gone=gone, missing=self.missing, such_as=self.such_as)
        yield from self.document(END, end)
        yield from self._pack(bytes(2 * _BLOCK))
        yield self._packing.flush()

    def tree(
        self, path: Path, name: str, instead: Mapping[Path, Path], leave: Callable[[Path], bool]
    ) -> Iterator[bytes]:
        """A file, or a directory with all in it, what is there of it: what goes meanwhile is left out, and counted.

        For some files their copies are read; `leave` says what is left out.
        """
        self._links = {} if name.startswith(_APART) else self._shared
        walk = Walk(path, lambda inside: self._miss(_joined(name, inside), "it was moved, or cannot be read"))
        for directory, entry in walk:
            inside = walk.path()
            if leave(place := path / inside):
                walk.skip()
                continue
            member = _joined(name, inside)
            is_directory = False
            try:
                is_directory = yield from self._entry(directory, entry, member, instead.get(place))
            except OSError as error:
                self._miss(member, error.strerror)
            if not is_directory:
                walk.skip()  # what has become one meanwhile is not read

    def _miss(self, name: str, reason: str | None) -> None:
        self.missing += 1
        if len(self.such_as) < _TOLD:
            self.such_as.append(f"{_shown(name)}: {reason or 'it cannot be read'}")

    def _entry(self, directory: int, entry: str, name: str, copy: Path | None) -> Generator[bytes, None, bool]:
        """Whether it is a directory. :raise OSError: nothing of it was written."""
        if len(os.fsencode(name)) > _NAME_MAX:
            raise OSError(errno.ENAMETOOLONG, "it lies too deep")
        with _opened(entry, os.O_PATH | os.O_NOFOLLOW, directory) as fd:
            about = os.fstat(fd)
            yield from self._member(fd, name, about, copy)
            return stat.S_ISDIR(about.st_mode)

    def _member(self, fd: int, name: str, about: os.stat_result, copy: Path | None) -> Iterator[bytes]:
        """`fd` stands for what was found, whatever is in its place by now."""
        info, place = tarfile.TarInfo(name), f"/proc/self/fd/{fd}"
        info.mode, info.uid, info.gid = stat.S_IMODE(about.st_mode), about.st_uid, about.st_gid
        info.mtime = int(about.st_mtime)
        identity = (about.st_dev, about.st_ino, about.st_size, about.st_mtime_ns)
        if about.st_nlink > 1 and (first := self._links.get(identity)):
            info.type, info.linkname = tarfile.LNKTYPE, first
        elif kind := _KINDS.get(stat.S_IFMT(about.st_mode)):
            info.type = kind
            if kind == tarfile.SYMTYPE:
                info.linkname = os.readlink("", dir_fd=fd)
            info.devmajor, info.devminor = os.major(about.st_rdev), os.minor(about.st_rdev)
        elif stat.S_ISREG(about.st_mode):
            yield from self._file(str(copy or place), info, _attributes(place))
            if about.st_nlink > 1:
                self._links[identity] = name
            return
        else:
            return  # a socket
        extended = {} if info.type == tarfile.LNKTYPE else _attributes(place)
        self._digest.begin(info, name, [], extended)
        yield from self._pack(_extension(extended) + info.tobuf(tarfile.GNU_FORMAT))

    def _file(self, path: str, info: tarfile.TarInfo, extended: dict[str, str]) -> Iterator[bytes]:
        with _opened(path, os.O_RDONLY) as fd:
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
            reading = _Reading(fd)
            for at, length in parts:
                while length:
                    data = reading.at(at, min(_CHUNK, length))
                    self._digest.add(data)
                    yield from self._pack(data)
                    at, length = at + len(data), length - len(data)
            yield from self._pack(_padding(stored))
            if reading.failed:
                self._miss(name, reading.failed)

    def _pack(self, data: bytes) -> Iterator[bytes]:
        if packed := self._packing.compress(data):
            yield packed


_KINDS = {stat.S_IFDIR: tarfile.DIRTYPE, stat.S_IFLNK: tarfile.SYMTYPE, stat.S_IFIFO: tarfile.FIFOTYPE,
          stat.S_IFCHR: tarfile.CHRTYPE, stat.S_IFBLK: tarfile.BLKTYPE}  # fmt: skip


class _Reading:
    """A file whose size has been told: where it ends before, or cannot be read, there are zeros, and it is no error."""

    def __init__(self, fd: int) -> None:
        self._fd = fd
        self.failed = ""

    def at(self, at: int, length: int) -> bytes:
        """So much at most, and something."""
        try:
            data = os.pread(self._fd, length, at)
        except OSError as error:
            data, self.failed = b"", error.strerror or "it cannot be read"
        if not data:
            self.failed = self.failed or "it was cut off meanwhile"
        return data or bytes(length)


@contextlib.contextmanager
def _opened(path: str, flags: int, directory: int | None = None) -> Iterator[int]:
    fd = os.open(path, flags | os.O_CLOEXEC, dir_fd=directory)
    try:
        yield fd
    finally:
        os.close(fd)


def _joined(name: str, inside: str) -> str:
    return f"{name}/{inside}" if inside else name


def _shown(name: str) -> str:
    """Of bytes that are no text, and of names that are long, what can be written anywhere."""
    text = os.fsencode(name).decode(errors="backslashreplace")
    return text if len(text) <= _SHOWN else f"{text[: _SHOWN // 2]}...{text[-_SHOWN // 2 :]}"


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


def _attributes(path: str) -> dict[str, str]:
    found = {}
    with contextlib.suppress(OSError):  # a file system that has none
        for name in os.listxattr(path):
            value = os.getxattr(path, name)
            found[f"{XATTR}{name}"] = value.decode(errors="surrogateescape")
    return found


def _padding(size: int) -> bytes:
    return bytes(-size % _BLOCK)
