# SPDX-License-Identifier: Apache-2.0
"""The json-file log: one JSON object per line of output, as Docker's driver writes.

    {"log":"hello\\n","stream":"stdout","time":"2026-01-31T12:00:00.000000Z"}

Beside it, `offsets` holds how many bytes of stdout and stderr are in the log,
and how long the log was then: a daemon that comes back knows what to ask of
the guest, and cuts off what one wrote that was killed before it said so.

What cannot be written, because the disk is full, is kept: it does not count
as safe, so the guest keeps it too and sends no more than a log may hold back.
"""

from __future__ import annotations

import os
import struct
from pathlib import Path
from typing import Protocol

import msgspec

from ..model.ids import now
from .log_read import LogRecord, read, rotated

__all__ = ["KeepNothing", "Log", "LogRecord", "LogWriter", "read", "rotated"]

_NAMES = {1: "stdout", 2: "stderr"}
_OFFSETS = struct.Struct("<QQ")
_PLACE = struct.Struct("<QQ")  # the log's inode and length, behind the offsets
_HEAD = b'{"log":'
_LINE_MAX = 16 << 10  # a longer line is split, as Docker does
_encode = msgspec.json.Encoder().encode


class Log(Protocol):
    """What takes a process's output and says what of it is safe."""

    error: OSError | None  # why the last attempt to write failed

    def offsets(self) -> tuple[int, int]: ...
    def begin(self, offsets: tuple[int, int]) -> None: ...
    def write(self, stream: int, data: bytes) -> int: ...
    def flush(self, stream: int) -> int: ...
    def lost(self, stream: int, count: int, why: str) -> None: ...
    def close(self) -> None: ...

    def unlogged(self, stream: int) -> bytes:
        """What was written of a stream and is not in the log yet."""

    @property
    def pending(self) -> int: ...


def _offsets_path(log: Path) -> Path:
    """Each log of a directory has its own."""
    return log.with_name("offsets" if log.name == "container.log" else f"{log.name}.offsets")


class LogWriter:
    """Appends; rotates when the file is full. Nothing raises for want of space but the constructor and `begin`."""

    def __init__(self, path: Path, *, max_size: int, max_files: int) -> None:
        self.path = path
        self.error: OSError | None = None
        self._max_size = max_size
        self._max_files = max_files
        self._pending = {1: b"", 2: b""}
        self._fd = _append_to(path)
        self._size = os.fstat(self._fd).st_size
        try:
            self._offset_fd = os.open(_offsets_path(path), os.O_RDWR | os.O_CREAT | os.O_CLOEXEC, 0o640)
        except OSError:
            os.close(self._fd)
            raise
        self._offsets = [0, 0]

    @property
    def pending(self) -> int:
        """Bytes that are not in the log yet."""
        return sum(map(len, self._pending.values()))

    def unlogged(self, stream: int) -> bytes:
        return self._pending[stream]

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
        data = self._pending[stream] + data
        cut = data.rfind(b"\n") + 1
        while len(data) - cut >= _LINE_MAX:
            cut += _LINE_MAX
        done = cut if self._append(stream, data[:cut]) else 0
        self._pending[stream] = data[done:]
        return done

    def flush(self, stream: int) -> int:
        """Log all, the unfinished last line too; how many bytes of the stream became safe."""
        rest = self._pending[stream]
        if not self._append(stream, rest):
            return 0
        self._pending[stream] = b""
        return len(rest)

    def lost(self, stream: int, count: int, why: str) -> None:
        """Say in the log that `count` bytes of a stream are not in it; they count as if they were."""
        self._append(stream, f"[hyperd: {count} bytes of {_NAMES[stream]} are missing here: {why}]\n".encode(), count)

    def _append(self, stream: int, data: bytes, count: int | None = None) -> bool:
        """Write all of it, with its account, or nothing; `count` is what it counts as, its length if None."""
        if not data:
            return True
        before = (self._fd, self._size, list(self._offsets))
        try:
            self._put(_record(stream, data))
            self._offsets[stream - 1] += len(data) if count is None else count
            self._account()
        except OSError as error:
            self.error = error
            fd, self._size, self._offsets = before
            if fd == self._fd:
                _truncate(fd, self._size)
            else:  # it was rotated before; the new file has nothing of it
                self._size = 0
                _truncate(self._fd, 0)
            return False
        self.error = None
        return True

    def _put(self, record: bytes) -> None:
        if self._size and self._size + len(record) > self._max_size:
            self._rotate()
        view = memoryview(record)
        while view:
            view = view[os.write(self._fd, view) :]
        self._size += len(record)

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
        self._fd, self._size = fd, 0

    def close(self) -> None:
        """:raise nothing: descriptors of files have nothing left to say."""
        os.close(self._fd)
        os.close(self._offset_fd)


class KeepNothing:
    """For `--log-driver none`: all counts as written at once, so that the next daemon knows where the output stands."""

    def __init__(self, path: Path) -> None:
        self.error: OSError | None = None
        self.pending = 0
        self._fd = os.open(path, os.O_RDWR | os.O_CREAT | os.O_CLOEXEC, 0o640)
        self._offsets = [0, 0]

    def offsets(self) -> tuple[int, int]:
        raw = os.pread(self._fd, _OFFSETS.size, 0)
        return _OFFSETS.unpack(raw) if len(raw) == _OFFSETS.size else (0, 0)

    def begin(self, offsets: tuple[int, int]) -> None:
        self._offsets = list(offsets)
        os.pwrite(self._fd, _OFFSETS.pack(*offsets), 0)

    def write(self, stream: int, data: bytes) -> int:
        self._offsets[stream - 1] += len(data)
        try:
            os.pwrite(self._fd, _OFFSETS.pack(*self._offsets), 0)
        except OSError as error:  # the guest says where its output begins
            self.error = error
        return len(data)

    def flush(self, stream: int) -> int:
        return 0

    def unlogged(self, stream: int) -> bytes:
        return b""

    def lost(self, stream: int, count: int, why: str) -> None:
        self._offsets[stream - 1] += count

    def close(self) -> None:
        os.close(self._fd)


def _append_to(path: Path) -> int:
    return os.open(path, os.O_WRONLY | os.O_CREAT | os.O_APPEND | os.O_CLOEXEC, 0o640)


def _truncate(fd: int, size: int) -> None:
    try:
        os.ftruncate(fd, size)
    except OSError:  # a torn line stays; readers skip it
        os.lseek(fd, 0, os.SEEK_END)


def _record(stream: int, data: bytes) -> bytes:
    """A record for each line, and for each _LINE_MAX of an unfinished one."""
    tail = f',"stream":"{_NAMES[stream]}","time":"{now()}"}}\n'.encode()
    lines, newline, last = data.decode("utf-8", "replace").rpartition("\n")
    parts = [_records_of(lines + newline, tail)] if newline else []
    for at in range(0, len(last), _LINE_MAX):
        parts += [_HEAD, _encode(last[at : at + _LINE_MAX]), tail]
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
