# SPDX-License-Identifier: Apache-2.0
"""What a build gives that is no image of the store: a tree of files, or one file.

A tree comes by fsutil's protocol (https://github.com/tonistiigi/fsutil, types/wire.proto): descriptions of all files
(field 2, Stat), then, for each that was asked for by its number, its contents.
"""

from __future__ import annotations

import contextlib
import os
import stat
from collections.abc import Iterator
from dataclasses import dataclass
from pathlib import Path
from typing import BinaryIO

from ...errors import HyperError, InvalidArgument
from ...model.protobuf import Fields, decoded, encoded, messages, raw, text, whole
from .grpc import INVALID, Call, CallError, Handler

PATH = "/moby.filesync.v1.FileSend/DiffCopy"
_STAT, _REQUEST, _DATA, _FIN, _ERROR = range(5)  # types of packets
# Go's FileMode: https://pkg.go.dev/io/fs#FileMode
_DIRECTORY, _SYMLINK, _KINDS = 1 << 31, 1 << 27, 0x8F280000
_BITS = ((1 << 23, stat.S_ISUID), (1 << 22, stat.S_ISGID), (1 << 20, stat.S_ISVTX))
_NO_FOLLOW = os.O_NOFOLLOW | os.O_CLOEXEC


def to_file(out: BinaryIO, where: str) -> Handler:
    """Take a tar, or what else is one file; `where` it is, for people."""

    def take(call: Call) -> None:
        with _writing(where):
            for message in call.messages():
                out.write(raw(decoded(message), 1))
            out.flush()

    return take


def to_directory(root: Path) -> Handler:
    """Take a tree; what is in the directory stays, except files of the same names. Everything is this user's."""

    def take(call: Call) -> None:
        with _writing(str(root)):
            root.mkdir(parents=True, exist_ok=True)
            with _Tree(root) as tree:
                _receive(call, tree)

    return take


@contextlib.contextmanager
def _writing(where: str) -> Iterator[None]:
    """:raise HyperError: in place of an OSError."""
    try:
        yield
    except OSError as error:
        raise HyperError(f"cannot write {where}: {error.strerror or error}") from error


@dataclass(frozen=True)
class _File:
    """One that the builder describes."""

    path: str
    mode: int  # Go's
    mtime: int  # nanoseconds
    target: str  # of a symbolic link; of a hard link, the path of the first

    @classmethod
    def of(cls, fields: Fields) -> _File:
        return cls(text(fields, 1), whole(fields, 2), whole(fields, 6), text(fields, 7))

    @property
    def permissions(self) -> int:
        return (self.mode & 0o777) | sum(bit for go, bit in _BITS if self.mode & go)

    @property
    def regular(self) -> bool:
        return not self.mode & _KINDS


def _receive(call: Call, tree: _Tree) -> None:
    """:raise CallError: what comes is not what the protocol says."""
    packets = (decoded(message) for message in call.messages())
    files: dict[int, _File] = {}
    for number, described in enumerate(_described(packets)):
        tree.make(described)
        if described.regular and not described.target:
            files[number] = described
    for number, file in files.items():
        call.send(encoded({1: _REQUEST, 3: number}))
        with tree.writing(file) as out:
            for packet in packets:
                if whole(packet, 1) != _DATA or whole(packet, 3) != number:
                    raise CallError(INVALID, "the contents of another file were asked for")
                if not (data := raw(packet, 4)):
                    break
                out.write(data)
    tree.finish()
    call.send(encoded({1: _FIN}))
    for packet in packets:
        if whole(packet, 1) == _FIN:
            return


def _described(packets: Iterator[Fields]) -> Iterator[_File]:
    for packet in packets:
        if whole(packet, 1) == _ERROR:
            raise CallError(INVALID, text(packet, 4))
        if not (found := next(messages(packet, 2), None)):
            return
        yield _File.of(found)


class _Tree:
    """Files below a directory. What is named is the builder's word, so no link in it is followed."""

    def __init__(self, root: Path) -> None:
        self._root = os.open(root, os.O_DIRECTORY | os.O_CLOEXEC)
        self._made: list[_File] = []

    def __enter__(self) -> _Tree:
        return self

    def __exit__(self, *_: object) -> None:
        os.close(self._root)

    @contextlib.contextmanager
    def _at(self, path: str) -> Iterator[tuple[int, str]]:
        """The directory that a path is in, opened, and its name there.

        :raise InvalidArgument: it leads out of the tree. :raise OSError: there is no such directory.
        """
        *parents, name = path.split("/")
        if not name or any(part in ("", ".", "..") for part in [*parents, name]):
            raise InvalidArgument(f"the builder names a file {path!r}, which is not below the directory")
        at = os.dup(self._root)
        try:
            for part in parents:
                inner = os.open(part, os.O_DIRECTORY | _NO_FOLLOW, dir_fd=at)
                os.close(at)
                at = inner
            yield at, name
        finally:
            os.close(at)

    def make(self, file: _File) -> None:
        """A directory or a link; of a file, only the place. :raise HyperError: it is of no kind that can be made."""
        with self._at(file.path) as (at, name):
            if file.mode & _DIRECTORY:
                with contextlib.suppress(FileNotFoundError):
                    if not stat.S_ISDIR(os.stat(name, dir_fd=at, follow_symlinks=False).st_mode):
                        os.unlink(name, dir_fd=at)
                with contextlib.suppress(FileExistsError):
                    os.mkdir(name, 0o700, dir_fd=at)
            else:
                with contextlib.suppress(FileNotFoundError):
                    os.unlink(name, dir_fd=at)
                if file.mode & _SYMLINK:
                    os.symlink(file.target, name, dir_fd=at)
                elif not file.regular:
                    raise HyperError(f"{file.path} is a device or a socket", hint="take a tar: --output type=tar")
        self._made.append(file)

    @contextlib.contextmanager
    def writing(self, file: _File) -> Iterator[BinaryIO]:
        """Its contents."""
        with self._at(file.path) as (at, name):
            number = os.open(name, os.O_WRONLY | os.O_CREAT | os.O_EXCL | _NO_FOLLOW, 0o600, dir_fd=at)
            with open(number, "wb") as out:
                yield out
                out.flush()
                os.fchmod(number, file.permissions)
                os.utime(number, ns=(file.mtime, file.mtime))

    def finish(self) -> None:
        """Hard links; then modes and times of directories, which what is made in them changes."""
        for file in self._made:
            if file.regular and file.target:
                with self._at(file.target) as (origin, first), self._at(file.path) as (at, name):
                    os.link(first, name, src_dir_fd=origin, dst_dir_fd=at, follow_symlinks=False)
        for file in reversed(self._made):
            if file.mode & _DIRECTORY:
                with self._at(file.path) as (at, name):
                    number = os.open(name, os.O_DIRECTORY | _NO_FOLLOW, dir_fd=at)
                    try:
                        os.fchmod(number, file.permissions)
                        os.utime(number, ns=(file.mtime, file.mtime))
                    finally:
                        os.close(number)
