# SPDX-License-Identifier: Apache-2.0
"""Reading a log that is written and rotated meanwhile, a bounded piece at a time.

A reader opens all of the log's files at once, so that a rotation takes
nothing away from it, and reads them by blocks; for its last lines it goes
back from the end by blocks. `read` and `seek` may run in a thread; what opens
files belongs on the loop, where logs are rotated.
"""

from __future__ import annotations

import os
from collections.abc import Iterator
from pathlib import Path
from typing import BinaryIO

import msgspec

from ..sys.documents import UNREADABLE

STREAMS = {"stdout": 1, "stderr": 2}
_BLOCK = 128 << 10  # bytes
_NINE = len("2026-01-31T12:00:00.000000000Z")
# Bytes: what a guest has credit for, and every byte of it escaped. What is longer is no log of ours.
_RECORD_MAX = 4 << 20


class LogRecord(msgspec.Struct, frozen=True):
    """One line."""

    log: str
    stream: str
    time: str

    @property
    def nanoseconds(self) -> str:
        """Its time, with nine decimals."""
        return _nine(self.time)


def rotated(path: Path, max_files: int = 100) -> list[Path]:
    """The log's files, oldest first; some may not exist."""
    return [path.with_name(f"{path.name}.{n}") for n in range(max_files - 1, 0, -1)] + [path]


class LogReader:
    """Records in their order, of those that lie between two times.

    `since` and `until` are times as the logs write them; "" is any. `until_now`: not what is added from now on.
    """

    def __init__(
        self, path: Path, *, since: str = "", until: str = "", at_end: bool = False, until_now: bool = False
    ) -> None:
        self._path = path
        self._since, self._until = _nine(since), _nine(until)
        self._decoder = msgspec.json.Decoder(LogRecord)
        self._files: list[BinaryIO] = []  # oldest first; the first is the one that is read
        self._at = 0
        self._open(rotated(path))
        self._limit = self._size(-1) if until_now else None  # of the last of the files
        if at_end:
            self._keep(len(self._files) - 1, self._size(-1))

    def _open(self, paths: list[Path]) -> None:
        for path in paths:
            try:
                self._files.append(open(path, "rb", buffering=0))
            except FileNotFoundError:
                continue

    def _size(self, index: int) -> int:
        return os.fstat(self._files[index].fileno()).st_size if self._files else 0

    def _keep(self, index: int, at: int) -> None:
        for file in self._files[: max(0, index)]:
            file.close()
        del self._files[: max(0, index)]
        self._at = at

    def seek(self, tail: int) -> None:
        """Go to where the last `tail` records begin. It blocks."""
        if tail <= 0:
            self._keep(len(self._files) - 1, self._size(-1))
            return
        for index in range(len(self._files) - 1, -1, -1):
            for at, line in _lines_backwards(self._files[index].fileno(), self._size(index)):
                record = self._record(line)
                if record and self._since and _nine(record.time) < self._since:
                    return self._keep(index, at)
                if record and self._wanted(record):
                    tail -= 1
                if not tail:
                    return self._keep(index, at)
        return None

    def read(self) -> list[LogRecord] | None:
        """The next records, a block's at most, maybe none; None when there is no more in the log now. It blocks."""
        while self._files:
            data, end = self._block()
            if end:
                self._at += end
                found = (self._record(line) for line in data[:end].split(b"\n") if line)
                return [r for r in found if r and self._wanted(r)]
            if len(self._files) == 1:
                return None
            self._keep(1, 0)
        return None

    def _block(self) -> tuple[bytes, int]:
        """What comes next, and how much of it is whole lines."""
        size = _BLOCK
        last = len(self._files) == 1
        room = _RECORD_MAX if self._limit is None or not last else self._limit - self._at
        while True:
            data = os.pread(self._files[0].fileno(), min(size, room), self._at)
            end = data.rfind(b"\n") + 1
            if end or len(data) < size:
                return data, end
            if size >= _RECORD_MAX:
                return data, size
            size *= 2

    def turn(self) -> bool:
        """When all was read: go on with the files that a rotation has begun since; False when there are none."""
        paths = [p for p in rotated(self._path) if p.exists()]
        if self._files:
            mine = os.fstat(self._files[0].fileno())
            place = [os.path.samestat(p.stat(), mine) for p in paths]
            paths = paths[place.index(True) + 1 :] if True in place else paths
        if not paths:
            return False
        before = len(self._files)
        self._open(paths)
        if not before:
            self._at = 0
        return True

    def _record(self, line: bytes) -> LogRecord | None:
        if line[:1] != b"{":
            return _of_kubelet(line)
        try:
            return self._decoder.decode(line)
        except UNREADABLE:
            return None  # a line torn by a crash

    def _wanted(self, record: LogRecord) -> bool:
        if not (self._since or self._until):
            return True
        time = _nine(record.time)
        return time >= self._since and (not self._until or time <= self._until)

    def close(self) -> None:
        for file in self._files:
            file.close()
        self._files.clear()


def _nine(time: str) -> str:
    """With nine decimals, in which the order of texts is that of times: earlier logs have six."""
    if len(time) in (0, _NINE):
        return time
    seconds, _, fraction = time.removesuffix("Z").partition(".")
    return f"{seconds}.{fraction:0<9}Z"


def _of_kubelet(line: bytes) -> LogRecord | None:
    """`2026-01-31T12:00:00.000000000Z stdout F text`; None for a line torn by a crash."""
    time, _, rest = line.partition(b" ")
    stream, _, rest = rest.partition(b" ")
    tag, space, text = rest.partition(b" ")
    if stream not in (b"stdout", b"stderr") or tag not in (b"F", b"P") or not space:
        return None
    decoded = text.decode("utf-8", "replace")
    return LogRecord(decoded + ("\n" if tag == b"F" else ""), stream.decode(), time.decode("ascii", "replace"))


def _lines_backwards(fd: int, end: int) -> Iterator[tuple[int, bytes]]:
    """Where each whole line begins, and the line, the last first. An unfinished last one is none."""
    rest = b""  # the end of a line whose beginning was not read yet
    first = True
    while end > 0:
        at = max(0, end - _BLOCK)
        data = os.pread(fd, end - at, at) + rest
        lines = data.split(b"\n")
        place = at + len(data)
        for line in reversed(lines[1:]):
            place -= len(line)
            if not first and line:
                yield place, line
            first = False
            place -= 1  # its predecessor's end
        rest = lines[0]
        if len(rest) > _RECORD_MAX:
            return
        end = at
    if rest and not first:
        yield 0, rest


def read(path: Path, *, tail: int | None = None, since: str = "", until: str = "") -> list[LogRecord]:
    """Records of all rotated files, oldest first; the last `tail` of them. It blocks."""
    reader = LogReader(path, since=since, until=until)
    try:
        if tail is not None:
            reader.seek(tail)
        found: list[LogRecord] = []
        while (records := reader.read()) is not None:
            found += records
        return found
    finally:
        reader.close()
