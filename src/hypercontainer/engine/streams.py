# SPDX-License-Identifier: Apache-2.0
"""A process's output: into its log, and to everyone attached.

While a process runs, its output is acknowledged to the guest when it is in
the log and no attached reader is far behind; so a slow reader slows the
process, as a slow terminal does, and no memory grows. Once it has ended
nobody is slowed any more: the log takes all that is left, and a reader as
much as may wait for it; it is told how much it has missed.
"""

from __future__ import annotations

import asyncio
import logging
from collections import deque
from collections.abc import AsyncGenerator, Callable

from ..errors import NoSpace
from ..guest.agent import Process
from .logs import OutputLog

log = logging.getLogger(__name__)
_READER_LIMIT = 1 << 20  # bytes that may wait for one reader before the process is slowed
_LATE_LIMIT = 4 << 20  # bytes that may wait for one when the process has ended: what a guest can still hold, and more
_CHUNK = 64 << 10  # bytes to which small pieces are joined
_CHUNKS = 1024  # pieces that keep their order among the streams
_RETRY = 1.0  # seconds between attempts to write to a full disk
_RETRIES = 600  # attempts after the end of the process


class Reader:
    """One attached client's view of the output."""

    def __init__(self, fan_out: FanOut) -> None:
        self.lost = 0  # bytes that came after the end and found no room
        self._fan_out = fan_out
        self._chunks: deque[tuple[int, bytearray]] = deque()
        self._last: dict[int, bytearray] = {}  # of each stream, while it waits
        self._size = 0
        self._wake = asyncio.Event()
        self._ended = False

    @property
    def behind(self) -> bool:
        """Whether so much waits for it that the process has to be slowed down."""
        return self._size > _READER_LIMIT

    def put(self, stream: int, data: bytes) -> None:
        """Output for it; when the process has ended, no more than a limit is kept, and the rest counted as lost."""
        if self._fan_out.over and self._size + len(data) > _LATE_LIMIT:
            self.lost += len(data)
            return
        last = self._last.get(stream)
        newest = bool(self._chunks) and self._chunks[-1][1] is last
        if last is not None and ((newest and len(last) < _CHUNK) or len(self._chunks) > _CHUNKS):
            last += data  # a guest that sends byte by byte costs no more than another
        else:
            self._last[stream] = bytearray(data)
            self._chunks.append((stream, self._last[stream]))
        self._size += len(data)
        self._wake.set()

    def end(self) -> None:
        self._ended = True
        self._wake.set()

    async def __aiter__(self) -> AsyncGenerator[tuple[int, bytes], None]:
        """(stream, bytes) until the process's output has ended."""
        while True:
            while self._chunks:
                stream, data = self._chunks.popleft()
                if self._last.get(stream) is data:
                    del self._last[stream]
                yield stream, bytes(data)
                self._size -= len(data)
                self._fan_out.caught_up()
            if self._ended:
                return
            self._wake.clear()
            await self._wake.wait()

    def close(self) -> None:
        self._fan_out.detach(self)


