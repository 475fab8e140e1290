# SPDX-License-Identifier: Apache-2.0
"""The daemon's death at every step: just before each change that it makes to its host, found by counting.

A step is a file that is made, changed, renamed or removed, a transaction of the database, a child process: what the
interpreter's audit tells of, and the few calls of which it tells nothing. At the step that a trial is about the daemon
is killed, and what it would have done is not done. Code of its that is under way sees `Died` raised; whatever it tidies
up on its way out changes nothing either, for each change of a dead daemon is refused in the same manner. So the next
daemon finds the host as SIGKILL leaves one: machines, taps, rules, files and records as they were at that moment.
"""

from __future__ import annotations

import asyncio
import contextlib
import functools
import os
import sys
import threading
from collections.abc import Callable, Iterator
from contextvars import Context
from typing import Any
from unittest import mock

from hypercontainer.engine.principal import asked_by
from hypercontainer.errors import HyperError
from hypercontainer.guest.fake_process import FakeProcess
from hypercontainer.hypervisor.fake import BareMachine, FakeDriver
from hypercontainer.model.billing import AccountRequest, CreditRequest, Prices
from hypercontainer.model.pods import PodPlan
from hypercontainer.model.principal import Principal
from hypercontainer.model.specs import HealthCheck, RestartPolicy
from hypercontainer.model.tenancy import OrganisationRequest, ProjectRequest
from hypercontainer.network.fake_taps import FakeTaps
from hypercontainer.protocol.messages import ExitStatus
from hypercontainer.state.database import Database
from tests.steps import is_change, place

from .clock import OWNER, Died
from .faults import Plan
from .scenes import VOLUME, Scene, build_app, left_with_limits, open_for_a_while, pod, runs, spec
from .stage import Daemon, Stage
from .trials import AFTER, SCENES, Trial, Wanted

_watching: Steps | None = None
_hooked = False


class Steps(Plan):
    """Counts what a daemon changes, and kills it at one of the changes."""

    def __init__(self, at: int, die: Callable[[], None]) -> None:
        super().__init__(at)
        self.sites: list[str] = []
        self.daemon: Daemon | None = None  # whose steps count
        self._die = die
        self._loop = asyncio.get_running_loop()

    def disarm(self) -> None:
        self.daemon = None

    def step(self, what: str) -> None:
        """:raise Died: the change is not to be made."""
        owner = OWNER.get()
        if owner is None:
            return
        if owner.killed:
            raise Died(what)
        if owner is not self.daemon:
            return
        here, self.count = self.count, self.count + 1
        site = f"{what}, {place()}"
        self.sites.append(site)
        if here == self.at:
            self.site = site
            if threading.current_thread() is threading.main_thread():
                Context().run(self._die)
            else:  # what the loop does until it hears of it, it has done before
                self._loop.call_soon_threadsafe(self._die, context=Context())
            raise Died(what)


def _audit(event: str, args: tuple[Any, ...]) -> None:
    if _watching is not None and is_change(event, args):
        _watching.step(event)


@contextlib.contextmanager
def watching(steps: Steps) -> Iterator[None]:
    """All changes are told to it."""
    global _watching, _hooked
    if not _hooked:
        sys.addaudithook(_audit)
        _hooked = True
    told = [
        (os, "write"), (os, "pwrite"), (os, "ftruncate"), (os, "copy_file_range"), (Database, "_writing"),
        (FakeDriver, "launch"), (BareMachine, "kill"), (BareMachine, "connect"), (FakeTaps, "create_tap"),
    ]  # fmt: skip
    _watching = steps
    with contextlib.ExitStack() as stack:
        for where, name in told:
            stack.enter_context(mock.patch.object(where, name, _telling(steps, name, getattr(where, name))))
        try:
            yield
        finally:
            _watching = None


def _telling(steps: Steps, name: str, call: Callable[..., Any]) -> Callable[..., Any]:
    @functools.wraps(call)
    def told(*args: Any, **how: Any) -> Any:
        steps.step(name)
        return call(*args, **how)

    return told


def _while_it_lives(**how: Any) -> Scene:
    """Nobody asks for anything: what the daemon does by itself."""
    code = "0" if "auto_remove" in how else "1"
    return Scene(lambda s: asyncio.sleep(2.5), runs("after", "1", code, **how))


async def _owes(s: Stage) -> None:
    """A project's pod runs, and its organisation has nothing left."""
    s.engine.tenancy.organisations.create(OrganisationRequest(name="red"))
    project = s.engine.tenancy.projects.create(ProjectRequest(name="web", organisation="red"))
    s.give_image(project.id)
    s.engine.accounts.bills.put_prices(Prices(name="p", currency="USD", valid_from="2023-01-01", vcpu_second="1"))
    await s.call(_run_in(s, project.id))


async def _run_in(s: Stage, project: str) -> None:
    with asked_by(Principal("token:1", project)):
        made = await s.engine.containers.create(spec("a"))
        await s.engine.containers.start(made.id)


async def _collect(s: Stage, credit: int = 0) -> None:
    s.engine.accounts.change_account("red", AccountRequest(prepaid=True, grace=0))
    await asyncio.sleep(5)
    if credit:
        s.engine.accounts.credit("red", CreditRequest(amount=credit))
        await asyncio.sleep(5)


