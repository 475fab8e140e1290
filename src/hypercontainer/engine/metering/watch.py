# SPDX-License-Identifier: Apache-2.0
"""What the meter is told of by nobody: moments are marked, days end, sizes on the disk change, pods send.

Once a minute a moment is marked, so that no more than that is unknown after the host's end. Sizes are looked at when an
image, a snapshot or a volume comes or goes, and now and then; bytes that were sent also before a machine ends.
"""

from __future__ import annotations

import asyncio
import contextlib
import logging
from collections.abc import Callable

from ...errors import HyperError
from ...model.metering import Kind
from ...model.status import Pod
from ...sys import clock, tasks
from ..events import Events
from ..registry import Registry
from .measures import Counter, Measures, read_sent, sent_by
from .meter import Meter, tap_key
from .sources import Sources, charged

log = logging.getLogger(__name__)
_MARK = 60.0  # seconds between two marks
_MEASURE = 600.0  # seconds between two looks at sizes that nobody told of
_GATHER = 1.0  # seconds in which what happens to several is looked at once
_TELLING = {("image", a) for a in ("pull", "load", "import", "build", "commit", "tag", "delete", "prune")} | {
    ("snapshot", a) for a in ("create", "import", "destroy")
} | {("project", "destroy")}  # fmt: skip
_MEASURED: frozenset[Kind] = frozenset(("image", "snapshot", "volume"))


class Watch:
    """One task, as long as the daemon runs."""

    def __init__(
        self, meter: Meter, measures: Measures, registry: Registry, events: Events, sources: Sources,
        read: Callable[[], dict[str, Counter]] = read_sent,
    ) -> None:  # fmt: skip
        self._meter = meter
        self._measures = measures
        self._registry = registry
        self._events = events
        self._sources = sources
        self._read = read
        self._told = asyncio.Event()  # sizes are to be looked at
        self._first = True  # a look at the taps that there were before this daemon

    async def run(self) -> None:
        """Until it is cancelled."""
        telling = self._events.notify(self._told, lambda event: (event.type, event.action) in _TELLING)
        listener = asyncio.create_task(telling)
        measured = -_MEASURE
        self._count_all()  # before others can start anything
        self._first = False
        try:
            while True:
                while not (self._sources.active() or self._meter.used_now()):  # what is left of the last project ends
                    with contextlib.suppress(TimeoutError):
                        await tasks.within(self._registry.changed.wait(), _MARK)
                if self._told.is_set() or clock.seconds() >= measured + _MEASURE:
                    self._told.clear()
                    measured = clock.seconds()
                    await self._calmly()
                self._meter.mark()
                with contextlib.suppress(TimeoutError):
                    await tasks.within(self._told.wait(), _MARK)
                    await asyncio.sleep(_GATHER)
        finally:
            await tasks.end([listener])

    async def _calmly(self) -> None:
        self._count_all()
        try:
            self._meter.measured(_MEASURED, await self._measures.look())
        except (HyperError, OSError, ValueError) as error:
            log.warning("not all that is used can be measured: %s", error)

    def _count_all(self) -> None:
        try:
            self._meter.forget_taps(self._count(self._registry.pods()))
        except (OSError, ValueError) as error:
            log.warning("what pods have sent is not known: %s", error)

    def ending(self, pod: Pod) -> None:
        """Its machine, and its taps, are about to go."""
        try:
            self._count([pod])
        except (OSError, ValueError) as error:
            log.warning("what pod %s has sent is not known: %s", pod.name, error)

    def _count(self, pods: list[Pod]) -> set[str]:
        """Gives the keys of all of their taps."""
        metered = [p for p in pods if p.vm and p.vm.nics and self._sources.wanted(charged(p))]
        counters, there = self._read() if metered else {}, set()
        for pod in metered:
            of = self._sources.subject("egress", pod.id, pod.name, charged(pod))
            taps = sent_by(pod, counters)
            self._meter.sent(of, taps, new=not self._first)
            there |= {tap_key(of, tap) for tap in taps}
        return there
