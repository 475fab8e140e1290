# SPDX-License-Identifier: Apache-2.0
"""cp, with Docker's rules: https://docs.docker.com/reference/cli/docker/container/cp/"""

from __future__ import annotations

import os
import posixpath
import sys
import tarfile
import tempfile
from collections.abc import Iterator
from pathlib import Path
from typing import IO

import click

from ..client.api import Client, container_route
from ..errors import Conflict, InvalidArgument, NotFound, Unavailable
from ..model.status import PathStat
from .context import client
from .extract import BoundedHeader, Extractor, Parts, plain
from .standard import naming, write_all

_CHUNK = 256 << 10


def _split(text: str) -> tuple[str, str]:
    """`container:path`, or ("", path)."""
    name, colon, path = text.partition(":")
    if colon and "/" not in name and name not in ("", ".", ".."):
        return name, path or "/"
    return "", text


def _stat(c: Client, name: str, path: str) -> PathStat | None:
    try:
        return c.call(PathStat, "GET", container_route(name, "/archive/stat"), {"path": path})
    except NotFound as error:
        if "path in the container" in error.message:
            return None
        raise


@click.command()
@click.option("-a", "--archive", is_flag=True, help="Keep owner and group.")
@click.option("-L", "--follow-link", is_flag=True, help="Copy what a symbolic link points to.")
@click.option("-q", "--quiet", is_flag=True, help="Print nothing.")
@click.argument("source")
@click.argument("target")
def cp(source: str, target: str, archive: bool, follow_link: bool, quiet: bool) -> None:
    """Copy files between a container and this host.

    One of SOURCE and TARGET is CONTAINER:PATH; the other is a path here, or -
    for a tar stream on stdin or stdout.
    """
    from_name, from_path = _split(source)
    to_name, to_path = _split(target)
    if bool(from_name) == bool(to_name):
        raise InvalidArgument(
            "copying needs one container and one path of this host", hint="write CONTAINER:PATH on one side"
        )
    c = client()
    if from_name:
        _copy_out(c, from_name, from_path, to_path, follow=follow_link, keep_owner=archive)
    else:
        _copy_in(c, from_path, to_name, to_path, follow=follow_link, keep_owner=archive)
    if not quiet and to_path != "-" and sys.stderr.isatty():
        print(f"Copied to {target}", file=sys.stderr)


# -- out of a container -------------------------------------------------------------


class ByteStream:
    """Pieces of an answer as a file for tarfile."""

    def __init__(self, chunks: Iterator[bytes]) -> None:
        self._chunks = chunks
        self._buffer = b""
        self.empty = True

    def read(self, size: int) -> bytes:
        while len(self._buffer) < size:
            piece = next(self._chunks, b"")
            if not piece:
                break
            self.empty = False
            self._buffer += piece
        out, self._buffer = self._buffer[:size], self._buffer[size:]
        return out


def _copy_out(c: Client, name: str, path: str, target: str, *, follow: bool, keep_owner: bool) -> None:
    response = c.open("GET", container_route(name, "/archive"), {"path": path, "follow": follow})
    with response.connection:
        if target == "-":
            if sys.stdout.isatty():
                raise InvalidArgument("refusing to write a tar stream to a terminal", hint="redirect stdout")
            for chunk in response.chunks():
                write_all(1, memoryview(chunk))
            return
        with naming(target):
            unpack(ByteStream(response.chunks()), path, Path(target), target.endswith("/"), keep_owner=keep_owner)


def unpack(stream: ByteStream, path: str, target: Path, must_be_dir: bool, *, keep_owner: bool) -> None:
    """Into `target` when it is a directory, else as `target`.

    Members are what was asked for, or below it; under which name it goes is for the user to say, not for the archive.
    """
    try:
        with tarfile.open(
            fileobj=stream, mode="r|", encoding="utf-8", errors="surrogateescape", tarinfo=BoundedHeader
        ) as tar:  # type: ignore[call-overload]
            member: tarfile.TarInfo | None = tar.next()
            if member is None:
                raise NotFound(f"no such path in the container: {path}")
            base = plain(member.name)
            directory, name = _place(path, target, must_be_dir, is_dir=member.isdir())
            root = os.open(
                directory, os.O_RDONLY | os.O_DIRECTORY | os.O_CLOEXEC
            )  # the user's own path: its links count
            try:
                with Extractor(root, keep_owner=keep_owner) as extractor:
                    while member is not None:
                        if parts := _renamed(member.name, base, name):
                            linked = _renamed(member.linkname, base, name) if member.islnk() else ()
                            extractor.extract(
                                member, parts, tar.extractfile(member) if member.isreg() else None, linked
                            )
                        tar.members.clear()  # or it keeps them all
                        member = tar.next()
            finally:
                os.close(root)
    except tarfile.TarError as error:
        raise (
            NotFound(f"no such path in the container: {path}")
            if stream.empty
            else Unavailable(f"the archive of {path} is not understood: {error}", hint="try again")
        ) from error


