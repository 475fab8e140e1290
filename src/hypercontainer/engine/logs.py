# SPDX-License-Identifier: Apache-2.0
"""A container's log: whole lines go to a sink, and an account beside it says how much of the output is there.

The account, `offsets`, holds how many bytes of stdout and stderr the sink has, and how far that was filled then: a
daemon that comes back knows what to ask of the guest, and takes away what one wrote that was killed before it said so.

What cannot be written, because the disk is full or the file cannot be opened, is kept: it does not count as safe, so
the guest keeps it too and sends no more than a log may hold back. The log is opened again with the next attempt.
"""

from __future__ import annotations

import contextlib
import os
import struct
from pathlib import Path

from ..sys import clock
from .log_read import LogRecord, read, rotated
from .log_sinks.files import FileSink, json_file
from .log_sinks.sink import LINE_MAX, NAMES, Keeps, LogSink, Piece, Place

__all__ = ["LogRecord", "OutputLog", "account_of", "json_log", "read", "rotated"]

_OFFSETS = struct.Struct("<QQ")
_PLACE = struct.Struct("<QQ")  # the log's inode and length, behind the offsets


def account_of(log: Path) -> Path:
    """Each log of a directory has its own."""
    return log.with_name("offsets" if log.name == "container.log" else f"{log.name}.offsets")


def json_log(path: Path, *, max_size: int, max_files: int) -> OutputLog:
    """Docker's json-file log; `max_size` are bytes of one file."""
    return OutputLog(FileSink(path, json_file, max_size=max_size, max_files=max_files), account_of(path))


