# SPDX-License-Identifier: Apache-2.0
"""`hyperd --restore`: a root directory out of a backup.

A mark lies in the root until all is there and has been checked: with it no hyperd starts on this root, and another
restore begins anew. What fails leaves the root as empty as it was.
"""

from __future__ import annotations

import contextlib
import errno
import os
import tarfile
from collections.abc import Iterator
from dataclasses import dataclass
from itertools import takewhile
from pathlib import Path, PurePosixPath
from typing import Any, BinaryIO, TypeVar, cast

import msgspec
import zstandard

from ...errors import Conflict, InvalidArgument, Unavailable
from ...model.base import Model
from ...model.status import Volume
from ...state import copy, description, ledger_names
from ...state.database import Database
from ...state.migrations import SCHEMA
from ...sys.documents import UNREADABLE
from ...sys.files import no_space_as_error
from ...sys.trees import remove_tree
from ..paths import Paths
from .archive import END, FORMAT, MANIFEST, XATTR, Digest, End, Manifest, Parts

MARK = "restoring"
_LOCK = "hyperd.lock"
_TOPS = ("state.db", "keys", "images", "snapshots", "volume-snapshots", "containers", "pods", "volumes")
_CHUNK, _DOCUMENT_MAX = 1 << 20, 64 << 20  # bytes
_NO_PLACE = (errno.ELOOP, errno.ENOTDIR, errno.ENAMETOOLONG)  # below a link, or a file; a name that no system takes
_DIRECTORY = os.O_RDONLY | os.O_DIRECTORY | os.O_CLOEXEC
_NEW = os.O_WRONLY | os.O_CREAT | os.O_EXCL | os.O_CLOEXEC
_NONE = "the file is no backup of hyperd's"
_DAMAGED = "the backup is damaged, or not all there"
_GARBLED = (ValueError, OverflowError, FileNotFoundError, NotADirectoryError)  # what is found of it makes no sense
M = TypeVar("M", bound=Model)


@dataclass(frozen=True)
class PutBack:
    """What is there now."""

    manifest: Manifest
    end: End
    containers: int
    volumes: int


def check_whole(root: Path) -> None:
    """:raise Unavailable: a restore of this root has not come to its end."""
    if (root / MARK).exists():
        raise Unavailable(f"a restore of {root} has not come to its end",
                          hint="begin it again with `hyperd --restore FILE`, or remove the directory")  # fmt: skip


def put_back(source: BinaryIO, paths: Paths) -> PutBack:
    """Fill an empty root, whose lock the caller has. It blocks.

    :raise Conflict: the root is not empty. :raise InvalidArgument: it is no backup, or damaged.
    :raise Unavailable: it is of a newer hyperd. :raise NoSpace: the disk is full. All is as it was then.
    """
    root = paths.root
    mark = root / MARK
    if not mark.exists() and (found := sorted(set(os.listdir(root)) - {_LOCK})):
        raise Conflict(f"{root} is not empty: there is {found[0]}", hint="move it away, or give another --root")
    _clear(root)
    mark.touch(mode=0o600)
    try:
        with no_space_as_error(root):
            with _Places(root) as places:
                done = _Taking(source, paths, places).all()
            os.sync()  # before the mark goes
    except BaseException:
        _clear(root)
        mark.unlink()
        raise
    mark.unlink()
    return done


def _clear(root: Path) -> None:
    for path in root.iterdir():
        if path.name in (_LOCK, MARK):
            continue
        if path.is_dir() and not path.is_symlink():
            remove_tree(path)
        else:
            path.unlink()


class _Places:
    """Where members lie: reached directory by directory, so that no link leads elsewhere, and names may be long."""

    def __init__(self, root: Path) -> None:
        self._root = os.open(root, _DIRECTORY)
        self._parent: tuple[tuple[str, ...], int] = ((), self._root)  # of the last member, open

    def __enter__(self) -> _Places:
        return self

    def __exit__(self, *_: object) -> None:
        self._keep((), self._root)
        os.close(self._root)

    def of(self, name: str) -> _Place:
        """:raise InvalidArgument: it would lie elsewhere. :raise OSError: there is a link on the way, or a file."""
        path = PurePosixPath(name)
        if path.is_absolute() or ".." in path.parts or not path.parts or path.parts[0] not in _TOPS:
            raise _misplaced(name)
        above = path.parts[:-1]
        known, fd = self._parent
        if above != known:
            common = sum(1 for _ in takewhile(lambda both: both[0] == both[1], zip(known, above, strict=False)))
            way = (*[".."] * (len(known) - common), *above[common:])  # nobody else moves anything here
            self._keep(above, _reached(fd, way))
        return _Place(self._parent[1], path.name)

    def _keep(self, above: tuple[str, ...], fd: int) -> None:
        before = self._parent[1]
        self._parent = (above, fd)
        if before not in (fd, self._root):
            os.close(before)


