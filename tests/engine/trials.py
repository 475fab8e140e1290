# SPDX-License-Identifier: Apache-2.0
"""A verb with one thing that comes between: an error, a cancellation, a full disk, another verb.

Each trial has a host of its own and is played in one of as many processes as there are CPUs. A first one without a
fault says where the verb waits; so it is known how many there are to be.
"""

from __future__ import annotations

import asyncio
import contextlib
import errno
import functools
import gc
import logging
import multiprocessing
import os
import re
import resource
from collections.abc import Callable, Iterable, Iterator, Mapping, Sequence
from concurrent.futures import ProcessPoolExecutor
from dataclasses import dataclass
from pathlib import Path
from typing import Any, NamedTuple
from unittest import mock

import pytest

from hypercontainer.engine.builder.machine import BuilderSettings
from hypercontainer.errors import HyperError, Unavailable
from hypercontainer.guest.fake_programs import PROGRAMS
from tests.sample import LEFT_OUT, Sample

from .fake_dockerd import FakeDockerd
from .faults import PLAN, FullDisk, Plan, Tally
from .project_scenes import OF_PROJECTS
from .scenes import PARTNERS, Scene
from .scenes import SCENES as OF_PODS
from .stage import IMAGE, LIMIT, Daemon, Stage, play, stage

SCENES = OF_PODS | OF_PROJECTS
BUILDER = BuilderSettings(image=IMAGE, keep=300.0, cache=8 << 20)

AFTER = 2.0  # virtual seconds in which faults strike what a verb has left behind
# An OSError comes where this host is asked: its kernel, a hypervisor, a thread, a process; not where one is promised
# to have become an error of ours. That comes with an answer of a guest, too. Ending a machine raises nothing.
_HOST = r"fake(_kernel)?\.py(?!.*(Machine\.(kill|wait)|FakeKernel\.apply))|to_thread|to_the_end|subprocess|Process"
_FAILS = rf"{_HOST}|FakeKernel\.apply|session\.py|within$"
_ONLY = {"error": _FAILS, "no_space": _HOST}
KINDS = ("error", "no_space", "cancel", "full")


class Outcome(NamedTuple):
    """Of one trial: where it struck ("" when the verb ended before), and what went wrong ("" for nothing).

    `sites` are all places where the verb waited, of a trial in which nothing came between.
    """

    site: str
    wrong: str
    sites: tuple[str, ...] = ()


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

    metering = False

    def __init__(self, wanted: Wanted, scenes: Mapping[str, Scene] = SCENES) -> None:
        self.scene = scenes[wanted.scene]
        self._kind, self._at = wanted.kind, wanted.at
        self.plan: Plan = Tally()
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
            await asyncio.sleep(AFTER)
        finally:
            self.plan.disarm()
            self._disk.free()
        if s.daemon is None:
            await s.open()
        await s.check()
        if self.scene.after:
            await self.scene.after(s)
        await s.clear()
        await s.close()

    async def _disturbed(self, s: Stage, daemon: Daemon) -> None:
        if self._at < 0 and self._kind == "full":
            self._disk.fill()
        context = daemon.context.copy()
        context.run(PLAN.set, self.plan)
        task = daemon.call(_verb(self.scene.verb(s)), context=context)
        self._tasks.append(task)
        s.killed.clear()
        died = asyncio.get_running_loop().create_task(s.killed.wait())
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
        """:raise Exception: the error, if it is none that a user may see, or nothing came between."""
        if isinstance(error, OSError) and error.errno == errno.ENOSPC and self._kind in ("no_space", "full"):
            return
        if error is not None and (not self._kind or not isinstance(error, HyperError)):
            raise error

    def run(self, template: Path) -> Outcome:
        wrong = ""
        try:
            scene = self.scene
            builder = {"builder": BUILDER} if scene.builder else {}
            settings: dict[str, Any] = {"metering": self.metering, **builder, **scene.settings}
            with (
                mock.patch.dict(PROGRAMS, {"relay": FakeDockerd().relay} if scene.builder else {}),
                stage(
                    template, own_images=scene.own_images, network=scene.network, factory=scene.factory, **settings
                ) as s,
            ):
                play(s, self._act)
        except Exception as error:
            wrong = f"{type(error).__name__}: {error}"
        finally:
            self._disk.free()
        return Outcome(self.plan.site, wrong, tuple(getattr(self.plan, "sites", ())))


async def _verb(work: object) -> object:
    return await work  # type: ignore[misc]


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


