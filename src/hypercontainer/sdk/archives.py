# SPDX-License-Identifier: Apache-2.0
"""Tar streams between this host and a sandbox: files of a program's memory, and trees of its disk."""

from __future__ import annotations

import io
import os
import tarfile
import time
from collections.abc import AsyncIterator
from pathlib import Path
from typing import IO

from ..errors import InvalidArgument, NotFound, Unavailable, Unsupported

_PIECE = 1 << 20
_HEAD = 1 << 20  # bytes of an archive in which its first file begins


def one_file(path: str, data: bytes, mode: int) -> bytes:
    """An archive of one file, by its absolute path in the sandbox."""
    info = tarfile.TarInfo(path.lstrip("/"))
    info.size, info.mode, info.mtime = len(data), mode, int(time.time())
    return _archive(info, data)


def one_directory(path: str, mode: int) -> bytes:
    """An archive of one directory, by its absolute path in the sandbox."""
    info = tarfile.TarInfo(path.lstrip("/"))
    info.type, info.mode, info.mtime = tarfile.DIRTYPE, mode, int(time.time())
    return _archive(info, b"")


def _archive(info: tarfile.TarInfo, data: bytes) -> bytes:
    made = io.BytesIO()
    with tarfile.open(fileobj=made, mode="w", format=tarfile.PAX_FORMAT) as tar:
        tar.addfile(info, io.BytesIO(data))
    return made.getvalue()


class Contents:
    """Of the archive's one file, as the archive comes; `size` is known when `begin` has returned."""

    def __init__(self, archive: AsyncIterator[bytes], path: str) -> None:
        self._archive = archive
        self._path = path
        self._first = b""
        self.size = 0

    async def begin(self) -> None:
        """:raise InvalidArgument: it is something else."""
        head = bytearray()
        async for piece in self._archive:
            head += piece
            if len(head) >= _HEAD:  # which extended attributes may be before
                break
        try:
            with tarfile.open(fileobj=io.BytesIO(head), mode="r:") as tar:
                info = tar.next()
        except tarfile.TarError:
            info = None
        if info is None or not info.isreg() or info.sparse is not None:
            raise InvalidArgument(f"{self._path} is no file", hint="`files.download` takes directories")
        self.size, self._first = info.size, bytes(head[info.offset_data :])

    async def pieces(self, offset: int = 0, limit: int | None = None) -> AsyncIterator[bytes]:
        """From that byte on, so many at most. :raise Unavailable: the archive ends before its file."""
        at, end = 0, self.size if limit is None else min(self.size, offset + limit)
        piece = self._first
        while at < end:
            if part := piece[max(0, offset - at) : end - at]:
                yield part
            at += len(piece)
            if at < end and not (piece := await anext(self._archive, b"")):
                raise Unavailable(f"{self._path} did not come whole", hint="try again")


def pack(local: Path, name: str, into: IO[bytes]) -> None:
    """A file or a tree of this host, as `name`; what belongs to whom here says nothing there: it becomes root's.

    :raise NotFound: there is none. :raise Unsupported: something in it is no file, directory or symbolic link.
    :raise InvalidArgument: it cannot be read.
    """
    if not os.path.lexists(local):
        raise NotFound(f"no such file or directory here: {local}")

    def taken(info: tarfile.TarInfo) -> tarfile.TarInfo:
        if not (info.isfile() or info.isdir() or info.issym() or info.islnk()):
            raise Unsupported(f"{local}: {info.name} is no file, directory or symbolic link")
        info.uid = info.gid = 0
        info.uname = info.gname = ""
        return info

    try:
        with tarfile.open(fileobj=into, mode="w", format=tarfile.PAX_FORMAT) as tar:
            tar.add(local, arcname=name.lstrip("/"), filter=taken)
    except OSError as error:
        raise InvalidArgument(f"{error.filename or local} cannot be sent: {error.strerror or error}") from None
    into.seek(0)


def unpack(archive: IO[bytes], local: Path) -> None:
    """The archive's first entry as `local`, what is below it within that; nothing leads out of it.

    :raise InvalidArgument: a member would be made elsewhere, or is a device, or cannot be made.
    """
    try:
        with tarfile.open(fileobj=archive) as tar:
            top = ""
            for member in tar:
                top = top or member.name.rstrip("/")
                inner = _inner(member.name, top)
                if inner == "." and not member.isdir():
                    local.parent.mkdir(parents=True, exist_ok=True)
                    _make_way(local.parent, local.name, member)
                    tar.extract(member.replace(name=local.name, deep=False), local.parent, filter="data")
                    return
                _make_way(local, inner, member)
                if member.islnk():
                    target = _inner(member.linkname, top)
                    _refuse_links(local, target)
                    member = member.replace(linkname=target, deep=False)
                tar.extract(member.replace(name=inner, deep=False), local, filter="data")
    except (tarfile.TarError, ValueError) as error:
        raise InvalidArgument(f"what the sandbox sends cannot be unpacked here: {error}") from None
    except OSError as error:
        raise InvalidArgument(f"{local} cannot be written: {error.strerror or error}") from None


def _inner(name: str, top: str) -> str:
    """:raise ValueError: it does not lie below the top, by its name alone."""
    inner = os.path.relpath(name, top)
    if inner.split("/")[0] == ".." or os.path.isabs(name) != os.path.isabs(top):
        raise ValueError(f"{name} is outside of {top}")
    return inner


def _make_way(local: Path, inner: str, member: tarfile.TarInfo) -> None:
    """Nothing is written through a link: one that has the member's own name gives way to it.

    tarfile's filter asks `os.path.realpath`, which earlier versions of Python let be deceived by long chains of links.

    :raise ValueError: a directory on the way is one.
    """
    _refuse_links(local, inner if member.isdir() else os.path.dirname(inner))
    place = local / inner
    if not member.isdir() and place.is_symlink():
        place.unlink()


def _refuse_links(local: Path, inner: str) -> None:
    """:raise ValueError: a part of the path below `local` is a symbolic link."""
    place = local
    for part in Path(inner).parts:
        place = place / part
        if place.is_symlink():
            raise ValueError(f"{place} is a symbolic link")


async def pieces(file: IO[bytes]) -> AsyncIterator[bytes]:
    """What a file has, as a request's body."""
    while data := file.read(_PIECE):
        yield data
