# SPDX-License-Identifier: Apache-2.0
"""The context of a build: a directory as a tar, a tar as it is, or where the builder fetches one."""

from __future__ import annotations

import os
import re
import stat
import sys
import tarfile
from collections.abc import Iterator
from dataclasses import dataclass
from pathlib import Path
from typing import BinaryIO

from ..errors import HyperError, InvalidArgument, NotFound
from .dockerignore import Ignored

_CHUNK = 1 << 18  # bytes
_ELSEWHERE = re.compile(r"(https?|git|ssh)://|git@|github\.com/")
OUTSIDE = ".dockerfile.hyperctl"  # name of a Dockerfile that is not in the context
_COMPRESSED = (b"\x1f\x8b", b"BZh", b"\xfd7zXZ", b"\x28\xb5\x2f\xfd")


@dataclass(frozen=True)
class BuildContext:
    """What is sent: the query's parameters, the body, and the Dockerfile as far as it is known here."""

    query: dict[str, str]
    body: Iterator[bytes] | None
    dockerfile: str = ""


def open_context(where: str, dockerfile: str) -> BuildContext:
    """`where` is a directory, a URL, or `-` for stdin; `dockerfile` a path, `-` for stdin, or "" for the usual one.

    :raise NotFound: it, or the Dockerfile, is not there. :raise InvalidArgument: both would be read from stdin.
    """
    if where == "-":
        if dockerfile == "-":
            raise InvalidArgument("stdin cannot be both the context and the Dockerfile", hint="name one of them")
        return _from_stdin(sys.stdin.buffer, dockerfile)
    if _ELSEWHERE.match(where):
        if dockerfile == "-":
            raise InvalidArgument("the Dockerfile of a context elsewhere must be in it", hint="name its path there")
        return BuildContext({"remote": where, "dockerfile": dockerfile}, None)
    return _from_directory(Path(where), dockerfile)


def _from_stdin(stdin: BinaryIO, dockerfile: str) -> BuildContext:
    """A tar, compressed or not; or a Dockerfile, and an empty context."""
    head = stdin.read(512)
    if not head:
        raise InvalidArgument("there is nothing on stdin", hint="send a Dockerfile, or a context as a tar")
    if head[257:262] == b"ustar" or head.startswith(_COMPRESSED):

        def rest() -> Iterator[bytes]:
            yield head
            while data := stdin.read(_CHUNK):
                yield data

        return BuildContext({"dockerfile": dockerfile}, rest())
    text = head + stdin.read()
    body = iter([_member("Dockerfile", text), bytes(1024)])
    return BuildContext({"dockerfile": "Dockerfile"}, body, text.decode(errors="replace"))


def _from_directory(root: Path, dockerfile: str) -> BuildContext:
    if not root.is_dir():
        raise NotFound(f"the context {root} is no directory", hint="name a directory, a URL, or - for stdin")
    if dockerfile == "-":
        text = sys.stdin.buffer.read()
        body = _packed(root, Ignored(_ignore_file(root, None)), (), text)
        return BuildContext({"dockerfile": OUTSIDE}, body, text.decode(errors="replace"))
    path = Path(dockerfile) if dockerfile else root / "Dockerfile"
    if dockerfile and not path.exists() and not path.is_absolute() and (root / dockerfile).exists():
        path = root / dockerfile  # as a path in the context
    try:
        text = path.read_bytes()
    except OSError as error:
        raise NotFound(f"cannot read the Dockerfile {path}: {error.strerror}", hint="name it with -f") from error
    ignored = Ignored(_ignore_file(root, path))
    inside = os.path.relpath(path.resolve(), root.resolve())
    if inside.startswith(".."):
        body, inside = _packed(root, ignored, (), text), OUTSIDE
    else:
        body = _packed(root, ignored, (inside,))
    return BuildContext({"dockerfile": inside}, body, text.decode(errors="replace"))


def _ignore_file(root: Path, dockerfile: Path | None) -> str:
    """That of the Dockerfile, if it has one, else the context's."""
    own = [dockerfile.with_name(f"{dockerfile.name}.dockerignore")] if dockerfile else []
    for path in [*own, root / ".dockerignore"]:
        try:
            return path.read_text(errors="surrogateescape")
        except FileNotFoundError:
            continue
        except OSError as error:
            raise HyperError(f"cannot read {path}: {error.strerror}") from error
    return ""


def _packed(root: Path, ignored: Ignored, kept: tuple[str, ...], outside: bytes | None = None) -> Iterator[bytes]:
    """A tar of the directory, with everything root's, as Docker's client sends it; `kept` is never left out."""
    if outside is not None:
        yield _member(OUTSIDE, outside)
    links: dict[tuple[int, int], str] = {}
    for path, found in _walk(root, "", ignored, {*kept, ".dockerignore"}):
        info = tarfile.TarInfo(path)
        info.mtime, info.mode = int(found.st_mtime), stat.S_IMODE(found.st_mode)
        name = root / path
        if stat.S_ISDIR(found.st_mode):
            info.type = tarfile.DIRTYPE
        elif stat.S_ISLNK(found.st_mode):
            info.type, info.linkname = tarfile.SYMTYPE, os.readlink(name)
        elif stat.S_ISFIFO(found.st_mode):
            info.type = tarfile.FIFOTYPE
        elif not stat.S_ISREG(found.st_mode):
            continue  # a socket, or a device: no build has use for it
        elif found.st_nlink > 1 and (first := links.setdefault((found.st_dev, found.st_ino), path)) != path:
            info.type, info.linkname = tarfile.LNKTYPE, first
        else:
            yield from _file(info, name)
            continue
        yield _header(info)
    yield bytes(1024)


def _walk(root: Path, below: str, ignored: Ignored, kept: set[str]) -> Iterator[tuple[str, os.stat_result]]:
    """Paths in the context, sorted: the same tree gives the same tar. :raise HyperError: it cannot be read."""
    try:
        entries = sorted(os.scandir(root / below), key=lambda e: e.name)
        for entry in entries:
            path = f"{below}{entry.name}"
            out = path not in kept and ignored.leaves_out(path)
            directory = entry.is_dir(follow_symlinks=False)
            leads = directory and any(k.startswith(f"{path}/") for k in kept)
            if not out:
                yield path, entry.stat(follow_symlinks=False)
            if directory and (not out or ignored.excepts or leads):
                yield from _walk(root, f"{path}/", ignored, kept)
    except OSError as error:
        raise HyperError(
            f"cannot read {error.filename or root}: {error.strerror}", hint="leave it out in .dockerignore"
        ) from error


def _file(info: tarfile.TarInfo, path: Path) -> Iterator[bytes]:
    """:raise HyperError: it cannot be read, or changes meanwhile."""
    try:
        with open(path, "rb") as file:
            info.size = left = os.fstat(file.fileno()).st_size
            yield _header(info)
            while left:
                data = file.read(min(_CHUNK, left))
                if not data:
                    raise HyperError(f"{path} became shorter while it was read", hint="build again")
                left -= len(data)
                yield data
    except OSError as error:
        raise HyperError(f"cannot read {path}: {error.strerror}", hint="leave it out in .dockerignore") from error
    yield bytes(-info.size % 512)


def _member(name: str, data: bytes) -> bytes:
    info = tarfile.TarInfo(name)
    info.size, info.mode = len(data), 0o644
    return _header(info) + data + bytes(-len(data) % 512)


def _header(info: tarfile.TarInfo) -> bytes:
    return info.tobuf(tarfile.PAX_FORMAT, errors="surrogateescape")
