# SPDX-License-Identifier: Apache-2.0
"""The json-file log: one JSON object per line of output, as Docker's driver writes.

    {"log":"hello\\n","stream":"stdout","time":"2026-01-31T12:00:00.000000Z"}

Beside it, `offsets` holds how many bytes of stdout and stderr are in the log,
and how long the log was then: a daemon that comes back knows what to ask of
the guest, and cuts off what one wrote that was killed before it said so.
"""

from __future__ import annotations

import os
import struct
from collections.abc import Iterator
from pathlib import Path
from typing import BinaryIO

import msgspec

from ..model.ids import now

_NAMES = {1: "stdout", 2: "stderr"}
_OFFSETS = struct.Struct("<QQ")
_PLACE = struct.Struct("<QQ")  # the log's inode and length, behind the offsets
_HEAD = b'{"log":'
_LINE_MAX = 16 << 10  # a longer line is split, as Docker does
_encode = msgspec.json.Encoder().encode


class LogRecord(msgspec.Struct, frozen=True):
    """One line."""

    log: str
    stream: str
    time: str


class LogWriter:
    """Appends; rotates when the file is full."""

    def __init__(self, path: Path, *, max_size: int, max_files: int) -> None:
        self.path = path
        self._max_size = max_size
        self._max_files = max_files
        self._pending = {1: b"", 2: b""}
        self._fd = os.open(path, os.O_WRONLY | os.O_CREAT | os.O_APPEND | os.O_CLOEXEC, 0o640)
        self._size = os.fstat(self._fd).st_size
        self._offset_fd = os.open(path.with_name("offsets"), os.O_RDWR | os.O_CREAT | os.O_CLOEXEC, 0o640)
        self._offsets = [0, 0]

    def offsets(self) -> tuple[int, int]:
        """Bytes of stdout and stderr that the log has, as an earlier daemon left them."""
        raw = os.pread(self._offset_fd, _OFFSETS.size + _PLACE.size, 0)
        if len(raw) < _OFFSETS.size:
            return (0, 0)
        if len(raw) == _OFFSETS.size + _PLACE.size:
            self._cut(*_PLACE.unpack_from(raw, _OFFSETS.size))
        return _OFFSETS.unpack_from(raw)

    def _cut(self, inode: int, size: int) -> None:
        """Take away what is in the log and not in the offsets: the guest still has it."""
        before = self.path.with_name(f"{self.path.name}.1")
        if os.fstat(self._fd).st_ino != inode:
            if not before.exists() or before.stat().st_ino != inode:
                return  # somebody else's doing
            size = 0  # this file was begun, and its first record not accounted for
        if size < self._size:
            os.ftruncate(self._fd, size)
            self._size = size

    def begin(self, offsets: tuple[int, int]) -> None:
        """A process begins ((0, 0)), or goes on."""
        self._offsets = list(offsets)
        self._account()

    def _account(self) -> None:
        """One small write: it is there as a whole or not at all when the daemon is killed."""
        place = _PLACE.pack(os.fstat(self._fd).st_ino, self._size)
        os.pwrite(self._offset_fd, _OFFSETS.pack(*self._offsets) + place, 0)

    def write(self, stream: int, data: bytes) -> int:
        """Log whole lines; how many bytes of the stream became safe."""
        held = self._pending[stream]
        data = held + data
        cut = data.rfind(b"\n") + 1
        while len(data) - cut >= _LINE_MAX:
            cut += _LINE_MAX
        self._pending[stream] = data[cut:]
        if cut:
            self._append(stream, data[:cut])
        return cut

    def flush(self, stream: int) -> int:
        """Log the unfinished last line."""
        rest, self._pending[stream] = self._pending[stream], b""
        if rest:
            self._append(stream, rest)
        return len(rest)

    def _append(self, stream: int, data: bytes) -> None:
        tail = f',"stream":"{_NAMES[stream]}","time":"{now()}"}}\n'.encode()
        lines, newline, last = data.decode("utf-8", "replace").rpartition("\n")
        parts = [_records_of(lines + newline, tail)] if newline else []
        for at in range(0, len(last), _LINE_MAX):
            parts += [_HEAD, _encode(last[at : at + _LINE_MAX]), tail]
        record = b"".join(parts)
        if self._size and self._size + len(record) > self._max_size:
            self._rotate()
        view = memoryview(record)
        while view:
            view = view[os.write(self._fd, view) :]
        self._size += len(record)
        self._offsets[stream - 1] += len(data)
        self._account()

    def _rotate(self) -> None:
        files = rotated(self.path, self._max_files)
        for older, newer in zip(files, files[1:], strict=False):
            if newer.exists():
                newer.replace(older)
        os.close(self._fd)
        if self._max_files == 1:
            self.path.unlink()
        self._fd = os.open(self.path, os.O_WRONLY | os.O_CREAT | os.O_APPEND | os.O_CLOEXEC, 0o640)
        self._size = 0

    def close(self) -> None:
        os.close(self._fd)
        os.close(self._offset_fd)


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


def rotated(path: Path, max_files: int = 100) -> list[Path]:
    """The log's files, oldest first; some may not exist."""
    return [path.with_name(f"{path.name}.{n}") for n in range(max_files - 1, 0, -1)] + [path]


def read(path: Path, *, tail: int | None = None, since: str = "", until: str = "") -> list[LogRecord]:
    """Records of all rotated files, oldest first; the last `tail` of them."""
    records = [r for f in rotated(path) if f.exists() for r in _records(f) if r.time >= since and (not until or r.time <= until)]
    return records if tail is None else records[len(records) - tail :] if tail else []


def _records(path: Path) -> Iterator[LogRecord]:
    with open(path, "rb") as f:
        yield from _decode(f)


def _decode(f: BinaryIO) -> Iterator[LogRecord]:
    decoder = msgspec.json.Decoder(LogRecord)
    for line in f:
        try:
            yield decoder.decode(line)
        except msgspec.DecodeError:
            continue  # a line torn by a crash


class Follower:
    """New records of a log since its creation, across rotations."""

    def __init__(self, path: Path) -> None:
        self._path = path
        self._file: BinaryIO | None = None
        self._rest = b""
        if path.exists():
            self._file = open(path, "rb")
            self._file.seek(0, os.SEEK_END)

    def read(self) -> list[LogRecord]:
        """What was added since the last call."""
        found: list[LogRecord] = []
        while True:
            if self._file is None:
                if not self._path.exists():
                    return found
                self._file = open(self._path, "rb")
            data = self._rest + self._file.read()
            whole, _, self._rest = data.rpartition(b"\n")
            decoder = msgspec.json.Decoder(LogRecord)
            found += [decoder.decode(line) for line in whole.splitlines() if line]
            if not self._rotated():
                return found
            self._file.close()
            self._file = None

    def _rotated(self) -> bool:
        assert self._file is not None
        try:
            return os.fstat(self._file.fileno()).st_ino != self._path.stat().st_ino
        except FileNotFoundError:
            return False

    def close(self) -> None:
        if self._file:
            self._file.close()
