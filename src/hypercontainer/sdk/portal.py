# SPDX-License-Identifier: Apache-2.0
"""The event loop behind the SDK's synchronous classes: one thread of this process, which ends with it.

Nothing waits longer than the timeout of the call that it waits for, which the loop keeps.
"""

from __future__ import annotations

import asyncio
import os
import threading
from collections.abc import AsyncIterator, Coroutine, Iterator
from typing import Any, TypeVar

T = TypeVar("T")
_lock = threading.Lock()
_loops: dict[int, asyncio.AbstractEventLoop] = {}  # by process: a forked one has no such thread


def _loop() -> asyncio.AbstractEventLoop:
    with _lock:
        if (found := _loops.get(os.getpid())) is None:
            found = _loops[os.getpid()] = asyncio.new_event_loop()
            threading.Thread(target=found.run_forever, name="hypercontainer.sdk", daemon=True).start()
        return found


def run(work: Coroutine[Any, Any, T]) -> T:
    """What it gives; an interrupt of who waits cancels it."""
    future = asyncio.run_coroutine_threadsafe(work, _loop())
    try:
        return future.result()
    finally:
        future.cancel()


def iterate(items: AsyncIterator[T]) -> Iterator[T]:
    """Items as they come; who stops early ends it."""
    try:
        while True:
            try:
                yield run(_next(items))
            except StopAsyncIteration:
                return
    finally:
        run(_close(items))


async def _next(items: AsyncIterator[T]) -> T:
    return await anext(items)


async def _close(items: AsyncIterator[Any]) -> None:
    if (close := getattr(items, "aclose", None)) is not None:
        await close()
