# SPDX-License-Identifier: Apache-2.0
"""Clones that wait for a container.

How many of a shape wait follows from what was asked for lately, within a
budget of memory. They are made one at a time, while nobody waits for a start.
"""

from __future__ import annotations

import asyncio
import contextlib
import logging
from collections import defaultdict, deque
from collections.abc import Awaitable, Callable, Iterator
from pathlib import Path

from ...errors import HyperError
from ...sys import clock, tasks
from .clones import Clone
from .shapes import Kind

log = logging.getLogger(__name__)
_BURST = 5.0  # seconds: as many as were started in such a time may be started again
_IDLE = 600.0  # seconds without a start, after which none wait
_QUIET = 0.1  # seconds without a start, before one is made
_PATIENCE = 1.0  # seconds, after which one is made all the same
_RETRY = 30.0  # seconds after a failure
_FIRST_COST = 48 << 20  # bytes, until one was measured


def private_memory(pid: int) -> int:
    """Bytes that only this process holds; 0 when it is gone or may not be looked at."""
    with contextlib.suppress(OSError):
        lines = Path(f"/proc/{pid}/smaps_rollup").read_text().splitlines()
        return sum(int(line.split()[1]) << 10 for line in lines if line.startswith("Private_"))
    return 0


class Pool:
    """Made, kept and given away."""

    def __init__(self, budget: int, make: Callable[[Kind], Awaitable[Clone]]) -> None:
        """`budget` is in bytes of memory that the waiting clones may hold; 0 for no pool."""
        self.budget = budget
        self._make = make
        self._waiting: dict[Kind, deque[Clone]] = defaultdict(deque)
        self._starts: dict[Kind, deque[float]] = defaultdict(deque)
        self._least: dict[Kind, int] = {}  # by `warm`
        self._cost = _FIRST_COST
        self._busy = 0
        self._last = 0.0  # end of the last start
        self._changed = asyncio.Event()
        self._task: asyncio.Task[None] | None = None
        self._making = asyncio.Lock()
        self._drained = 0  # so many times
        self._endings: set[asyncio.Task[None]] = set()

    @property
    def room(self) -> int:
        """How many may wait at a time."""
        return self.budget // self._cost

    # -- giving ---------------------------------------------------------------------------

    def take(self, kind: Kind) -> Clone | None:
        """One that waits, at best with the image's container; the caller owns it."""
        for candidate in dict.fromkeys((kind, kind.generic)):
            waiting = self._waiting.get(candidate)
            while waiting:
                clone = waiting.popleft()
                if clone.fit:
                    return clone
                self._destroy(clone)
        return None

    @contextlib.contextmanager
    def foreground(self, kind: Kind | None) -> Iterator[None]:
        """Somebody waits for a start; clones are made after it."""
        self._busy += 1
        try:
            yield
        finally:
            self._busy -= 1
            self._last = clock.seconds()
            if kind:
                self._starts[kind].append(self._last)
            self._wake()

    async def quiet(self) -> None:
        """Until nobody waits for a start, but not for ever: starts in quick succession need clones most of all."""
        end = clock.seconds() + _PATIENCE
        while (self._busy or clock.seconds() - self._last < _QUIET) and clock.seconds() < end:
            await asyncio.sleep(_QUIET / 2)

    # -- refilling ----------------------------------------------------------------------

    def _wanted(self, kind: Kind, now: float) -> int:
        starts = self._starts.get(kind, deque())
        while starts and now - starts[0] > _IDLE:
            starts.popleft()
        recent = sum(now - t < _BURST for t in starts)
        return max(recent, 1 if starts else 0, self._least.get(kind, 0))

    def targets(self) -> dict[Kind, int]:
        """How many of each shall wait; what was asked for last comes first within the budget."""
        now, room = clock.seconds(), self.room
        found: dict[Kind, int] = {}
        for known in (self._waiting, self._starts):
            for kind in [k for k, some in known.items() if not some]:
                del known[kind]
        kinds = {*self._waiting, *self._starts, *self._least}
        for kind in sorted(kinds, key=self._last_start, reverse=True):
            found[kind] = min(self._wanted(kind, now), room)
            room -= found[kind]
        return found

    def _last_start(self, kind: Kind) -> float:
        return self._starts[kind][-1] if self._starts.get(kind) else 0.0

    def counts(self) -> dict[Kind, tuple[int, int]]:
        """Of each kind how many wait, and how many shall."""
        return {k: (sum(c.fit for c in self._waiting.get(k, ())), target) for k, target in self.targets().items()}

    @property
    def memory(self) -> int:
        """Bytes of memory that only the waiting ones hold."""
        return sum(private_memory(c.machine.pid) for waiting in self._waiting.values() for c in waiting)

    def _wake(self) -> None:
        if self.budget and self._task is None:
            self._task = asyncio.create_task(self._refill())
        self._changed.set()

    async def _refill(self) -> None:
        while self.budget:
            self._changed.clear()
            try:
                pause = await self._step()
            except (HyperError, OSError) as error:
                log.warning("the pool is not refilled: %s", error)
                pause = _RETRY
            except (Exception, asyncio.CancelledError) as error:  # a fault of ours, which shall cost one machine only
                if tasks.cancelled():
                    raise
                log.exception("the pool is not refilled: %r", error)
                pause = _RETRY
            with contextlib.suppress(TimeoutError):
                await tasks.within(self._changed.wait(), pause)

    async def _step(self) -> float:
        """Bring the pool one clone nearer to what it shall be; the seconds until the next step."""
        await self.quiet()
        targets = self.targets()
        for kind, target in targets.items():
            while len(self._waiting[kind]) > target:
                self._destroy(self._waiting[kind].pop())
        for kind, target in targets.items():
            if len(self._waiting[kind]) < target:
                await self.add(kind)
                return 0.0
        return _IDLE / 10

    async def add(self, kind: Kind) -> None:
        """Let one more machine of this kind wait; it is ended at once when the pool was drained meanwhile."""
        async with self._making:
            drained = self._drained
            clone = await self._make(kind)
            if drained != self._drained:
                await clone.end()
                return
            self._waiting[kind].append(clone)
        self._cost = max(private_memory(clone.machine.pid), 1 << 20)

    async def warm(self, kind: Kind, count: int) -> int:
        """Let so many wait from now on; how many do."""
        self._least[kind] = count
        while len(self._waiting[kind]) < self.targets().get(kind, 0):
            await self.add(kind)
        self._wake()
        return len(self._waiting[kind])

    # -- ending ---------------------------------------------------------------------------

    def _destroy(self, clone: Clone) -> None:
        task = asyncio.create_task(clone.end())
        self._endings.add(task)
        task.add_done_callback(self._endings.discard)

    async def drain(self) -> int:
        """End those that wait, one that is being made too, and forget what was asked for; how many waited."""
        self._drained += 1
        self._starts.clear()
        self._least.clear()
        async with self._making:
            pass
        gone = [c for waiting in self._waiting.values() for c in waiting]
        self._waiting.clear()
        await asyncio.gather(*(c.end() for c in gone), return_exceptions=True)
        return len(gone)

    async def close(self) -> None:
        self.budget = 0  # what is about to be made is not kept
        await tasks.end({self._task} if self._task else ())
        await self.drain()
        await asyncio.gather(*self._endings, return_exceptions=True)
