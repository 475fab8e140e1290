# SPDX-License-Identifier: Apache-2.0
"""A plugin of pytest: when nothing moves, say who waits for whom.

It prints the stacks of all threads and of all asyncio tasks, and of each QEMU the time its threads ran meanwhile.
A test that fails while a machine was ended because the emulator hung its guest (`ending.py`) is run again.
"""

from __future__ import annotations

import asyncio
import faulthandler
import gc
import os
import threading
import time
from collections.abc import Iterator
from pathlib import Path
from types import FrameType
from typing import Any

import pytest
from _pytest.runner import runtestprotocol

from .ending import ended

AGAIN = 2  # times at most that a test is run again
PATIENCE = float(os.environ.get("LAB_PATIENCE", "180"))  # seconds without a test's phase that ends
ROUNDS = 4  # so often it is said what nothing does; then the run is given up
_OUT = open(os.dup(2), "w", closefd=False)  # before pytest takes it away: what a test prints is not for now
_BETWEEN = 5.0  # seconds over which processor time is measured


class Watch:
    """Knows when something last moved."""

    def __init__(self) -> None:
        self._moved = time.monotonic()
        self._what = "collecting"
        self._rounds = 0
        self._begun = time.monotonic()
        threading.Thread(target=self._run, name="watch", daemon=True).start()

    def moved(self, what: str) -> None:
        self._moved, self._what, self._rounds = time.monotonic(), what, 0

    def _run(self) -> None:
        while True:
            time.sleep(1)
            if time.monotonic() - self._moved < PATIENCE * (self._rounds + 1):
                continue
            self._rounds += 1
            report(f"nothing moved for {PATIENCE * self._rounds:g} s in {self._what}")
            if self._rounds == ROUNDS:
                os._exit(99)

    def pytest_runtest_protocol(self, item: pytest.Item, nextitem: pytest.Item | None) -> bool:
        item.ihook.pytest_runtest_logstart(nodeid=item.nodeid, location=item.location)
        for left in reversed(range(AGAIN + 1)):
            before = ended()
            reports = runtestprotocol(item, log=False, nextitem=nextitem)
            if not left or ended() == before or not any(r.failed for r in reports):
                break
            _say(f"lab: the emulator hung a guest of {item.nodeid}, which is run again: docs/development.md")
        for each in reports:
            item.ihook.pytest_runtest_logreport(report=each)
        item.ihook.pytest_runtest_logfinish(nodeid=item.nodeid, location=item.location)
        return True

    def pytest_runtest_logstart(self, nodeid: str) -> None:
        self.moved(nodeid)

    def pytest_runtest_makereport(self, item: pytest.Item, call: pytest.CallInfo[None]) -> None:
        self.moved(f"{item.nodeid} after {call.when}")

    def pytest_runtest_logreport(self, report: pytest.TestReport) -> None:
        if report.when == "call" or report.outcome != "passed":
            at = time.monotonic() - self._begun
            _say(f"lab: {at:6.0f} s  {report.outcome:7} {report.duration:6.1f} s  {report.when} {report.nodeid}")
        if report.failed:  # the run may not come to its end, where pytest says so
            _say(report.longreprtext)


def pytest_configure(config: pytest.Config) -> None:
    config.pluginmanager.register(Watch())


def report(why: str, *, between: float = _BETWEEN) -> None:
    """All that can be seen from within this process."""
    _say(f"\n==== lab: {why}")
    faulthandler.dump_traceback(_OUT, all_threads=True)
    for task in [o for o in gc.get_objects() if isinstance(o, asyncio.Task)]:
        if not task.done():
            _say(
                f"-- {task.get_name()}, cancelling {task.cancelling()}, waits for {getattr(task, '_fut_waiter', None)}"
            )
            for frame in _frames(task.get_coro()):
                _say(f"     {frame.f_code.co_filename}:{frame.f_lineno} {frame.f_code.co_qualname}")
    before = dict(_threads())
    time.sleep(between)
    for who, ticks in _threads():
        _say(f"   {who}: {ticks - before.get(who, ticks)} ticks in {between:g} s")
    _say("==== lab: that was all")


def _frames(coroutine: Any) -> Iterator[FrameType]:
    """What a task has called, down to what it waits for; `Task.get_stack` has the first only."""
    while coroutine is not None:
        for prefix in ("cr", "gi", "ag"):
            if frame := getattr(coroutine, f"{prefix}_frame", None):
                yield frame
                coroutine = getattr(coroutine, "gi_yieldfrom" if prefix == "gi" else f"{prefix}_await", None)
                break
        else:
            return


def _threads() -> Iterator[tuple[str, int]]:
    """Each thread of each QEMU, and the ticks that it has run (proc(5), stat)."""
    for stat in sorted(Path("/proc").glob("[0-9]*/task/*/stat")):
        try:
            name, _, rest = stat.read_text().partition(" (")[2].rpartition(")")
            line = (stat.parents[2] / "cmdline").read_bytes()
            waits = (stat.parent / "wchan").read_text()
        except OSError:
            continue
        fields = rest.split()
        if b"qemu-system" in line:
            yield f"{stat.parents[2].name}/{stat.parent.name} {name} {waits}", int(fields[11]) + int(fields[12])


def _say(text: str) -> None:
    print(text, file=_OUT, flush=True)
