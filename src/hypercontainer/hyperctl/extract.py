# SPDX-License-Identifier: Apache-2.0
"""Unpacking what a guest sent: below one directory, whatever the stream says.

The stream comes from a machine that its container may have taken over, so a
name in it is a wish. Each is walked from the directory's descriptor, one plain
component at a time, and no symbolic link is followed: neither one of the
stream's, nor one that an earlier copy has left (openat2's RESOLVE_BENEATH and
RESOLVE_NO_SYMLINKS in effect, on every kernel). What is made is made under a
name of our own, and renamed: nothing that exists is ever opened for writing.
"""

from __future__ import annotations

import contextlib
import errno
import os
import secrets
import stat
import tarfile
from collections.abc import Callable, Iterator
from decimal import Decimal, InvalidOperation
from types import TracebackType
from typing import IO

from ..errors import Conflict, HyperError, InvalidArgument

Parts = tuple[bytes, ...]  # a path's plain components, relative

_HEADER_MAX = 1 << 20  # bytes of a long name or of pax records, which tarfile takes into memory
_NAME_MAX = 4096  # bytes of a member's whole name: PATH_MAX
_CHUNK = 256 << 10
_BLOCK = 64 << 10  # bytes of zeros that are left out, where a chunk has them
_ZEROS = bytes(_BLOCK)
_ID_MAX = (1 << 32) - 2  # the highest is "no change" to chown(2)
_EXTENSIONS = (
    tarfile.GNUTYPE_LONGNAME,
    tarfile.GNUTYPE_LONGLINK,
    tarfile.XHDTYPE,
    tarfile.XGLTYPE,
    tarfile.SOLARIS_XHDTYPE,
)
_DIRECTORY = os.O_RDONLY | os.O_DIRECTORY | os.O_NOFOLLOW | os.O_CLOEXEC


class BoundedHeader(tarfile.TarInfo):
    """For `tarfile.open(tarinfo=)`: refuses headers that would be held in memory and are enormous."""

    @classmethod
    def frombuf(cls, buf: bytes | bytearray, encoding: str | None, errors: str) -> BoundedHeader:
        found = super().frombuf(buf, encoding, errors)  # type: ignore[arg-type]
        if found.type in _EXTENSIONS and not 0 <= found.size <= _HEADER_MAX:
            raise InvalidArgument(
                f"the archive has a header of {found.size} bytes", hint="the container may be hostile"
            )
        return found


def plain(name: str) -> Parts:
    """A name of the archive as components.

    :raise InvalidArgument: it is absolute, goes upwards, or is longer than a path may be.
    """
    raw = name.encode("utf-8", "surrogateescape")
    if len(raw) > _NAME_MAX:
        raise InvalidArgument(f"refusing {_shown(raw[:60])}...: the name is {len(raw)} bytes long")
    parts = tuple(p for p in raw.split(b"/") if p not in (b"", b"."))
    if raw.startswith(b"/") or b".." in parts or b"\0" in raw:
        raise InvalidArgument(f"refusing {_shown(raw)}: it would leave the target")
    return parts


def _shown(raw: bytes) -> str:
    return repr(raw.decode("utf-8", "backslashreplace"))


def _path(parts: Parts) -> str:
    return _shown(b"/".join(parts))


