# SPDX-License-Identifier: Apache-2.0
"""Every call has a timeout, and says at its end what it was that did not answer."""

from __future__ import annotations

import asyncio
import contextlib
import time
from collections.abc import Callable, Coroutine
from typing import Any, TypeVar

from ..client.base import container_route
from ..errors import DeadlineExceeded, HyperError
from ..model.status import Container, ContainerStatus
from .api import Api

T = TypeVar("T")
DEFAULT = 60.0  # seconds for a call that says nothing else
LONG = 24 * 3600.0  # seconds for output that nobody hurries
BUSY = "it is still at work"  # why it took too long, where all answer
_LOOK = 2.0  # seconds before the end, at most, in which it is found out what does not answer


class Deadline:
    """What is left of a call's time, for calls of several steps. Seconds."""

    def __init__(self, seconds: float) -> None:
        self.seconds = seconds
        self._end = time.monotonic() + seconds

    @property
    def left(self) -> float:
        return max(0.0, self._end - time.monotonic())


class Bounded:
    """Something of a sandbox: what is asked of it ends in its time."""

    def __init__(self, api: Api, container: str) -> None:
        """`container`: the sandbox's id."""
        self._api = api
        self._container_id = container

    async def _within(
        self, limit: float | Deadline, what: str, work: Coroutine[Any, Any, T],
        lost: Callable[[T], None] | None = None, *, busy: str = BUSY,
    ) -> T:  # fmt: skip
        """See `within`; a number is seconds from now."""
        deadline = limit if isinstance(limit, Deadline) else Deadline(limit)
        return await within(self._api, self._container_id, deadline, what, work, lost, busy=busy)


class _Look:
    """Who answers: hyperd, which tells of a sandbox without asking it, and the sandbox's virtual machine."""

    def __init__(self, api: Api, container: str, busy: str) -> None:
        self._api = api
        self._container = container
        self._busy = busy
        self.found = "hyperd does not answer"

    async def run(self) -> None:
        """What is found at any time is so far right; whoever waits for this is interrupted at his own time."""
        with contextlib.suppress(HyperError):
            if not self._container:
                await self._api.do("GET", "/version")
                self.found = "hyperd answers, but is still at work"
                return
            route = container_route(self._container)
            found = await self._api.call(Container, "GET", route)
            if found.state.status is ContainerStatus.PAUSED:
                self.found = "the sandbox is paused"
                return
            self.found = "the sandbox's virtual machine does not answer"
            await self._api.do("GET", f"{route}/stats")
            self.found = self._busy


async def within(
    api: Api, container: str, deadline: Deadline, what: str, work: Coroutine[Any, Any, T],
    lost: Callable[[T], None] | None = None, *, busy: str = BUSY,
) -> T:  # fmt: skip
    """What `work` gives; it is given up when the time is over. `container`: "" where there is none yet. `lost` gets
    what it has given when the caller is cancelled in that moment. `busy` is said where all answer.

    :raise DeadlineExceeded: saying `what` took too long, and who did not answer.
    """
    task = asyncio.ensure_future(work)
    look = _Look(api, container, busy)
    try:
        in_time = await _until_done(task, deadline, look)
    except asyncio.CancelledError:
        if lost and task.done() and not task.cancelled() and not task.exception():
            lost(task.result())
        raise
    if in_time or not task.cancelled():
        return task.result()
    raise DeadlineExceeded(f"{what} took longer than {deadline.seconds:g} s: {look.found}")


async def _until_done(task: asyncio.Task[Any], deadline: Deadline, look: _Look) -> bool:
    """Whether it was; else it is cancelled."""
    looking: asyncio.Task[None] | None = None
    try:
        done, _ = await asyncio.wait({task}, timeout=deadline.left - min(_LOOK, deadline.left / 4))
        if not done:
            looking = asyncio.create_task(look.run())
            done, _ = await asyncio.wait({task}, timeout=deadline.left)
        return bool(done)
    finally:
        for each in filter(None, (task, looking)):
            each.cancel()
        await asyncio.gather(*filter(None, (task, looking)), return_exceptions=True)
