# SPDX-License-Identifier: Apache-2.0
"""What happened, for `events`: the last thousand, and a live stream."""

from __future__ import annotations

import asyncio
from collections import deque
from collections.abc import AsyncGenerator

from ..model.ids import now
from ..model.status import Event

_KEPT = 1000
# A listener that does not read is cut off rather than fed without end.
_QUEUE = 10_000


class Events:
    """Everyone may publish, everyone may listen."""

    def __init__(self) -> None:
        self._past: deque[Event] = deque(maxlen=_KEPT)
        self._listeners: set[asyncio.Queue[Event]] = set()

    def publish(self, type_: str, action: str, id_: str, **attributes: str) -> None:
        event = Event(time=now(), type=type_, action=action, id=id_, attributes=attributes)
        self._past.append(event)
        for queue in list(self._listeners):
            try:
                queue.put_nowait(event)
            except asyncio.QueueFull:
                self._listeners.discard(queue)

    def past(self, since: str = "") -> list[Event]:
        return [e for e in self._past if e.time >= since]

    async def listen(self) -> AsyncGenerator[Event, None]:
        queue: asyncio.Queue[Event] = asyncio.Queue(_QUEUE)
        self._listeners.add(queue)
        try:
            while queue in self._listeners or not queue.empty():
                yield await queue.get()
        finally:
            self._listeners.discard(queue)
