# SPDX-License-Identifier: Apache-2.0
"""The event loop behind the SDK's synchronous classes: one thread of this process, which ends with it.

Nothing waits longer than the timeout of the call that it waits for, which the loop keeps.
"""

from __future__ import annotations

import asyncio
import os
import sys
import threading
from collections.abc import AsyncIterator, Callable, Coroutine, Iterator
from typing import Any, TypeVar

from ..errors import InvalidState

T = TypeVar("T")
_lock = threading.Lock()
_loops: dict[int, asyncio.AbstractEventLoop] = {}  # by process: a forked one has no such thread


def _loop() -> asyncio.AbstractEventLoop:
    with _lock:
        if (found := _loops.get(os.getpid())) is None:
            found = _loops[os.getpid()] = asyncio.new_event_loop()
            threading.Thread(target=found.run_forever, name="hypercontainer.sdk", daemon=True).start()
        return found


def _running() -> asyncio.AbstractEventLoop | None:
    """That of this process, if it has one that still runs; without a lock, which the caller's thread may hold."""
    return None if sys.is_finalizing() else _loops.get(os.getpid())


def run(work: Coroutine[Any, Any, T]) -> T:
    """What it gives; an interrupt of who waits cancels it.

    :raise InvalidState: this process ends, and the loop's thread with it.
    """
    if sys.is_finalizing():
        work.close()
        raise InvalidState("the Python interpreter ends: nothing can be asked of a sandbox any more")
    future = asyncio.run_coroutine_threadsafe(work, _loop())
    try:
        return future.result()
    finally:
        future.cancel()


def call(work: Callable[[], None]) -> None:
    """Something that waits for nothing, in the loop's thread, where its connections are."""
    if loop := _running():
        loop.call_soon_threadsafe(work)


def iterate(items: AsyncIterator[T]) -> Iterator[T]:
    """Items as they come; who stops early ends it."""
    try:
        while True:
            try:
                yield run(_next(items))
            except StopAsyncIteration:
                return
    finally:
        _forget(items)


def _forget(items: AsyncIterator[Any]) -> None:
    """It may be the garbage collector that stops early: in any thread, the loop's too, or when Python ends. So nothing
    is waited for."""
    if loop := _running():
        asyncio.run_coroutine_threadsafe(_close(items), loop)


async def _next(items: AsyncIterator[T]) -> T:
    return await anext(items)


async def _close(items: AsyncIterator[Any]) -> None:
    if (close := getattr(items, "aclose", None)) is not None:
        await close()
