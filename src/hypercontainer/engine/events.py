# SPDX-License-Identifier: Apache-2.0
"""What happened, for `events`: a live stream, and a past that outlives the daemon.

Each event has a time of its own, later than any before it, whatever the clock
does; so the last one that a client saw says where to go on. The last thousand
are in memory, all that are kept in the database, so many of each tenant, and no
more of another's loudness; a full disk costs the past of before, and no more.
"""

from __future__ import annotations

import asyncio
import logging
from collections import deque
from collections.abc import AsyncGenerator, Callable, Iterator, Mapping

import msgspec

from ..model.moments import SECOND, write_moment
from ..model.principal import DAEMON, Principal, Tenant
from ..model.status import Event
from ..state.journal import Journal
from ..state.store import Happened
from ..sys import clock, tasks
from ..sys.documents import UNREADABLE
from .principal import asking, current

log = logging.getLogger(__name__)
_KEPT = 1000
_PAGE = 500  # events that are read from the database at a time
# A listener that does not read is cut off rather than fed without end.
_QUEUE = 10_000
# What comes about while a client waits, and is not what it asked for.
_BY_THEMSELVES = ("die", "oom", "exec_die", "disk_", "health_status", "start_failed", "log_", "audit_",
                  "egress_")  # fmt: skip


class Events:
    """Everyone may publish, everyone may listen."""

    def __init__(self, journal: Journal | None = None) -> None:
        """Without a journal there is no past but the memory's."""
        self._journal = journal
        self._past: deque[Event] = deque(maxlen=_KEPT)
        self._listeners: dict[asyncio.Queue[Event], Principal] = {}
        self._last = journal.database.last_event() if journal else 0
        self.tenant_of: Callable[[str], Tenant] = lambda id_: current().tenant

    def pruned(self, type_: str, freed: int) -> None:
        """All of a type that nothing used are gone, which has freed so many bytes."""
        self.publish(type_, "prune", "", reclaimed=str(freed))

    def publish(
        self, type_: str, action: str, id_: str, *, of: Mapping[str, str] | None = None, tenant: Tenant | None = None,
        **attributes: str,
    ) -> None:  # fmt: skip
        """`of` are labels of what it happens to, `tenant` says whose that is, where its id does not."""
        self._last = max(clock.now_ns(), self._last + 1)
        event = Event(
            time=write_moment(self._last), time_nano=self._last, type=type_, action=action, id=id_,
            attributes=attributes, labels=dict(of or {}),
            principal="" if action.startswith(_BY_THEMSELVES) else asking().name,
            tenant=self.tenant_of(id_) if tenant is None else tenant,
        )  # fmt: skip
        self._past.append(event)
        if self._journal:
            self._journal.event(Happened(event.time_nano, msgspec.json.encode(event), event.tenant or ""))
        for queue in [q for q, who in self._listeners.items() if _concerns(event, who)]:
            try:
                queue.put_nowait(event)
            except asyncio.QueueFull:
                del self._listeners[queue]

    def past(self, since: int = 0, until: int | None = None, who: Principal | None = None) -> Iterator[Event]:
        """What is kept with `since` <= time <= `until` (now when it is None), in order; times in nanoseconds. It is
        what concerns `who`: None is who asks.
        """
        who = who or current()
        end = (self._last if until is None else min(until, self._last)) + 1
        recent = [e for e in self._past if since <= e.time_nano < end]
        begun = self._past[0].time_nano if self._past else end
        whose = None if who.name == DAEMON.name else who.tenant or ""
        yield from self._written(since, min(begun, end), whose)
        yield from (e for e in recent if _concerns(e, who))

    def _written(self, first: int, end: int, whose: str | None) -> Iterator[Event]:
        """By pages, so that a long past is not in memory as a whole; None: everybody's."""
        if self._journal:
            self._journal.flush_events()
            self._journal.forget_old_events()
        while self._journal and (rows := self._journal.database.events(first, end, _PAGE, whose)):
            for row in rows:
                try:
                    yield msgspec.json.decode(row.document, type=Event)
                except UNREADABLE as error:
                    log.warning("an event of the past cannot be read: %s", error)
            first = rows[-1].time + 1

    async def follow(self, since: int | None = None, until: int | None = None) -> AsyncGenerator[Event, None]:
        """The past from `since` on, if it is given, and what happens then, until `until`; each comes exactly once, to
        the tenant whose it is; all come to the daemon itself.

        It ends early when its reader is thousands of events behind.
        """
        queue, who = asyncio.Queue[Event](_QUEUE), current()
        self._listeners[queue] = who  # from this moment on; what was before it is the past
        try:
            if since is not None:
                for event in self.past(since, until, who):
                    yield event
            while queue in self._listeners or not queue.empty():
                try:
                    event = await self._next(queue, until)
                except TimeoutError:
                    return
                if until is not None and event.time_nano > until:
                    return
                if since is None or event.time_nano >= since:
                    yield event
        finally:
            self._listeners.pop(queue, None)

    async def notify(self, told: asyncio.Event, concerns: Callable[[Event], bool]) -> None:
        """Set `told` when what concerns it happens, or may have: where more happens than is read. Until cancelled."""
        while True:
            async for event in self.follow():
                if concerns(event):
                    told.set()
            told.set()

    @staticmethod
    async def _next(queue: asyncio.Queue[Event], until: int | None) -> Event:
        """:raise TimeoutError: none came until then."""
        if not queue.empty():
            return queue.get_nowait()
        if until is None:
            return await queue.get()
        return await tasks.within(queue.get(), max(0.0, (until - clock.now_ns()) / SECOND))


def _concerns(event: Event, who: Principal) -> bool:
    return event.tenant == who.tenant or who.name == DAEMON.name