def prepare() -> None:
    """A process of its own begins; what a daemon says of injected faults is of no interest there."""
    logging.disable(logging.CRITICAL)
    most = resource.getrlimit(resource.RLIMIT_NOFILE)[1]
    resource.setrlimit(resource.RLIMIT_NOFILE, (most, most))  # 1024 is what many hosts begin with
    gc.disable()  # each trial collects its own


def end_pipes(descriptors: Iterable[str]) -> None:
    """A thread of a daemon that was killed may read one of which nobody closes the other end any more, as the kernel
    does with a real daemon's; this process would wait for that thread at its end."""
    nothing = os.open(os.devnull, os.O_RDWR | os.O_CLOEXEC)
    for fd in descriptors:
        with contextlib.suppress(OSError):
            if os.readlink(f"/proc/self/fd/{fd}").startswith("pipe:"):
                os.dup2(nothing, int(fd), inheritable=False)
    os.close(nothing)


def attempt(template: Path, wanted: Wanted, kind: type[Trial] = Trial) -> Outcome:
    before = set(os.listdir("/proc/self/fd"))
    outcome = kind(wanted).run(template)
    end_pipes(set(os.listdir("/proc/self/fd")) - before)
    gc.freeze()  # what is left is of daemons that were killed: nobody looks at it again
    return outcome


# In one interpreter: what a daemon that was killed has open stays open, a dozen of descriptors.
_TRIALS_EACH = 300


class Workers:
    """Plays trials side by side, in interpreters of their own: small ones, without pytest's objects and threads."""

    def __init__(self, template: Path, sample: Sample) -> None:
        self._template, self._sample = template, sample
        beside = int(os.environ.get("PYTEST_XDIST_WORKER_COUNT", "1"))
        self._count = -(-len(os.sched_getaffinity(0)) // beside)
        self._pool = self._begin()
        self._played = 0
        self._sites: dict[str, tuple[str, ...]] = {}

    def _begin(self) -> ProcessPoolExecutor:
        return ProcessPoolExecutor(self._count, multiprocessing.get_context("spawn"), prepare)

    def one(self, wanted: Wanted, kind: type[Trial] = Trial) -> Outcome:
        return next(self.all([wanted], kind))

    def all(self, wanted: Sequence[Wanted], kind: type[Trial] = Trial) -> Iterator[Outcome]:
        if self._played > _TRIALS_EACH * self._count:
            self._pool.shutdown()
            self._pool = self._begin()
            self._played = 0
        self._played += len(wanted)
        return self._pool.map(functools.partial(attempt, self._template, kind=kind), wanted)

    def sites(self, scene: str) -> tuple[str, ...]:
        """Where the verb of a scene waits, in order.

        :raise AssertionError: something goes wrong without any fault.
        """
        if scene not in self._sites:
            outcome = self.one(Wanted(scene, "", -1))
            assert not outcome.wrong, f"without a fault: {outcome.wrong}"
            self._sites[scene] = outcome.sites
        return self._sites[scene]

    def at_every_place(self, scene: str, kind: str, count: Callable[..., None], label: str = "") -> list[Outcome]:
        """What went wrong, of one trial for each place of the sample where the verb waits and this may come.

        :raise AssertionError: the verb took another course, and ended before that place.
        """
        places = sum(1 for site in self.sites(scene) if re.search(_ONLY.get(kind, ""), site))
        wanted = [Wanted(scene, kind, at) for at in self._sample.pick(places, f"{scene} {kind}")]
        count(LEFT_OUT, places - len(wanted))
        wrong = []
        for one, outcome in zip(wanted, self.all(wanted), strict=True):
            if not outcome.site and SCENES[scene].varies:
                continue
            assert outcome.site, f"{one} has not struck, and of such places there are {places}: {outcome.wrong}"
            count(label or kind)
            if outcome.wrong:
                wrong.append(outcome)
        return wrong

    def at_every_step(self, scene: str, kind: type[Trial], count: Callable[..., None]) -> list[Outcome]:
        """What went wrong, of one trial for each step of the sample; the trial's first course tells them.

        :raise AssertionError: something goes wrong without any death.
        """
        whole = self.one(Wanted(scene, "death", -1), kind)
        assert not whole.wrong, f"without a death: {whole.wrong}"
        steps = self._sample.pick(len(whole.sites), scene)
        count(LEFT_OUT, len(whole.sites) - len(steps))
        count("death", len(steps))
        return [o for o in self.all([Wanted(scene, "death", at) for at in steps], kind) if o.wrong]

    def close(self) -> None:
        self._pool.shutdown(cancel_futures=True)