class Extractor:
    """Makes members below `root`, a directory's descriptor, which stays the caller's."""

    def __init__(self, root: int, *, keep_owner: bool) -> None:
        self._root = root
        self._keep_owner = keep_owner and os.geteuid() == 0
        self._mask = os.umask(0o077)
        os.umask(self._mask)
        self._parent: Parts | None = None  # the directory that the descriptor below is of
        self._parent_fd = -1
        self._open: list[tuple[Parts, tarfile.TarInfo]] = []  # directories whose modes are still ours, outer ones first

    def __enter__(self) -> Extractor:
        return self

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, where: TracebackType | None
    ) -> None:
        try:
            if kind is None:
                self._finish_directories(())
            else:
                with contextlib.suppress(OSError):
                    self._finish_directories(())
        finally:
            self._forget_parent()

    def extract(self, member: tarfile.TarInfo, parts: Parts, content: IO[bytes] | None, linked: Parts) -> None:
        """Make a member as `parts`; `linked` is what a hard link is to.

        :raise InvalidArgument: what a hostile archive would do. :raise Conflict: something else is there.
        :raise HyperError: when the host says no.
        """
        shown = _path(parts)
        if member.isdev():
            raise InvalidArgument(f"refusing to make the device {shown} on this host")
        try:
            self._finish_directories(parts)
            parent, name = self._directory(parts[:-1]), parts[-1]
            if member.isdir():
                self._make_directory(parent, parts, member)
            elif member.issym():
                self._place(
                    parent,
                    parts,
                    lambda t: os.symlink(member.linkname.encode("utf-8", "surrogateescape"), t, dir_fd=parent),
                )
                with contextlib.suppress(OSError, OverflowError):
                    os.utime(name, ns=_times(member), dir_fd=parent, follow_symlinks=False)
            elif member.islnk() and linked:
                with self._opened(linked[:-1]) as source:
                    self._place(
                        parent,
                        parts,
                        lambda t: os.link(linked[-1], t, src_dir_fd=source, dst_dir_fd=parent, follow_symlinks=False),
                    )
            elif member.isreg() and not member.issparse() and content:
                self._place(parent, parts, lambda t: self._write(parent, t, member, content))
            else:
                raise InvalidArgument(f"refusing {shown}: it is of an unknown kind")
        except tarfile.TarError as error:
            raise HyperError(f"the copy broke off in {shown}: {error}", hint="try again") from error
        except NotADirectoryError as error:
            raise InvalidArgument(
                f"refusing {shown}: it leads through something that is no directory; links are not followed"
            ) from error
        except OSError as error:
            raise HyperError(f"cannot write {shown}: {error.strerror}") from error

    # -- where ------------------------------------------------------------------------

    @contextlib.contextmanager
    def _opened(self, parts: Parts) -> Iterator[int]:
        fd = self._walk(parts)
        try:
            yield fd
        finally:
            os.close(fd)

    def _walk(self, parts: Parts, *, make: bool = False) -> int:
        """A new descriptor of a directory; missing ones are made if asked for."""
        fd = os.open(b".", _DIRECTORY, dir_fd=self._root)
        try:
            for part in parts:
                if make:
                    with contextlib.suppress(FileExistsError):
                        os.mkdir(part, 0o777, dir_fd=fd)
                below = os.open(part, _DIRECTORY, dir_fd=fd)
                os.close(fd)
                fd = below
        except BaseException:
            os.close(fd)
            raise
        return fd

    def _directory(self, parts: Parts) -> int:
        """The same as the last time for neighbours."""
        if parts != self._parent:
            self._forget_parent()
            self._parent_fd = self._walk(parts, make=True)
            self._parent = parts
        return self._parent_fd

    def _forget_parent(self) -> None:
        if self._parent is not None:
            os.close(self._parent_fd)
        self._parent = None

    # -- what -------------------------------------------------------------------------

    def _place(self, parent: int, parts: Parts, make: Callable[[bytes], None]) -> None:
        """Make something under another name and put it in place of a file or link.

        :raise Conflict: a directory or a device is there.
        """
        name = parts[-1]
        with contextlib.suppress(FileNotFoundError):
            there = os.stat(name, dir_fd=parent, follow_symlinks=False).st_mode
            if not stat.S_ISREG(there) and not stat.S_ISLNK(there):
                kind = "a directory" if stat.S_ISDIR(there) else "a device"
                raise Conflict(
                    f"cannot put a file in the place of {_path(parts)}, {kind} of this host", hint="remove it first"
                )
        temporary = b".hyperctl-" + secrets.token_hex(8).encode()
        try:
            make(temporary)
            os.rename(temporary, name, src_dir_fd=parent, dst_dir_fd=parent)
        finally:  # of two links to one file a rename leaves both
            with contextlib.suppress(FileNotFoundError):
                os.unlink(temporary, dir_fd=parent)

    def _write(self, parent: int, name: bytes, member: tarfile.TarInfo, content: IO[bytes]) -> None:
        flags = os.O_WRONLY | os.O_CREAT | os.O_EXCL | os.O_NOFOLLOW | os.O_CLOEXEC
        with open(os.open(name, flags, 0o600, dir_fd=parent), "wb", buffering=0) as out:
            if _copy_sparsely(content, out) != member.size:
                raise tarfile.ReadError("the stream ended early")
            self._set_metadata(out.fileno(), member)

    def _make_directory(self, parent: int, parts: Parts, member: tarfile.TarInfo) -> None:
        """One that exists keeps its mode and owner: it is the user's."""
        name = parts[-1]
        try:
            os.mkdir(name, 0o700, dir_fd=parent)
        except FileExistsError:
            there = os.stat(name, dir_fd=parent, follow_symlinks=False).st_mode
            if not stat.S_ISDIR(there):
                raise Conflict(
                    f"cannot put a directory in the place of the file or link {_path(parts)}", hint="remove it first"
                ) from None
        else:
            self._open.append((parts, member))

    def _finish_directories(self, parts: Parts) -> None:
        """Directories that were made and are left behind get their modes, inner ones first."""
        while self._open and self._open[-1][0] != parts[: len(self._open[-1][0])]:
            made, member = self._open.pop()
            with self._opened(made) as fd:
                self._set_metadata(fd, member)

    def _set_metadata(self, fd: int, member: tarfile.TarInfo) -> None:
        """Owner, mode and time: of the member, but what gives rights to a program's caller."""
        if self._keep_owner:
            if not (0 <= member.uid <= _ID_MAX and 0 <= member.gid <= _ID_MAX):
                raise InvalidArgument(f"refusing the owner {member.uid}:{member.gid}, which is none")
            os.fchown(fd, member.uid, member.gid)
        os.fchmod(fd, member.mode & 0o777 & ~self._mask)
        with contextlib.suppress(OSError, OverflowError):  # a time that this file system cannot keep
            os.utime(fd, ns=_times(member))


def _copy_sparsely(content: IO[bytes], out: IO[bytes]) -> int:
    """Copy to an empty file; blocks of zeros become holes, which they were in the container if they are many.

    An archive has no holes: many programs that read one would not know of them. Gives the number of bytes.
    """
    size = 0
    while chunk := content.read(_CHUNK):
        for begin in range(0, len(chunk), _BLOCK):
            block = chunk[begin : begin + _BLOCK]
            if block != _ZEROS[: len(block)]:
                out.seek(size + begin)
                if out.write(block) != len(block):
                    raise OSError(errno.ENOSPC, os.strerror(errno.ENOSPC))
        size += len(chunk)
    out.truncate(size)
    return size


def _times(member: tarfile.TarInfo) -> tuple[int, int]:
    """For access and change, in ns; pax has fractions that a float cannot hold."""
    try:
        moment = int(Decimal(str(member.pax_headers.get("mtime", member.mtime))) * 10**9)
    except (InvalidOperation, OverflowError, ValueError):
        raise OverflowError from None
    return moment, moment
