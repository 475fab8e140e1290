# SPDX-License-Identifier: Apache-2.0
"""One run of a container's main process: how it ends, how it is ended, and whether another follows."""

from __future__ import annotations

import asyncio
import contextlib
import logging
from dataclasses import dataclass
from typing import Any

from ..errors import HyperError, Unavailable
from ..guest.agent import Freeze, Process, require
from ..model.status import Container
from ..sys import deadlines, tasks
from ..sys.spans import span
from .runtime import Runtime

log = logging.getLogger(__name__)
LOST_EXIT_CODE = 255  # of a container whose VM died under it
SIGKILL = 9
_END_TIMEOUT = 2.0  # seconds for the end of a machine whose connection has ended, before it is killed
_BACK_OFF = (0.1, 60.0)  # seconds: the first, and the longest wait before a restart
_LONG_RUN = 10.0  # seconds after which the back-off begins anew
Outcome = dict[str, Any]  # `exit_code`, `oom_killed` and `error` of a record


@dataclass
class Run:
    """The present run of a container."""

    runtime: Runtime
    handle: Process
    began: float  # seconds of the loop's clock

    async def signal(self, number: int, *, everyone: bool = False) -> None:
        await self.handle.signal(number, everyone=everyone)

    async def kill(self) -> None:
        """Its machine, whatever the guest does; what waits for the guest hears of it, though the process may remain."""
        self.runtime.killed = True
        await self.runtime.machine.kill()
        self.runtime.agent.close()


def lost(message: str) -> Outcome:
    """The outcome of a run whose end nobody has seen, with the reason."""
    return {"exit_code": LOST_EXIT_CODE, "oom_killed": False, "error": message}


async def outcome(run: Run) -> Outcome:
    """When the process has ended and all of its output has come."""
    with span("program runs, until its end is known"):
        try:
            status = await run.handle.exited
            run.handle.record_spans()
            error = "" if await run.handle.drain() else "the end of its output did not come and is missing"
            return {"exit_code": status.shell_code, "oom_killed": status.oom, "error": error}
        except Unavailable:
            if run.runtime.suspended:
                return {"exit_code": 128 + SIGKILL, "oom_killed": False, "error": ""}
            with contextlib.suppress(TimeoutError):  # its last words come with its end
                await tasks.within(run.runtime.machine.wait(), _END_TIMEOUT)
            words = run.runtime.last_words()
            await run.runtime.machine.kill()  # without a connection it is of no use
            return lost("the virtual machine ended unexpectedly" + (f": {words}" if words else ""))


async def end_process(
    container: Container, run: Run, grace: float, stopped: asyncio.Event, hasten: asyncio.Event, signal: int, *,
    paused: bool,
) -> None:  # fmt: skip
    """The signal; SIGKILL after `grace` seconds or when `hasten` is set; at last its machine is killed."""
    if run.runtime.suspended:  # there is nobody to ask
        await run.kill()
        return
    asking = asyncio.ensure_future(_ask_to_end(container, run, 0 if hasten.is_set() else signal, paused=paused))
    try:
        with contextlib.suppress(TimeoutError):
            async with asyncio.timeout(0 if hasten.is_set() else grace):  # a guest that does not answer has it, too
                await _first(stopped, hasten)
    finally:
        await tasks.end([asking])
    if stopped.is_set():
        return
    try:
        async with asyncio.timeout(deadlines.KILL):
            with contextlib.suppress(HyperError):
                await run.signal(SIGKILL, everyone=True)
            await stopped.wait()
    except TimeoutError:
        log.warning(
            "container %s: its guest does not end it within %g s: its machine is killed", container.name, deadlines.KILL
        )
        await run.kill()


async def _ask_to_end(container: Container, run: Run, signal: int, *, paused: bool) -> None:
    """Whoever is killed is not asked first (`signal` is 0): its handler of the signal would begin."""
    with contextlib.suppress(HyperError):
        if paused:
            await require(run.runtime.agent, Freeze).freeze_container(container.id[:12], False)
        if signal:
            await run.signal(signal)


async def _first(*events: asyncio.Event) -> None:
    waiting = [asyncio.ensure_future(e.wait()) for e in events]
    try:
        await asyncio.wait(waiting, return_when=asyncio.FIRST_COMPLETED)
    finally:
        await tasks.end(waiting)


def wants_restart(container: Container, code: int) -> bool:
    """By its policy."""
    policy, count = container.spec.restart, container.state.restart_count
    return policy.name in ("always", "unless-stopped") or (
        policy.name == "on-failure" and code != 0 and (not policy.max_retries or count < policy.max_retries)
    )


def back_off(delay: float, lasted: float) -> float:
    """Seconds until the next run: twice `delay`, which was before the last one; from the beginning after a long run.

    `lasted` is how many seconds that one took.
    """
    first, longest = _BACK_OFF
    return first if not delay or lasted > _LONG_RUN else min(delay * 2, longest)
