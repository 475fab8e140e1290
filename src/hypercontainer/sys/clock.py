# SPDX-License-Identifier: Apache-2.0
"""The time, of which the daemon knows two kinds; nothing in the engine asks anybody else.

`seconds` is the event loop's clock, for durations: it never goes back, and `asyncio.sleep`, limits and timers are
by it. `now_ns` is the wall clock's, for records and people: it may be set, so nothing is measured by it. `boot_ns` is
for what is measured and outlives the daemon: it goes on while the host sleeps, and begins anew when it boots.
Tests have a loop whose time jumps, and tell the wall clock by it (`told_by`). Why the loop is the
port, and no object: docs/adr/0009-the-loop-is-the-clock.md.
"""

from __future__ import annotations

import asyncio
import contextlib
import functools
import time
from collections.abc import Callable, Iterator
from datetime import UTC, datetime, timedelta
from pathlib import Path

_EPOCH = datetime(1970, 1, 1, tzinfo=UTC)
_wall: Callable[[], int] = time.time_ns
_boot: Callable[[], int] = functools.partial(time.clock_gettime_ns, time.CLOCK_BOOTTIME)


def seconds() -> float:
    """Since some moment; of the loop that runs."""
    return asyncio.get_running_loop().time()


def now_ns() -> int:
    """Nanoseconds since the epoch."""
    return _wall()


def boot_ns() -> int:
    """Nanoseconds since the host's boot."""
    return _boot()


@functools.cache
def boot_id() -> str:
    """Linux's name for this boot of the host (random(4))."""
    return Path("/proc/sys/kernel/random/boot_id").read_text().strip()


def now() -> datetime:
    """In UTC, to the microsecond."""
    return _EPOCH + timedelta(microseconds=now_ns() // 1000)


def stamp() -> str:
    """RFC 3339 with microseconds, UTC, as in records."""
    return written(now())


def written(moment: datetime | None) -> str:
    """A time in UTC, as in records; "" of none."""
    return "" if moment is None else f"{moment:%Y-%m-%dT%H:%M:%S.%fZ}"


@contextlib.contextmanager
def told_by(source: Callable[[], int], boot: Callable[[], int] | None = None) -> Iterator[None]:
    """For tests: `source` gives the wall clock's nanoseconds, and those since the boot where `boot` does not."""
    global _wall, _boot
    before, _wall, _boot = (_wall, _boot), source, boot or source
    try:
        yield
    finally:
        _wall, _boot = before