class OutputLog:
    """Of one run of a process. Only `begin` raises."""

    def __init__(self, sink: LogSink, account: Path, *, remote: LogSink | None = None) -> None:
        """`remote` gets what is in `sink`, and nothing waits for it."""
        self.error: OSError | None = None  # why the last attempt to write failed
        self._sink = sink
        self._remote = remote
        self._keeps = sink if isinstance(sink, Keeps) else None  # without, nothing waits for the account
        self._account_path = account
        self._pending = {1: b"", 2: b""}
        self._offsets = [0, 0]  # bytes of stdout and stderr that are in the sink
        self._place: Place | None = None  # to go back to when it is opened
        self._known = True  # the offsets are those of the account, or of a process that begins
        self._found = {1: 0, 2: 0}  # pending bytes that were in the sink when it could be opened at last
        self._fd = -1

    @property
    def offsets(self) -> tuple[int, int]:
        """Bytes of stdout and stderr that the log has, as far as is known."""
        return self._offsets[0], self._offsets[1]

    @property
    def pending(self) -> int:
        """Bytes that are not in the log yet."""
        return sum(map(len, self._pending.values()))

    def unlogged(self, stream: int) -> bytes:
        """What was written of a stream and is not in the log yet."""
        return self._pending[stream]

    def begin(self, *, resume: bool = False) -> tuple[int, int]:
        """A process begins, or goes on from the offsets that this gives.

        :raise OSError: the log cannot be opened; it is tried again at each write, and `offsets` are what is known.
        """
        if resume:
            self._recall()
        if not self._ready():
            assert self.error is not None
            raise self.error
        return self.offsets

    def _recall(self) -> None:
        """What an earlier daemon has left. Where it cannot be read, the guest's output begins where it begins."""
        self._known = False
        try:
            raw = self._account_path.read_bytes()
        except FileNotFoundError:
            self._known = self._account_path.parent.exists()  # else its file system is not there
            return
        except OSError as error:
            self.error = error
            return
        self._known = True
        if len(raw) >= _OFFSETS.size:
            self._offsets = list(_OFFSETS.unpack_from(raw))
        if len(raw) == _OFFSETS.size + _PLACE.size:
            self._place = Place(*_PLACE.unpack_from(raw, _OFFSETS.size))

    def _ready(self) -> bool:
        """Whether it is open, as it is from the first success on."""
        if self._fd >= 0:
            return True
        try:
            if not self._known:
                self._learn()
            self._sink.open()
            fd = os.open(self._account_path, os.O_RDWR | os.O_CREAT | os.O_CLOEXEC, 0o640)
        except OSError as error:
            self.error = error if self._keeps else None
            return not self._keeps
        self._fd = fd
        try:
            if self._place and self._keeps:
                self._keeps.back_to(self._place)
            self._account()
        except OSError as error:
            self.error = error
            os.close(fd)
            self._fd = -1
            return False
        self.error = self._place = None
        return True

    def _learn(self) -> None:
        """The account can be read by now: what of the pending bytes an earlier daemon has logged counts as it is.

        :raise OSError: it still cannot be.
        """
        begun = self._offsets
        self._recall()
        if not self._known:
            raise self.error or FileNotFoundError(2, os.strerror(2), str(self._account_path))
        for stream in (1, 2):
            ahead = self._offsets[stream - 1] - begun[stream - 1]
            if 0 <= ahead <= len(self._pending[stream]):
                self._pending[stream] = self._pending[stream][ahead:]
                self._found[stream] += ahead
            else:
                self._offsets[stream - 1] = begun[stream - 1]

    def _account(self) -> None:
        """One small write: it is there as a whole or not at all when the daemon is killed."""
        raw = _OFFSETS.pack(*self._offsets)
        if self._keeps:
            place = self._keeps.place()
            raw += _PLACE.pack(place.inode, place.size)
        try:
            os.pwrite(self._fd, raw, 0)
        except OSError:  # the guest says where its output begins
            if self._keeps:
                raise

    def write(self, stream: int, data: bytes) -> int:
        """Log whole lines; how many bytes of the stream became safe."""
        self._pending[stream] += data
        if not self._ready():
            return 0
        data = self._pending[stream]
        cut = data.rfind(b"\n") + 1 if self._keeps else len(data)
        while len(data) - cut >= LINE_MAX:
            cut += LINE_MAX
        done = cut if self._append(stream, data[:cut], partial=True) else 0
        self._pending[stream] = data[done:]
        return done + self._take_found(stream)

    def flush(self, stream: int) -> int:
        """Log all, the unfinished last line too; how many bytes of the stream became safe."""
        if not self._ready():
            return 0
        rest = self._pending[stream]
        if not self._append(stream, rest):
            return self._take_found(stream)
        self._pending[stream] = b""
        self._sink.flush()
        return len(rest) + self._take_found(stream)

    def _take_found(self, stream: int) -> int:
        found, self._found[stream] = self._found[stream], 0
        return found

    def lost(self, stream: int, count: int, why: str) -> None:
        """Say in the log that `count` bytes of a stream are not in it; they count as if they were."""
        if not self._known:  # it may have them
            self._offsets[stream - 1] += count
        elif self._ready():
            text = f"[hyperd: {count} bytes of {NAMES[stream]} are missing here: {why}]\n"
            self._append(stream, text.encode(), count)

    def _append(self, stream: int, data: bytes, count: int | None = None, *, partial: bool = False) -> bool:
        """Write all of it, with its account, or nothing; `count` is what it counts as, its length if None."""
        if not data:
            return True
        before = list(self._offsets)
        place = self._keeps.place() if self._keeps else None
        try:
            piece = Piece(stream, clock.now_ns(), data, partial and not data.endswith(b"\n"))
            self._sink.write(piece)
            self._offsets[stream - 1] += len(data) if count is None else count
            self._account()
        except OSError as error:
            self.error = error
            self._offsets = before
            if place and self._keeps:
                self._keeps.back_to(place)
            return False
        self.error = None
        if self._remote:
            with contextlib.suppress(OSError):  # it says so itself
                self._remote.open()
                self._remote.write(piece)
        return True

    def reopen(self) -> None:
        """Its file was moved away: go on in a new one. :raise OSError: it goes on in the old one."""
        if self._ready():
            self._sink.reopen()
            self._account()
        if self._remote:
            with contextlib.suppress(OSError):
                self._remote.reopen()

    def close(self) -> None:
        """:raise nothing: descriptors of files have nothing left to say."""
        self._sink.close()
        if self._remote:
            self._remote.close()
        if self._fd >= 0:
            os.close(self._fd)
            self._fd = -1