def _reached(start: int, names: tuple[str, ...]) -> int:
    """A directory, seen from another one, which is made if it is not there.

    :raise OSError: there is something else, or a link.
    """
    fd = os.dup(start)
    for name in names:
        try:
            with contextlib.suppress(FileExistsError):
                os.mkdir(name, 0o700, dir_fd=fd)
            inner = os.open(name, _DIRECTORY | os.O_NOFOLLOW, dir_fd=fd)
        finally:
            os.close(fd)
        fd = inner
    return fd


@dataclass(frozen=True)
class _Place:
    """A name in an open directory."""

    at: int
    name: str

    def describe(self, info: tarfile.TarInfo, extended: dict[str, str]) -> None:
        """Owner, mode, attributes, time; root's alone are those of others."""
        if os.geteuid() == 0:
            os.chown(self.name, info.uid, info.gid, dir_fd=self.at, follow_symlinks=False)
        if not info.issym():
            os.chmod(self.name, info.mode, dir_fd=self.at)
        for key, value in extended.items():
            os.setxattr(f"/proc/self/fd/{self.at}/{self.name}", key.removeprefix(XATTR),
                        value.encode(errors="surrogateescape"), follow_symlinks=False)  # fmt: skip
        self.date(int(info.mtime))

    def date(self, moment: int) -> None:
        os.utime(self.name, (moment, moment), dir_fd=self.at, follow_symlinks=False)


