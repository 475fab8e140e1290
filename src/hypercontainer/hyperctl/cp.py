# SPDX-License-Identifier: Apache-2.0
"""cp, with Docker's rules: https://docs.docker.com/reference/cli/docker/container/cp/"""

from __future__ import annotations

import os
import sys
import tarfile
import tempfile
from collections.abc import Iterator
from pathlib import Path
from typing import IO

import click

from ..client.api import Client, container_route
from ..errors import Conflict, InvalidArgument, NotFound
from ..model.status import PathStat
from .context import client

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
        raise InvalidArgument("copying needs one container and one path of this host", hint="write CONTAINER:PATH on one side")
    c = client()
    if from_name:
        _copy_out(c, from_name, from_path, to_path, follow=follow_link, keep_owner=archive)
    else:
        _copy_in(c, from_path, to_name, to_path, follow=follow_link, keep_owner=archive)
    if not quiet and to_path != "-" and sys.stderr.isatty():
        print(f"Copied to {target}", file=sys.stderr)


# -- out of a container -------------------------------------------------------------


class _Stream:
    """Pieces of an answer as a file for tarfile."""

    def __init__(self, chunks: Iterator[bytes]) -> None:
        self._chunks = chunks
        self._buffer = b""

    def read(self, size: int) -> bytes:
        while len(self._buffer) < size:
            piece = next(self._chunks, b"")
            if not piece:
                break
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
                sys.stdout.buffer.write(chunk)
            sys.stdout.buffer.flush()
            return
        with tarfile.open(fileobj=_Stream(response.chunks()), mode="r|", errors="surrogateescape") as tar:  # type: ignore[call-overload]
            _unpack(tar, path, Path(target), target.endswith("/"), keep_owner=keep_owner)


def _unpack(tar: tarfile.TarFile, path: str, target: Path, must_be_dir: bool, *, keep_owner: bool) -> None:
    """Into `target` when it is a directory, else as `target`; nothing leaves it."""
    first = tar.next()
    if first is None:
        raise NotFound(f"no such path in the container: {path}")
    contents = path.endswith("/.") or path in ("/", ".")
    base = first.name.rstrip("/")
    if target.is_dir():
        directory, rename = target, None if contents else base
    elif target.exists() and first.isdir():
        raise Conflict(f"cannot copy a directory over the file {target}")
    elif must_be_dir and not first.isdir():
        raise NotFound(f"no such directory: {target}", hint="create it first")
    elif not target.parent.is_dir():
        raise NotFound(f"no such directory: {target.parent}", hint="create it first")
    else:
        directory, rename = target.parent, target.name
        if contents:
            target.mkdir()
            directory, rename = target, None
    member: tarfile.TarInfo | None = first
    while member is not None:
        rest = member.name.rstrip("/").removeprefix(base).lstrip("/")
        name = "/".join(filter(None, [rename or "", rest])) or "."
        if not (contents and name == "."):
            linkname = member.linkname
            if member.islnk():
                linkname = "/".join(filter(None, [rename or "", linkname.removeprefix(base).lstrip("/")]))
            owner = {} if keep_owner else {"uid": os.getuid(), "gid": os.getgid(), "uname": "", "gname": ""}
            tar.extract(member.replace(name=name, linkname=linkname, deep=False, **owner), directory, filter=_inside)  # type: ignore[arg-type]
        member = tar.next()


def _inside(member: tarfile.TarInfo, directory: str) -> tarfile.TarInfo:
    """Refuse what a hostile archive would write elsewhere; keep modes and dangling links."""
    if member.isdev():
        raise InvalidArgument(f"refusing to make the device {member.name} on this host")
    parts = Path(member.name).parts
    real = os.path.realpath(os.path.join(directory, os.path.dirname(member.name)))
    if (
        member.name.startswith("/")
        or ".." in parts
        or os.path.commonpath([real, os.path.realpath(directory)]) != os.path.realpath(directory)
    ):
        raise InvalidArgument(f"refusing {member.name!r}: it would leave {directory}")
    if member.islnk() and (member.linkname.startswith("/") or ".." in Path(member.linkname).parts):
        raise InvalidArgument(f"refusing the hard link {member.name!r}: it would leave {directory}")
    return member


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
        c, name, path, source_is_dir=local.is_dir(), base="." if contents else Path(os.path.abspath(local)).name, contents=contents
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
