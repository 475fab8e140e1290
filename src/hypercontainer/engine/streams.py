# SPDX-License-Identifier: Apache-2.0
"""A process's output: into its log, and to everyone attached.

Output is acknowledged to the guest when it is in the log and no attached
reader is far behind; so a slow reader slows the process, and no memory grows.
"""

from __future__ import annotations

import asyncio
from collections import deque
from collections.abc import AsyncIterator, Callable

from ..guest.process import GuestProcessHandle
from .logs import LogWriter

_READER_LIMIT = 1 << 20  # bytes that may wait for one reader


class Reader:
    """One attached client's view of the output."""

    def __init__(self, hub: Hub) -> None:
        self._hub = hub
        self._chunks: deque[tuple[int, bytes]] = deque()
        self._size = 0
        self._wake = asyncio.Event()
        self._ended = False

    @property
    def behind(self) -> bool:
        return self._size > _READER_LIMIT

    def put(self, stream: int, data: bytes) -> None:
        self._chunks.append((stream, data))
        self._size += len(data)
        self._wake.set()

    def end(self) -> None:
        self._ended = True
        self._wake.set()

    async def __aiter__(self) -> AsyncIterator[tuple[int, bytes]]:
        """(stream, bytes) until the process's output has ended."""
        while True:
            while self._chunks:
                stream, data = self._chunks.popleft()
                yield stream, data
                self._size -= len(data)
                self._hub.caught_up()
            if self._ended:
                return
            self._wake.clear()
            await self._wake.wait()

    def close(self) -> None:
        self._hub.detach(self)


class Hub:
    """The sink of one process; lives as long as its container or exec."""

    def __init__(self, log: Callable[[], LogWriter | None] | None = None) -> None:
        self.handle: GuestProcessHandle | None = None
        self.started = asyncio.Event()
        self.changed = asyncio.Event()  # pulsed at every write, for log followers
        self._make_log = log
        self._log: LogWriter | None = None
        self._readers: set[Reader] = set()
        self._held = {1: 0, 2: 0}
        self._open: set[int] = set()

    def begin(self, *, resume: bool = False) -> tuple[int, int]:
        """Before a process starts or is found again; the offsets to go on from."""
        offsets = (0, 0)
        if self._make_log:
            self._log = self._make_log()
        if self._log:
            offsets = self._log.offsets() if resume else (0, 0)
            self._log.begin(offsets)
        self._held = {1: 0, 2: 0}
        self._open = {1, 2}
        return offsets

    def attach_process(self, handle: GuestProcessHandle) -> None:
        self.handle = handle
        self.started.set()

    def attach(self) -> Reader:
        reader = Reader(self)
        self._readers.add(reader)
        return reader

    def detach(self, reader: Reader) -> None:
        self._readers.discard(reader)
        self.caught_up()

    # -- Sink -------------------------------------------------------------------

    def write(self, stream: int, data: bytes) -> int:
        safe = self._log.write(stream, data) if self._log else len(data)
        for reader in self._readers:
            reader.put(stream, data)
        self.pulse()
        if self._congested():
            self._held[stream] += safe
            return 0
        return safe

    def end(self, stream: int) -> None:
        if self._log:
            safe = self._log.flush(stream)
            if safe and self.handle:
                self.handle.acknowledge(stream, safe)
        self._open.discard(stream)
        if not self._open:
            self.finish()

    # ---------------------------------------------------------------------------

    def finish(self) -> None:
        """No more output comes: readers end, the log is closed. Idempotent."""
        if self._log:
            for stream in (1, 2):
                self._log.flush(stream)
            self._log.close()
            self._log = None
        for reader in self._readers:
            reader.end()
        self.handle = None
        self.started.clear()
        self.pulse()

    def _congested(self) -> bool:
        return any(r.behind for r in self._readers)

    def caught_up(self) -> None:
        if not self._congested() and self.handle:
            for stream, count in self._held.items():
                if count:
                    self._held[stream] = 0
                    self.handle.acknowledge(stream, count)

    def pulse(self) -> None:
        """Wake the followers of the log: there is more of it, or the container's state has changed."""
        self.changed.set()
        self.changed = asyncio.Event()