def _place(path: str, target: Path, must_be_dir: bool, *, is_dir: bool) -> tuple[Path, Parts]:
    """Directory of this host to unpack in, and the first member's name there, () for the contents of a directory."""
    clean = posixpath.normpath("/" + path)
    contents = path.endswith("/.") or path == "." or clean in ("/", "//")
    if contents and not is_dir:
        raise InvalidArgument(f"{path} is no directory in the container", hint="leave the /. out")
    if target.is_dir():
        return target, () if contents else plain(posixpath.basename(clean))
    if target.exists() and is_dir:
        raise Conflict(f"cannot copy a directory over the file {target}")
    if target.exists() and not target.is_file():
        raise InvalidArgument(f"{target} is a device", hint="name a file or a directory")
    if must_be_dir and not is_dir:
        raise NotFound(f"no such directory: {target}", hint="create it first")
    if not target.parent.is_dir():
        raise NotFound(f"no such directory: {target.parent}", hint="create it first")
    if contents:
        target.mkdir()
        return target, ()
    return target.parent, (os.fsencode(target.name),)


def _renamed(name: str, base: Parts, new: Parts) -> Parts:
    """:raise InvalidArgument: it is neither the member that was asked for nor below it."""
    parts = plain(name)
    if parts[: len(base)] != base:
        raise InvalidArgument(f"refusing {name[:200]!r}: it is not below the path that was asked for")
    return new + parts[len(base) :]


# -- into a container ---------------------------------------------------------------


def _copy_in(c: Client, source: str, name: str, path: str, *, follow: bool, keep_owner: bool) -> None:
    if source == "-":
        _send(c, name, path, iter(lambda: sys.stdin.buffer.read(_CHUNK), b""))
        return
    local = Path(os.path.realpath(source)) if follow else Path(source)
    if not os.path.lexists(local):
        raise NotFound(f"no such file or directory: {source}")
    contents = source.endswith("/.")
    directory, rename = _destination(
        c,
        name,
        path,
        source_is_dir=local.is_dir(),
        base="." if contents else Path(os.path.abspath(local)).name or ".",
        contents=contents,
    )
    with tempfile.TemporaryFile() as spool:
        _pack(spool, local, rename, keep_owner=keep_owner)
        spool.seek(0)
        _send(c, name, directory, iter(lambda: spool.read(_CHUNK), b""))


def _destination(c: Client, name: str, path: str, *, source_is_dir: bool, base: str, contents: bool) -> tuple[str, str]:
    """Directory of the container to unpack in, and the first entry's name."""
    stat = _stat(c, name, path)
    if stat is not None and stat.link_target:
        stat = _stat(c, name, path.rstrip("/") + "/.") or stat
    if stat is not None and (stat.is_dir or stat.name == "."):
        return path, base
    parent, _, last = path.rstrip("/").rpartition("/")
    if stat is not None and source_is_dir:
        raise Conflict(f"cannot copy a directory over the file {path} of the container")
    if stat is None and path.endswith("/") and not source_is_dir:
        raise NotFound(f"no such directory in the container: {path}", hint="create it first")
    if contents and stat is None:
        return parent or "/", last
    return parent or "/", last


def _pack(out: IO[bytes], local: Path, name: str, *, keep_owner: bool) -> None:
    def owner(info: tarfile.TarInfo) -> tarfile.TarInfo:
        if not keep_owner:
            info.uid = info.gid = 0
        info.uname = info.gname = ""
        return info

    with tarfile.open(fileobj=out, mode="w", format=tarfile.PAX_FORMAT) as tar:
        tar.add(local, arcname=name, filter=owner)


def _send(c: Client, name: str, path: str, chunks: Iterator[bytes]) -> None:
    c.open("PUT", container_route(name, "/archive"), {"path": path}, body=chunks).read()
