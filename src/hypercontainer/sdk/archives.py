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

from ..errors import InvalidArgument, NotFound, Unsupported

_PIECE = 1 << 20


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


def contents(archive: bytes, path: str) -> bytes:
    """Of the archive's one file.

    :raise InvalidArgument: it is something else.
    """
    with tarfile.open(fileobj=io.BytesIO(archive)) as tar:
        first = tar.next()
        file = tar.extractfile(first) if first and first.isfile() else None
        if file is None:
            raise InvalidArgument(f"{path} is no file", hint="`files.download` takes directories")
        return file.read()


def pack(local: Path, name: str, into: IO[bytes]) -> None:
    """A file or a tree of this host, as `name`; what belongs to whom here says nothing there: it becomes root's.

    :raise NotFound: there is none. :raise Unsupported: something in it is no file, directory or symbolic link.
    """
    if not os.path.lexists(local):
        raise NotFound(f"no such file or directory here: {local}")

    def taken(info: tarfile.TarInfo) -> tarfile.TarInfo:
        if not (info.isfile() or info.isdir() or info.issym() or info.islnk()):
            raise Unsupported(f"{local}: {info.name} is no file, directory or symbolic link")
        info.uid = info.gid = 0
        info.uname = info.gname = ""
        return info

    with tarfile.open(fileobj=into, mode="w", format=tarfile.PAX_FORMAT) as tar:
        tar.add(local, arcname=name.lstrip("/"), filter=taken)
    into.seek(0)


def unpack(archive: IO[bytes], local: Path) -> None:
    """The archive's first entry as `local`, what is below it within that; nothing leads out of it.

    :raise InvalidArgument: a member would be made elsewhere, or is a device.
    """
    with tarfile.open(fileobj=archive) as tar:
        try:
            top = ""
            for member in tar:
                top = top or member.name.rstrip("/")
                inner = os.path.relpath(member.name, top)
                if inner == "." and not member.isdir():
                    local.parent.mkdir(parents=True, exist_ok=True)
                    tar.extract(member.replace(name=local.name, deep=False), local.parent, filter="data")
                    return
                if member.islnk():
                    member = member.replace(linkname=os.path.relpath(member.linkname, top), deep=False)
                tar.extract(member.replace(name=inner, deep=False), local, filter="data")
        except tarfile.FilterError as error:
            raise InvalidArgument(f"what the sandbox sends cannot be unpacked here: {error}") from None


async def pieces(file: IO[bytes]) -> AsyncIterator[bytes]:
    """What a file has, as a request's body."""
    while data := file.read(_PIECE):
        yield data
