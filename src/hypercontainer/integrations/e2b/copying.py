# SPDX-License-Identifier: Apache-2.0
"""Files that a build's client has sent as a tar, made the tar that a sandbox unpacks. Nothing is unpacked here."""

from __future__ import annotations

import gzip
import posixpath
import re
import tarfile
import zlib
from collections.abc import Sequence
from dataclasses import dataclass, field
from typing import IO, cast

from ...errors import InvalidArgument, NoSpace

PLAIN_MAX = 8 << 30  # bytes of a tar once it is not compressed
_MEMBERS_MAX = 1_000_000
_READ_MAX = 1 << 20  # bytes at once: what a head says of its own length is not believed
_GLOB = re.compile(r"[*?\[{!(|]")  # what begins a pattern, which the client has looked up
_GZIP = b"\x1f\x8b"


@dataclass(frozen=True)
class Copy:
    """One COPY step."""

    source: str  # what was copied, relative to the client's directory, without a pattern; "." is all of it
    target: str  # absolute
    into: bool = False  # a single file goes into the directory `target`
    there: bool = False  # `target` is a directory already
    uid: int = 0
    gid: int = 0
    mode: int | None = None  # None: as each is


def source_of(text: str) -> str:
    """The part of a step's source that is no pattern.

    :raise InvalidArgument: it leads out of the client's directory.
    """
    parts = []
    for part in text.split("/"):
        if _GLOB.search(part):
            break
        parts.append(part)
    found = posixpath.normpath("/".join(parts) or ".")
    if text.startswith("/") or found.split("/")[0] == "..":
        raise InvalidArgument(f"{text} leads out of the directory that is copied from")
    return found


def mode_of(text: str) -> int | None:
    """:raise InvalidArgument: it is no octal number of a mode."""
    if not text:
        return None
    if not re.fullmatch("[0-7]{1,5}", text) or int(text, 8) > 0o7777:
        raise InvalidArgument(f"{text!r} is no mode of a file")
    return int(text, 8)


def rewrite(upload: IO[bytes], copy: Copy, made: IO[bytes]) -> None:
    """The tar for the sandbox's root; `made` is at its begin then.

    :raise InvalidArgument: `upload` is no tar, or has what does not belong there. :raise NoSpace: it is too large.
    """
    upload.seek(0)
    compressed = upload.read(2) == _GZIP
    upload.seek(0)
    try:
        plain = gzip.GzipFile(fileobj=upload) if compressed else upload
        with (
            tarfile.open(fileobj=cast(IO[bytes], _Bounded(plain)), mode="r:") as source,
            tarfile.open(fileobj=made, mode="w", format=tarfile.PAX_FORMAT) as target,
        ):
            _Rewriter(copy, source, target).run()
    except (gzip.BadGzipFile, zlib.error, EOFError, tarfile.TarError, ValueError) as error:
        raise InvalidArgument(f"the files that were sent are no tar: {error}") from None
    made.seek(0)


class _Bounded:
    """A file for tarfile that is not read beyond a limit, nor much of it at once."""

    def __init__(self, file: IO[bytes] | gzip.GzipFile) -> None:
        self._file = file

    def read(self, size: int) -> bytes:
        if size > _READ_MAX:
            raise tarfile.ReadError("a head is too long")
        data = self._file.read(size)
        self._check(self._file.tell())
        return data

    def seek(self, position: int) -> int:
        self._check(position)
        return self._file.seek(position)

    def tell(self) -> int:
        return self._file.tell()

    def _check(self, position: int) -> None:
        if position > PLAIN_MAX:
            raise NoSpace(f"the files of a step have at most {PLAIN_MAX >> 30} GiB")


@dataclass
class _Rewriter:
    copy: Copy
    source: tarfile.TarFile
    target: tarfile.TarFile
    _links: set[str] = field(default_factory=set)  # symbolic ones, by their targets
    _count: int = 0

    def run(self) -> None:
        while member := self.source.next():
            self._count += 1
            self.source.members = []  # type: ignore[attr-defined] # which it keeps for who asks by name
            if self._count > _MEMBERS_MAX:
                raise NoSpace(f"a step has at most {_MEMBERS_MAX} files")
            self._take(member)
        if not self._count:
            raise InvalidArgument("there is nothing in the files that were sent")

    def _take(self, member: tarfile.TarInfo) -> None:
        if not (member.isreg() or member.isdir() or member.issym() or member.islnk()) or member.issparse():
            raise InvalidArgument(f"{member.name} is no file, directory or link")
        path = self._path(member.name, directory=member.isdir())
        if member.isdir() and path == self.copy.target and self.copy.there:
            return  # it stays as it is
        if any(above in self._links for above in _above(path)):
            raise InvalidArgument(f"{member.name} would be written through a symbolic link")
        if member.issym():
            self._links.add(path)
        self.target.addfile(self._changed(member, path), self.source.extractfile(member) if member.isreg() else None)

    def _changed(self, member: tarfile.TarInfo, path: str) -> tarfile.TarInfo:
        found = member.replace(
            name=path.lstrip("/"), uid=self.copy.uid, gid=self.copy.gid, uname="", gname="", deep=False
        )
        found.pax_headers = {}
        if self.copy.mode is not None and not member.issym():
            found.mode = self.copy.mode
        if member.islnk():
            found.linkname = self._path(member.linkname, directory=False).lstrip("/")
        return found

    def _path(self, name: str, *, directory: bool) -> str:
        """Where it goes in the sandbox. :raise InvalidArgument: it is not what the step copies."""
        inner, copy = _relative(name, self.copy.source), self.copy
        if inner != ".":
            return posixpath.join(copy.target, inner)
        if copy.into and not directory:
            return posixpath.join(copy.target, posixpath.basename(copy.source))
        return copy.target


def _relative(name: str, source: str) -> str:
    found = posixpath.normpath(name)
    if found.startswith("/") or found.split("/")[0] == ".." or "\0" in found:
        raise InvalidArgument(f"{name} leads out of what is copied")
    if source == "." or found == source:
        return "." if found == source else found
    if not found.startswith(f"{source}/"):
        raise InvalidArgument(f"{name} is not in {source}, which is copied")
    return found[len(source) + 1 :]


def _above(path: str) -> Sequence[str]:
    parts = path.split("/")
    return ["/".join(parts[:end]) for end in range(2, len(parts))]
