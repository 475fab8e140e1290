# SPDX-License-Identifier: Apache-2.0
"""Logs in files of this host, rotated when they are full.

json-file is Docker's, one JSON object per line:

    {"log":"hello\\n","stream":"stdout","time":"2026-01-31T12:00:00.000000000Z"}

k8s-file (podman's name of it) is what the kubelet reads; P is a line that goes on, F one that has ended
(kubernetes/design-proposals-archive, node/kubelet-cri-logging.md):

    2026-01-31T12:00:00.000000000Z stdout F hello
"""

from __future__ import annotations

import os
from collections.abc import Callable
from pathlib import Path

import msgspec

from ...model.moments import write_moment
from ..log_read import rotated
from .sink import LINE_MAX, NAMES, Piece, Place

_HEAD = b'{"log":'
_encode = msgspec.json.Encoder().encode
Format = Callable[[Piece], bytes]


class FileSink:
    """Appends; rotates when the file is full."""

    def __init__(self, path: Path, format_: Format, *, max_size: int = 1 << 62, max_files: int = 1) -> None:
        """`max_size` are bytes."""
        self.path = path
        self._format = format_
        self._max_size, self._max_files = max_size, max_files
        self._fd = -1
        self._inode = self._before = 0  # of the file, and of the one before the last rotation
        self._size = 0

    def open(self) -> None:
        if self._fd < 0:
            self._take(_append_to(self.path))

    def _take(self, fd: int) -> None:
        found = os.fstat(fd)
        self._fd, self._inode, self._size = fd, found.st_ino, found.st_size

    def write(self, piece: Piece) -> None:
        self.open()
        record = self._format(piece)
        before = self.place()
        try:
            if self._size and self._size + len(record) > self._max_size:
                self._rotate()
            view = memoryview(record)
            while view:
                view = view[os.write(self._fd, view) :]
            self._size += len(record)
        except OSError:
            self._size += 1  # there may be something of it
            self.back_to(before)
            raise

    def flush(self) -> None:
        """Nothing is held back."""

    def place(self) -> Place:
        """Which file is written, and how long it is by now."""
        return Place(self._inode, self._size)

    def back_to(self, place: Place) -> None:
        size = place.size
        if self._inode != place.inode:
            before = self.path.with_name(f"{self.path.name}.1")
            if place.inode != self._before and (not before.exists() or before.stat().st_ino != place.inode):
                return  # somebody else's doing
            size = 0  # this file was begun, and its first record not accounted for
        if size < self._size:
            _truncate(self._fd, size)
            self._size = size

    def reopen(self) -> None:
        """The new file is there before the old one is let go of."""
        fd = _append_to(self.path)
        self.close()
        self._take(fd)

    def _rotate(self) -> None:
        """The new file is made first: where there is no space for it, all stays as it is."""
        fresh = self.path.with_name(f"{self.path.name}.new")
        fd = _append_to(fresh)
        try:
            files = rotated(self.path, self._max_files)
            for older, newer in zip(files, files[1:], strict=False):
                if newer.exists():
                    newer.replace(older)
            fresh.replace(self.path)
        except OSError:
            os.close(fd)
            raise
        os.close(self._fd)
        self._before = self._inode
        self._take(fd)

    def close(self) -> None:
        if self._fd >= 0:
            os.close(self._fd)
            self._fd = -1


def _append_to(path: Path) -> int:
    return os.open(path, os.O_WRONLY | os.O_CREAT | os.O_APPEND | os.O_CLOEXEC, 0o640)


def _truncate(fd: int, size: int) -> None:
    try:
        os.ftruncate(fd, size)
    except OSError:  # a torn line stays; readers skip it
        os.lseek(fd, 0, os.SEEK_END)


# -- formats ----------------------------------------------------------------------


def k8s_file(piece: Piece) -> bytes:
    """The kubelet's."""
    begin = f"{write_moment(piece.time)} {NAMES[piece.stream]} ".encode()
    return b"".join([begin + (b"P " if goes_on else b"F ") + line + b"\n" for line, goes_on in piece.lines()])


def json_file(piece: Piece) -> bytes:
    """A record for each line, and for each LINE_MAX of an unfinished one."""
    tail = f',"stream":"{NAMES[piece.stream]}","time":"{write_moment(piece.time)}"}}\n'.encode()
    lines, newline, last = piece.data.decode("utf-8", "replace").rpartition("\n")
    parts = [_records_of(lines + newline, tail)] if newline else []
    for at in range(0, len(last), LINE_MAX):
        parts += [_HEAD, _encode(last[at : at + LINE_MAX]), tail]
    return b"".join(parts)


def _records_of(text: str, tail: bytes) -> bytes:
    """A record for each line of a text that ends with one.

    All lines are encoded at once, and cut where a line's end was encoded:
    a loop in Python would be what a program that prints much waits for.
    """
    encoded = _encode(text)
    if b"\\\\" in encoded:  # a backslash of the text's own: what looks like a line's end may be none
        return b"".join(_HEAD + _encode(line + "\n") + tail for line in text.split("\n")[:-1])
    end = b'\\n"' + tail
    return _HEAD + encoded[:-3].replace(b"\\n", end + _HEAD + b'"') + end
