# SPDX-License-Identifier: Apache-2.0
"""Waiting with a limit; ending tasks; work that blocks."""

from __future__ import annotations

import asyncio
from collections.abc import Awaitable, Callable, Iterable
from typing import Any, TypeVar

T = TypeVar("T")
_AGAIN = 1.0  # seconds


async def within(awaited: Awaitable[T], timeout: float) -> T:
    """The result, if it comes within `timeout` seconds.

    `asyncio.wait_for` of Python 3.11 swallows a cancellation that comes together with the result
    (https://github.com/python/cpython/issues/86296), and whoever has cancelled waits for ever: the linter refuses it.

    :raise TimeoutError: it does not; what was awaited is cancelled.
    """
    async with asyncio.timeout(timeout):
        return await awaited


def cancelled() -> bool:
    """Whether somebody asks this task to end. Without that, a CancelledError is one of a future that it waited for."""
    task = asyncio.current_task()
    return task is not None and task.cancelling() > 0


async def end(tasks: Iterable[asyncio.Task[Any]]) -> None:
    """Cancel them, and wait until they have ended; what swallows a cancellation, as some libraries do, gets another."""
    left = set(tasks)
    while left:
        for task in left:
            task.cancel()
        _, left = await asyncio.wait(left, timeout=_AGAIN)


async def to_the_end(work: Awaitable[T], hasten: Callable[[], None] | None = None) -> T:
    """Its result. Whoever is cancelled meanwhile waits for its end all the same: it is done as a whole, or fails.

    `hasten` is called then.
    """
    task = asyncio.ensure_future(work)
    try:
        return await asyncio.shield(task)
    except asyncio.CancelledError:
        if hasten:
            hasten()
        await asyncio.wait([task])
        if not task.cancelled():
            task.exception()  # seen
        raise


async def in_thread(work: Callable[[], T], hasten: Callable[[], None] | None = None) -> T:
    """Its result. A thread cannot be cancelled: whoever is cancelled waits for its end first, and can tidy up.

    `hasten` is as in `to_the_end`.
    """
    return await to_the_end(asyncio.to_thread(work), hasten)