class FanOut:
    """The sink of one process; lives as long as its container or exec."""

    def __init__(self, log: Callable[[], OutputLog] | None = None) -> None:
        self.told: Callable[[str], None] = lambda _: None  # why the log cannot be written, "" when it can
        self.handle: Process | None = None
        self.started = asyncio.Event()
        self.changed = asyncio.Event()  # pulsed at every write, for log followers
        self.over = False  # the process has ended: nobody slows it any more
        self.followers = 0  # of the log
        self._make_log = log
        self._log: OutputLog | None = None
        self._retry: asyncio.TimerHandle | None = None
        self._retries = 0  # since the process's end
        self._readers: set[Reader] = set()
        self._held = {1: 0, 2: 0}
        self._open: set[int] = set()

    def begin(self, *, resume: bool = False, must: bool = True) -> tuple[int, int]:
        """Before a process starts, or one is found again (`resume`); the offsets to go on from.

        A log that cannot be opened is no reason to give up what runs: it is tried again, and `told` meanwhile.

        :raise NoSpace: when the log cannot be opened for a process that begins, and `must` be.
        """
        self._close_log()
        offsets = (0, 0)
        if self._make_log:
            self._log = self._make_log()
            try:
                offsets = self._log.begin(resume=resume)
                self.told("")
            except OSError as error:
                if must and not resume:
                    self._close_log()
                    raise NoSpace(
                        f"the log cannot be written: {error.strerror or error}",
                        hint="make room, or choose another log",
                    ) from error
                offsets = self._log.offsets
                self._try_later(error)
        self._held = {1: 0, 2: 0}
        self._open = {1, 2}
        self.over = False
        return offsets

    def attach_process(self, handle: Process) -> None:
        """The process that writes is this one: it is told what is safe."""
        self.handle = handle
        self.started.set()

    @property
    def used(self) -> bool:
        """Whether somebody reads the output, or follows the log."""
        return bool(self._readers or self.followers)

    def attach(self) -> Reader:
        reader = Reader(self)
        self._readers.add(reader)
        return reader

    def detach(self, reader: Reader) -> None:
        self._readers.discard(reader)
        self.caught_up()

    def unlogged(self) -> list[tuple[int, bytes]]:
        """What has come of the output and is not in the log yet."""
        found = [(stream, self._log.unlogged(stream)) for stream in (1, 2)] if self._log else []
        return [(stream, data) for stream, data in found if data]

    def reopen_log(self) -> bool:
        """Go on in a new file; False when there is no log. :raise OSError: it goes on in the old one."""
        if self._log is None:
            return False
        self._log.reopen()
        return True

    # -- Sink -------------------------------------------------------------------

    def write(self, stream: int, data: bytes) -> int:
        safe = self._logged(stream, data) if self._log else len(data)
        for reader in self._readers:
            reader.put(stream, data)
        self.pulse()
        if self._congested():
            self._held[stream] += safe
            return 0
        return safe

    def lost(self, stream: int, count: int) -> None:
        """The guest no longer has `count` bytes, and the log does not have them."""
        if self._log:
            self._log.lost(stream, count, "the guest was told that they are safe")

    def exited(self) -> None:
        """What the guest still holds of the output may come now, whoever reads."""
        self.over = True
        self.caught_up()

    def end(self, stream: int) -> None:
        if self._log:
            safe = self._log.flush(stream)
            if safe and self.handle:
                self.handle.acknowledge(stream, safe)
        self._open.discard(stream)
        if not self._open:
            self.finish()

    # -- a log that cannot be written ---------------------------------------------

    def _logged(self, stream: int, data: bytes) -> int:
        assert self._log is not None
        safe = self._log.write(stream, data)
        if self._log.error:
            self._try_later(self._log.error)
        return safe

    def _try_later(self, error: OSError) -> None:
        if self._retry is None:
            self.told(error.strerror or str(error))
            self._retry = asyncio.get_running_loop().call_later(_RETRY, self._again)

    def _again(self) -> None:
        self._retry = None
        if self._log is None:
            return
        ended, error = not self._open, None
        for stream in (1, 2):
            safe = self._log.flush(stream) if ended else self._log.write(stream, b"")
            error = error or self._log.error
            if safe and self.handle:
                self.handle.acknowledge(stream, safe)
        self.pulse()
        self._retries += ended
        if error and self._retries < _RETRIES:
            self._try_later(error)
            return
        if not error:
            self.told("")
        if ended:
            self._close_log()

    def _close_log(self) -> None:
        """What cannot be written by now is given up."""
        if self._retry:
            self._retry.cancel()
            self._retry = None
        if self._log:
            for stream in (1, 2):
                self._log.flush(stream)
            if self._log.pending:
                log.warning("the last %d bytes of an output are not in its log: %s", self._log.pending, self._log.error)
            self._log.close()
            self._log = None

    # ---------------------------------------------------------------------------

    def finish(self) -> None:
        """No more output comes: readers end, the log is closed when all is in it. Idempotent."""
        self._open.clear()
        if self._log:
            for stream in (1, 2):
                self._log.flush(stream)
            if self._log.error and self._log.pending:
                self._retries = 0
                self._try_later(self._log.error)
            else:
                self._close_log()
        for reader in self._readers:
            reader.end()
        self._readers.clear()  # the next run is none of theirs, and does not wait for them
        self.handle = None
        self.started.clear()
        self.pulse()

    def discard(self) -> None:
        """Its container is gone: there is no log to be written any more."""
        self.finish()
        self._close_log()

    def _congested(self) -> bool:
        return not self.over and any(r.behind for r in self._readers)

    def caught_up(self) -> None:
        """A reader has read, or gone: the guest may send what was held back for it."""
        if not self._congested() and self.handle:
            for stream, count in self._held.items():
                if count:
                    self._held[stream] = 0
                    self.handle.acknowledge(stream, count)

    def pulse(self) -> None:
        """Wake the followers of the log: there is more of it, or the container's state has changed."""
        self.changed.set()
        self.changed = asyncio.Event()
