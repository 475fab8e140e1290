# SPDX-License-Identifier: Apache-2.0
"""The time, of which the daemon knows two kinds; nothing in the engine asks anybody else.

`seconds` is the event loop's clock, for durations: it never goes back, and `asyncio.sleep`, limits and timers are
by it. `now_ns` is the wall clock's, for records and people: it may be set, so nothing is measured by it.
Tests have a loop whose time jumps, and tell the wall clock by it (`told_by`). Why the loop is the
port, and no object: docs/adr/0009-the-loop-is-the-clock.md.
"""

from __future__ import annotations

import asyncio
import contextlib
import time
from collections.abc import Callable, Iterator
from datetime import UTC, datetime, timedelta

_EPOCH = datetime(1970, 1, 1, tzinfo=UTC)
_wall: Callable[[], int] = time.time_ns


def seconds() -> float:
    """Since some moment; of the loop that runs."""
    return asyncio.get_running_loop().time()


def now_ns() -> int:
    """Nanoseconds since the epoch."""
    return _wall()


def now() -> datetime:
    """In UTC, to the microsecond."""
    return _EPOCH + timedelta(microseconds=now_ns() // 1000)


def stamp() -> str:
    """RFC 3339 with microseconds, UTC, as in records."""
    return f"{now():%Y-%m-%dT%H:%M:%S.%fZ}"


@contextlib.contextmanager
def told_by(source: Callable[[], int]) -> Iterator[None]:
    """For tests: `source` gives the wall clock's nanoseconds."""
    global _wall
    before, _wall = _wall, source
    try:
        yield
    finally:
        _wall = before