_MEMBERS = (spec("a", "after", "1", "1", restart=RestartPolicy(name="always")), spec("b"))
DEATHS: dict[str, Scene] = SCENES | {
    "an end": _while_it_lives(),
    "an end with --rm": _while_it_lives(auto_remove=True),
    "an end, and a start by the policy": _while_it_lives(restart=RestartPolicy(name="always")),
    "ends in time, and a suspension": Scene(open_for_a_while, left_with_limits, factory=True, opens=True),
    "an end in time": Scene(lambda s: asyncio.sleep(10), runs(ttl=5)),
    "an end in time with --rm": Scene(lambda s: asyncio.sleep(10), runs(ttl=5, auto_remove=True)),
    "a suspension by itself": Scene(lambda s: asyncio.sleep(20), runs(idle_timeout=5, mounts=VOLUME), factory=True),
    "a suspension by itself in a network": Scene(
        lambda s: asyncio.sleep(20), runs(idle_timeout=5, mounts=VOLUME), "bridge", factory=True
    ),
    "a start by the policy in a pod": Scene(lambda s: asyncio.sleep(2.5), pod(*_MEMBERS, start=True)),
    "pods of an account at zero": Scene(_collect, _owes, factory=True),
    "a credit": Scene(lambda s: _collect(s, 10**12), _owes, factory=True),
    "a start for its liveness": Scene(
        lambda s: asyncio.sleep(2.5), runs(liveness=HealthCheck(command=["false"], interval=1, retries=1))
    ),
}


class Death(Trial):
    """A scene in which the daemon dies at a step; beside it are a pod and programs that have nothing to do with it.

    `at` below 0 is nowhere, and the outcome tells the steps.
    """

    metering = True

    def __init__(self, wanted: Wanted) -> None:
        super().__init__(Wanted(wanted.scene, "", -1), DEATHS)
        self._at = wanted.at

    async def _act(self, s: Stage) -> None:
        self._stage = s
        self.plan = steps = Steps(self._at, s.kill)
        with watching(steps):
            await s.open()
            others = await Bystanders.begin(s)
            if self.scene.before:
                await self.scene.before(s)
            assert s.daemon
            steps.daemon = s.daemon
            await self._disturbed(s, s.daemon)
            await asyncio.sleep(AFTER)
            steps.disarm()
            if s.daemon is None:
                await others.while_nobody_looks()
                await s.open()
                await others.check()
            await s.check()
            await _every_verb_answers(s)
            if self.scene.after:
                await self.scene.after(s)
            if self.scene.builder:
                await s.call(build_app(s))
            await s.clear()
            await s.close()


async def _every_verb_answers(s: Stage) -> None:
    """Of what the scene was about, whatever became of it: in time, and with an answer or a sentence."""
    containers, pods = s.engine.containers, s.engine.pods
    for name in ("a", "pod"):
        if name == "a":
            verbs = [lambda: containers.start("a"), lambda: s.engine.monitor.top("a"), lambda: containers.stop("a", 0)]
        else:
            verbs = [lambda: pods.start("pod"), lambda: pods.stop("pod", 0)]
        for verb in verbs:
            with contextlib.suppress(HyperError):
                await s.call(verb())


class Bystanders:
    """A pod that is no part of the scene: what it does goes on while no daemon runs, and is known afterwards."""

    def __init__(self, s: Stage) -> None:
        self._stage = s
        self.machine = next(iter(s.host.machines.values()))

    @classmethod
    async def begin(cls, s: Stage) -> Bystanders:
        containers = [
            spec("goes-on", "cat", stdin=True), spec("ends"),
            spec("ends-and-starts", restart=RestartPolicy(name="always")),
        ]  # fmt: skip
        await s.call(s.engine.pods.create(PodPlan(name="bystanders", containers=containers)))
        await s.call(s.engine.pods.start("bystanders"))
        made = cls(s)
        made.program = made.main("goes-on")
        await made.program.write(b"before\n")
        return made

    program: FakeProcess

    def main(self, name: str) -> FakeProcess:
        id_ = self._stage.engine.registry.container(name).id[:12]
        return next(p for p in self._stage.guest(self.machine).alive(id_) if p.main)

    async def while_nobody_looks(self) -> None:
        guest = self._stage.guest(self.machine)
        mains = [p for p in guest.alive() if p.main and p is not self.program]
        for process, code in zip(mains, (9, 3), strict=True):
            process.end(ExitStatus(code=code))
        await self.program.write(b"meanwhile\n")
        await asyncio.sleep(1)

    async def check(self) -> None:
        """:raise AssertionError: the next daemon has it otherwise."""
        s = self._stage
        assert self.machine.pid in s.host.machines and not self.machine.gone.is_set(), "the bystanders' machine ended"
        assert self.program.exit is None and not self.program.signals, "a bystander was touched"
        await self.program.write(b"after\n")
        await asyncio.sleep(3)
        states = {n: s.engine.registry.container(n).state for n in ("goes-on", "ends", "ends-and-starts")}
        assert states["goes-on"].status == "running", f"goes-on is {states['goes-on'].status}"
        assert (states["ends"].status, states["ends"].exit_code) == ("exited", 9), f"ends: {states['ends']}"
        again = states["ends-and-starts"]
        assert (again.status, again.restart_count) == ("running", 1), f"ends-and-starts: {again}"
        died = [e.attributes["exit_code"] for e in s.engine.events.past() if _is_end(e)]
        assert sorted(died) == ["3", "9"], f"ends that were told: {died}"
        assert await s.call(s.engine.containers.wait("ends")) == 9
        chunks = s.engine.logs("goes-on", tail=None, since="", until="", follow=False)
        said = "".join([r.log async for records in chunks for r in records])
        assert said == "before\nmeanwhile\nafter\n", f"the log of a bystander has {said!r}"


def _is_end(event: Any) -> bool:
    return event.action == "die" and event.attributes.get("name") in ("ends", "ends-and-starts")
