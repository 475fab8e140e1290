# SPDX-License-Identifier: Apache-2.0
"""A verb with one thing that comes between: an error, a cancellation, a full disk, the daemon's death, another verb.

Each trial has a host of its own and is played in one of as many processes as there are CPUs.
"""

from __future__ import annotations

import asyncio
import contextlib
import errno
import logging
import multiprocessing
import os
import re
from collections import deque
from collections.abc import Callable, Iterator
from concurrent.futures import Future, ProcessPoolExecutor
from dataclasses import dataclass
from pathlib import Path
from typing import NamedTuple

import pytest

from hypercontainer.errors import HyperError, Unavailable

from .faults import PLAN, FullDisk, Plan
from .scenes import PARTNERS, SCENES, Scene
from .stage import LIMIT, Daemon, Stage, play, stage

_AFTER = 2.0  # virtual seconds in which faults strike what a verb has left behind
# An OSError comes where this host is asked: its kernel, a hypervisor, a thread, a process; not where one is promised
# to have become an error of ours. That comes with an answer of a guest, too. Ending a machine raises nothing.
_HOST = r"fake\.py(?!.*(Machine\.(kill|wait)|FakeKernel\.apply))|to_thread|to_the_end|subprocess|Process"
_FAILS = rf"{_HOST}|FakeKernel\.apply|session\.py|within$"
_ONLY = {"error": _FAILS, "no_space": _HOST}
KINDS = ("error", "no_space", "cancel", "full", "kill")


class Outcome(NamedTuple):
    """Of one trial: where it struck ("" when the verb ended before), and what went wrong ("" for nothing)."""

    site: str
    wrong: str


@dataclass(frozen=True)
class Wanted:
    """One trial: a scene, what comes between, and at which of the places where the verb waits.

    `kind` is one of KINDS, "" for nothing, or the name of a verb of PARTNERS. A place below 0 is before the verb.
    """

    scene: str
    kind: str
    at: int


class Trial:
    """A scene with one thing that comes between, or none."""

    def __init__(self, wanted: Wanted) -> None:
        self.scene: Scene = SCENES[wanted.scene]
        self._kind, self._at = wanted.kind, wanted.at
        act = None
        if wanted.kind:
            act = getattr(self, f"_{wanted.kind}" if wanted.kind in KINDS else "_beside")
        self.plan = Plan(wanted.at, act, only=_ONLY.get(wanted.kind, ""))
        self._disk = FullDisk()
        self._tasks: list[asyncio.Task[object]] = []  # the verb, and the one beside it
        self._stage: Stage | None = None

    # -- what comes between --------------------------------------------------------------

    def _error(self) -> BaseException:
        return Unavailable("injected")

    def _no_space(self) -> BaseException:
        return OSError(errno.ENOSPC, os.strerror(errno.ENOSPC))

    def _cancel(self) -> None:
        self._tasks[0].cancel()

    def _full(self) -> None:
        self._disk.fill()

    def _kill(self) -> None:
        assert self._stage
        self._stage.kill()

    def _beside(self) -> None:
        assert self._stage and self._stage.daemon
        verb = PARTNERS[self._kind](self._stage)
        self._tasks.append(self._stage.daemon.call(_verb(verb)))

    # -------------------------------------------------------------------------------------

    async def _act(self, s: Stage) -> None:
        self._stage = s
        await s.open()
        if self.scene.before:
            await self.scene.before(s)
        assert s.daemon
        try:
            await self._disturbed(s, s.daemon)
            await asyncio.sleep(_AFTER)
        finally:
            self.plan.disarm()
            self._disk.free()
        if s.daemon is None:
            await s.open()
        await s.check()
        await s.clear()
        await s.close()

    async def _disturbed(self, s: Stage, daemon: Daemon) -> None:
        if self._at < 0 and self._kind == "full":
            self._disk.fill()
        context = daemon.context.copy()
        context.run(PLAN.set, self.plan)
        task = daemon.call(_verb(self.scene.verb(s)), context=context)
        self._tasks.append(task)
        died = asyncio.get_running_loop().create_task(_until(lambda: s.daemon is None))
        await asyncio.wait({task, died}, timeout=LIMIT, return_when=asyncio.FIRST_COMPLETED)
        died.cancel()
        if s.daemon is None:
            return
        for _ in range(2):
            await asyncio.wait(self._tasks, timeout=LIMIT)
            await self._unpause(s)  # what waits for a program that is paused may wait
        for task in self._tasks:
            assert task.done(), f"it has not returned within {LIMIT:g} s"
            self._check_error(None if task.cancelled() else task.exception())
        if self.scene.opens and (task.cancelled() or task.exception()):  # a daemon that does not come up ends
            s.kill()

    async def _unpause(self, s: Stage) -> None:
        if all(task.done() for task in self._tasks):
            return
        for pod in s.engine.registry.pods():
            if pod.status == "paused":
                await s.call(s.engine.pods.unpause(pod.id))
        for container in s.engine.registry.containers():
            if container.state.status == "paused":
                await s.call(s.engine.containers.unpause(container.id))

    def _check_error(self, error: BaseException | None) -> None:
        """:raise Exception: the error, if it is none that a user may see."""
        if isinstance(error, OSError) and error.errno == errno.ENOSPC and self._kind in ("no_space", "full"):
            return
        if error is not None and not isinstance(error, HyperError):
            raise error

    def run(self, template: Path) -> Outcome:
        wrong = ""
        try:
            with stage(template, own_images=self.scene.own_images, network=self.scene.network) as s:
                play(s, self._act)
        except Exception as error:
            wrong = f"{type(error).__name__}: {error}"
        finally:
            self._disk.free()
        return Outcome(self.plan.site, wrong)