class _Taking:
    """Of one archive."""

    def __init__(self, source: BinaryIO, paths: Paths, places: _Places) -> None:
        self._source = source
        self._paths = paths
        self._places = places
        self._digest = Digest()
        self._began = False
        self._times: list[tuple[str, int]] = []  # of directories, which change as they are filled

    def all(self) -> PutBack:
        try:
            with zstandard.ZstdDecompressor().stream_reader(self._source) as stream:
                with tarfile.open(fileobj=stream, mode="r|") as archive:
                    manifest, end = self._members(archive)
                while stream.read(_CHUNK):  # to its own checksum
                    pass
        except (tarfile.TarError, zstandard.ZstdError, *_GARBLED) as error:
            if not self._began:
                raise InvalidArgument(_NONE,
                                      hint="`hyperctl backup create` makes one") from error  # fmt: skip
            raise InvalidArgument(f"{_DAMAGED}: {error}", hint="use another copy of it") from error
        for name, moment in reversed(self._times):
            self._places.of(name).date(moment)
        return self._move_in(manifest, end)

    def _members(self, archive: tarfile.TarFile) -> tuple[Manifest, End]:
        manifest = _checked(archive, archive.next())
        self._began = True
        while info := archive.next():
            cast(Any, archive).members.clear()  # there may be millions
            if info.name == END:
                end = _document(archive, info, End)
                if end.digest != self._digest.value():
                    raise InvalidArgument(f"{_DAMAGED}: its digest is another", hint="use another copy of it")
                return manifest, end
            try:
                self._take(archive, info)
            except FileExistsError as error:
                raise InvalidArgument(f"{_NONE}: it has {info.name[:100]!r} twice") from error
            except OSError as error:
                if error.errno in _NO_PLACE:
                    raise _misplaced(info.name) from error
                raise
        raise InvalidArgument(f"{_DAMAGED}: its end is missing", hint="use another copy of it")

    def _take(self, archive: tarfile.TarFile, info: tarfile.TarInfo) -> None:
        extended = {k: v for k, v in info.pax_headers.items() if k.startswith(XATTR)}
        parts = self._parts(info)
        self._digest.begin(info, info.name, parts, extended)
        if info.islnk():
            self._link(info)
            return
        place = self._places.of(info.name)
        if info.isreg():
            self._file(archive, info, place, parts)
        elif info.isdir():
            os.mkdir(place.name, 0o700, dir_fd=place.at)
            self._times.append((info.name, int(info.mtime)))
        elif info.issym():
            os.symlink(info.linkname, place.name, dir_fd=place.at)
        else:
            _special(info, place)
        place.describe(info, extended)

    def _link(self, info: tarfile.TarInfo) -> None:
        """A further name of a file, which may be a link itself: nothing is followed."""
        with _opened(self._places.of(info.linkname).at) as origin:
            place = self._places.of(info.name)
            os.link(PurePosixPath(info.linkname).name, place.name, src_dir_fd=origin, dst_dir_fd=place.at,
                    follow_symlinks=False)  # fmt: skip

    @staticmethod
    def _parts(info: tarfile.TarInfo) -> Parts:
        if info.sparse is not None:
            return [(at, length) for at, length in cast(Parts, info.sparse) if length]
        return [(0, info.size)] if info.isreg() and info.size else []

    def _file(self, archive: tarfile.TarFile, info: tarfile.TarInfo, place: _Place, parts: Parts) -> None:
        packed = cast(BinaryIO, archive.fileobj)  # what it has of a file comes in order, whatever holes there are
        with open(os.open(place.name, _NEW, 0o600, dir_fd=place.at), "wb") as out:
            os.ftruncate(out.fileno(), info.size)
            for at, length in parts:
                while length:
                    data = packed.read(min(_CHUNK, length))
                    if not data:
                        raise InvalidArgument(f"{_DAMAGED}: {info.name} is cut off", hint="use another copy of it")
                    self._digest.add(data)
                    os.pwrite(out.fileno(), data, at)
                    at, length = at + len(data), length - len(data)

    def _move_in(self, manifest: Manifest, end: End) -> PutBack:
        """What was of another directory is of this one; the database is one that can be read."""
        paths, before = self._paths, Path(manifest.root)
        if paths.database.is_symlink() or not paths.database.is_file():
            raise InvalidArgument(f"{_NONE}: it has no database")
        copy.adapt(paths.database, end.gone, before, paths.root)
        database = Database(paths.database)
        try:
            ledger_names.begin_anew(database)
            volumes = database.volumes()
            for volume in volumes:
                self._describe_anew(volume)
            return PutBack(manifest, end, len(database.containers()), len(volumes))
        finally:
            database.close()

    def _describe_anew(self, volume: Volume) -> None:
        directory = self._paths.volume(volume.name, volume.tenant)
        beside = directory.relative_to(self._paths.root)
        if (directory / description.NAME).exists() and directory.resolve() == self._paths.root.resolve() / beside:
            description.write(directory, volume)


def _checked(archive: tarfile.TarFile, info: tarfile.TarInfo | None) -> Manifest:
    if info is None or info.name != MANIFEST:
        raise InvalidArgument(_NONE, hint="`hyperctl backup create` makes one")
    manifest = _document(archive, info, Manifest)
    if manifest.format > FORMAT or manifest.schema > SCHEMA:
        raise Unavailable(f"the backup was made by a newer hyperd ({manifest.version}, schema {manifest.schema}; this "
                          f"one knows {SCHEMA})", hint="restore it with that one")  # fmt: skip
    return manifest


def _document(archive: tarfile.TarFile, info: tarfile.TarInfo, kind: type[M]) -> M:
    packed = archive.extractfile(info) if info.isreg() and info.size <= _DOCUMENT_MAX else None
    try:
        return msgspec.json.decode(packed.read() if packed else b"", type=kind)
    except UNREADABLE as error:
        raise InvalidArgument(f"{_NONE}: {error}") from error


def _special(info: tarfile.TarInfo, place: _Place) -> None:
    kinds = {tarfile.FIFOTYPE: 0o010000, tarfile.CHRTYPE: 0o020000, tarfile.BLKTYPE: 0o060000}
    if info.type not in kinds:
        raise InvalidArgument(f"{_NONE}: {info.name[:100]!r} is of a kind that none has")
    os.mknod(place.name, kinds[info.type] | 0o600, os.makedev(info.devmajor, info.devminor), dir_fd=place.at)


def _misplaced(name: str) -> InvalidArgument:
    return InvalidArgument(f"{_NONE}: it has {name[:100]!r}")


@contextlib.contextmanager
def _opened(fd: int) -> Iterator[int]:
    """The same directory, open a second time."""
    again = os.dup(fd)
    try:
        yield again
    finally:
        os.close(again)
