# SPDX-License-Identifier: Apache-2.0
"""Changes of records, and events, on their way to the database.

What has happened is in memory first, and written as soon as that can be: a
full disk delays it, and never stops whoever tells it. What is still to be
decided, such as the creation of a container, is written first, or refused.

Events go with the next change of a record, or by themselves a moment later,
so that none costs a start a transaction of its own. Where there is no space
for both, events give way: records are never lost for them.
"""

from __future__ import annotations

import asyncio
import logging
from collections import deque
from dataclasses import dataclass

from ..errors import HyperError
from ..sys import clock
from .changes import Change
from .store import Happened, Store

log = logging.getLogger(__name__)
_RETRY = 1.0  # seconds between attempts while the database cannot be written
_GATHER = 0.1  # seconds that an event may wait for others
_WAITING = 1000  # events that may wait for space; the older ones are lost then
_TIDY = 500  # events that are written between two looks for old ones


@dataclass(frozen=True)
class EventLimits:
    """What is kept of events: so many of each tenant at most, and none older than so many seconds."""

    count: int = 10_000
    age: float = 30 * 86400.0


class Journal:
    """The only writer of the database."""

    def __init__(self, database: Store) -> None:
        self.database = database
        self.trouble = ""  # why records are not written at present
        self.limits = EventLimits()
        self._pending: list[Change] = []
        self._timer: asyncio.TimerHandle | None = None
        self._events: deque[Happened] = deque(maxlen=_WAITING)
        self._gathering: asyncio.TimerHandle | None = None
        self._events_wait = False  # they could not be written when that was tried last
        self._events_lost = 0
        self._untidied = _TIDY  # events written since the last look for old ones
        self._telling: set[str] | None = None  # whose these are; None: whosever

    @property
    def pending(self) -> int:
        """Changes that are in memory only."""
        return len(self._pending)

    def write(self, *changes: Change) -> None:
        """Now, or when it can be."""
        for change in changes:
            self._add(change)
        self._flush()

    def later(self, change: Change) -> None:
        """With the next one: nothing is lost if it never comes to that."""
        self._add(change)

    def write_now(self, *changes: Change) -> None:
        """All of them, after what waits, or none.

        :raise NoSpace: when the disk is full.
        :raise Unavailable: when the database cannot be written for another reason.
        """
        try:
            self._commit([*self._pending, *changes])
        except HyperError as error:
            if self._pending:
                self._failed(error)
            raise
        self._written()

    def _commit(self, changes: list[Change]) -> None:
        """With the events that wait, or without them.

        :raise NoSpace: when the disk is full.
        :raise Unavailable: when the database cannot be written for another reason.
        """
        if self._events:
            try:
                self.database.commit(changes, list(self._events))
            except HyperError:
                if not changes:
                    raise
            else:
                return self._events_written()
        self.database.commit(changes)

    def _add(self, change: Change) -> None:
        """A later state of a record replaces an earlier one; the order of names that change hands is kept."""
        for at in range(len(self._pending) - 1, -1, -1):
            earlier = self._pending[at]
            if (earlier.table, earlier.id) == (change.table, change.id):
                if earlier.name == change.name:
                    self._pending[at] = change
                    return
                break
        self._pending.append(change)

    def _flush(self) -> None:
        try:
            self._commit(self._pending)
        except HyperError as error:
            self._failed(error)
        else:
            self._written()

    def _failed(self, error: HyperError) -> None:
        if not self.trouble:
            log.error("records are kept in memory only until the database can be written: %s", error)
        self.trouble = str(error)
        if self._timer is None:
            try:
                self._timer = asyncio.get_running_loop().call_later(_RETRY, self._again)
            except RuntimeError:  # without a loop there is nobody to wait; `close` tries once more
                return

    def _again(self) -> None:
        self._timer = None
        self._flush()

    def _written(self) -> None:
        self._pending.clear()
        if self.trouble:
            log.warning("the database can be written again")
            self.trouble = ""

    # -- events ---------------------------------------------------------------------

    def event(self, event: Happened) -> None:
        """Written in a moment; lost when the disk is full for long."""
        if len(self._events) == _WAITING and not self._events_wait:
            self.flush_events()
        if len(self._events) == _WAITING:
            self._events_lost += 1
        self._events.append(event)
        self._gather(_GATHER)

    def flush_events(self) -> None:
        """Those that wait, if that can be."""
        if not self._events:
            return
        try:
            self._commit([])
        except HyperError as error:
            self._events_wait = True
            log.debug("%d events wait: %s", len(self._events), error)

    def _gather(self, seconds: float) -> None:
        if self._gathering is None:
            try:
                self._gathering = asyncio.get_running_loop().call_later(seconds, self._gathered)
            except RuntimeError:  # without a loop `close` writes them
                return

    def _gathered(self) -> None:
        self._gathering = None
        self.flush_events()
        if self._events:
            self._gather(_RETRY)

    def _events_written(self) -> None:
        self._untidied += len(self._events)
        if self._telling is not None:
            self._telling.update(e.tenant for e in self._events)
        self._events.clear()
        self._events_wait = False
        if self._events_lost:
            log.warning("%d events were lost while the database could not be written", self._events_lost)
            self._events_lost = 0
        if self._untidied >= _TIDY:
            self.forget_old_events()

    def forget_old_events(self) -> None:
        """Those beyond the limits."""
        self.database.forget_events(self.limits.count, clock.now_ns() - int(self.limits.age * 1e9), self._telling)
        self._untidied, self._telling = 0, set()

    def close(self) -> None:
        for timer in (self._timer, self._gathering):
            if timer:
                timer.cancel()
        self._timer = None
        if self._pending or self._events:
            self._flush()
        if self._timer:
            self._timer.cancel()
        if self._pending:
            log.error("%d changes of records are lost: %s", len(self._pending), self.trouble)
        if self._events:
            log.error("%d events are lost", len(self._events))
        self.database.close()