async def _verb(work: object) -> object:
    return await work  # type: ignore[misc]


async def _until(true: Callable[[], bool]) -> None:
    while not true():
        await asyncio.sleep(0.01)


def judge(wrong: list[Outcome], known: tuple[str, str] | None) -> None:
    """Fail for what went wrong; what is known (a regular expression, and its reason) is an expected failure, strictly.

    :raise AssertionError: something is new, or the known is mended.
    """
    new = [o for o in wrong if not known or not re.search(known[0], o.wrong)]
    assert not new, f"at {len(new)} places:\n" + "\n".join(f"  {o.site}\n    {o.wrong}" for o in new)
    if known:
        assert wrong, f"mended, and still among what is known: {known[1]}"
        pytest.xfail(known[1])


# -- many of them ---------------------------------------------------------------------


def attempt(template: Path, wanted: Wanted) -> Outcome:
    """In a process of its own: what a daemon says of injected faults is of no interest there."""
    logging.disable(logging.CRITICAL)
    return Trial(wanted).run(template)


class Workers:
    """Plays trials side by side."""

    def __init__(self, template: Path) -> None:
        self._template = template
        self._count = len(os.sched_getaffinity(0))
        self._pool = ProcessPoolExecutor(self._count, multiprocessing.get_context("fork"))

    def one(self, wanted: Wanted) -> Outcome:
        return self._pool.submit(attempt, self._template, wanted).result()

    def at_every_place(self, scene: str, kind: str) -> Iterator[Outcome]:
        """From the first place on, until the verb has no more; at last the outcome of a trial that was not struck."""
        running: deque[Future[Outcome]] = deque()
        at = 0
        try:
            while True:
                while len(running) < 2 * self._count:
                    running.append(self._pool.submit(attempt, self._template, Wanted(scene, kind, at)))
                    at += 1
                outcome = running.popleft().result()
                yield outcome
                if not outcome.site:
                    return
        finally:
            for future in running:
                future.cancel()

    def close(self) -> None:
        with contextlib.suppress(OSError):
            self._pool.shutdown(cancel_futures=True)
