# SPDX-License-Identifier: Apache-2.0
"""Whose start is next, where tenants share a host.

So many machines begin at a time; those of one tenant wait for each other, and tenants come in turn. So a hundred starts
of one delay the first start of another by one boot at most. What is nobody's but the daemon's does not wait.
"""

from __future__ import annotations

import asyncio
import contextlib
import os
from collections import Counter, OrderedDict, deque
from collections.abc import AsyncIterator

from ...errors import Unavailable
from ...model.principal import Tenant
from ...sys import tasks

_LEAST = 4  # starts at a time
WAIT = 300.0  # seconds that a start waits for its turn


class Turns:
    """Of one daemon."""

    def __init__(self, places: int = 0, wait: float = WAIT) -> None:
        """`places`: starts at a time; 0 is what the host's processors are good for."""
        self._places = places or max(_LEAST, 2 * (os.cpu_count() or 1))
        self._share = max(1, self._places * 3 // 4)  # of one tenant: another finds a place, whatever hangs
        self._wait = wait
        self._busy: Counter[str] = Counter()
        self._waiting: OrderedDict[str, deque[asyncio.Future[None]]] = OrderedDict()  # the first is next

    @contextlib.asynccontextmanager
    async def of(self, tenant: Tenant) -> AsyncIterator[None]:
        """:raise Unavailable: its turn did not come."""
        if not isinstance(tenant, str):
            yield
            return
        await self._take(tenant)
        try:
            yield
        finally:
            self._give_back(tenant)

    async def _take(self, tenant: str) -> None:
        if self._is_free(tenant) and tenant not in self._waiting:
            self._busy[tenant] += 1
            return
        turn = asyncio.get_running_loop().create_future()
        self._waiting.setdefault(tenant, deque()).append(turn)
        try:
            await tasks.within(asyncio.shield(turn), self._wait)
        except BaseException as error:
            if turn.done() and not turn.cancelled():
                self._give_back(tenant)
            else:
                self._leave(tenant, turn)
            if isinstance(error, TimeoutError):
                raise Unavailable(f"{self._busy.total()} pods are being started, and its turn did not come in "
                                  f"{self._wait:g} s", hint="try again later") from None  # fmt: skip
            raise

    def _is_free(self, tenant: str) -> bool:
        return self._busy.total() < self._places and self._busy[tenant] < self._share

    def _give_back(self, tenant: str) -> None:
        self._busy[tenant] -= 1
        if not self._busy[tenant]:
            del self._busy[tenant]
        self._pass_on()

    def _leave(self, tenant: str, turn: asyncio.Future[None]) -> None:
        turn.cancel()
        queue = self._waiting.get(tenant, deque())
        with contextlib.suppress(ValueError):
            queue.remove(turn)
        if not queue:
            self._waiting.pop(tenant, None)

    def _pass_on(self) -> None:
        """What is free goes to the tenants in turn."""
        while tenant := next((t for t in self._waiting if self._is_free(t)), None):
            queue = self._waiting[tenant]
            turn = queue.popleft()
            if queue:
                self._waiting.move_to_end(tenant)
            else:
                del self._waiting[tenant]
            self._busy[tenant] += 1
            turn.set_result(None)
