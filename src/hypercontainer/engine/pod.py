# SPDX-License-Identifier: Apache-2.0
"""The supervisor of a pod that has several containers: its start, its stop, its removal.

    created ──start──► starting ──► running ◄──pause──► paused
       ▲                  │ a start failed │ stop, or the last container ended
       └── start ── failed ◄┘              └──► exited ── start ──► ...

A start runs the init containers one after the other, then the rest in the order of what they depend on.
The record's status says what a pod is; `State` what is being done with it.
"""

from __future__ import annotations

import asyncio
import contextlib
from dataclasses import dataclass
from enum import StrEnum

from ..errors import Conflict, HyperError, NotFound
from ..model.states import ALIVE
from ..model.status import Pod, PodStatus
from ..sys import clock
from .containers import Containers
from .plan import levels
from .registry import Registry
from .sandbox_verbs import check_awake
from .sandboxes import Sandboxes
from .startup import Startup
from .supervisor import Handler, Job, Message, Supervisor, failure, table

UP = (PodStatus.STARTING, PodStatus.RUNNING, PodStatus.PAUSED, PodStatus.SUSPENDED, PodStatus.STOPPING)


class State(StrEnum):
    """What is being done with a pod."""

    IDLE = "idle"
    STARTING = "starting"
    STOPPING = "stopping"
    REMOVING = "removing"
    GONE = "gone"


@dataclass(eq=False)
class Start(Message):
    """Answered when all containers have been started: False when they ran already."""


@dataclass(eq=False)
class Resume(Message):
    """Go on with a start that an earlier daemon had begun."""


@dataclass(eq=False)
class Stop(Message):
    """Each container has `timeout` seconds (its own when None); answered when the machine is down: whether it ran."""

    timeout: int | None = None


@dataclass(eq=False)
class Remove(Message):
    """With its containers; a running one only by `force`."""

    force: bool = False


class PodSupervisor(Supervisor[State]):
    """One pod."""

    def __init__(self, pod: Pod, registry: Registry, sandboxes: Sandboxes, containers: Containers) -> None:
        super().__init__(f"pod {pod.name}", State.IDLE)
        self.id = pod.id
        self._registry = registry
        self._sandboxes = sandboxes
        self._containers = containers
        self._startup = Startup(registry, containers)
        self._starting: Job | None = None
        self._starts: list[Message] = []
        self._stops: list[Message] = []

    @property
    def _pod(self) -> Pod:
        return self._registry.pod(self.id)

    # -- start ------------------------------------------------------------------------

    def _start(self, message: Start) -> None:
        check_awake(self._pod)
        idle = [c for c in self._registry.members(self.id) if c.state.status not in ALIVE and not c.spec.init]
        if self._pod.status is PodStatus.RUNNING and not idle:
            message.answer(False)
            return
        self._begin(message)

    def _begin(self, message: Message) -> None:
        self._starts = [message]
        self.move(State.STARTING)
        self._starting = self.do(self._bring_up(), self._started, message.context)

    def _join_start(self, message: Message) -> None:
        self._starts.append(message)

    async def _bring_up(self) -> None:
        self._sandboxes.update(self.id, status=PodStatus.STARTING, error="")
        user, acquired = "start", False
        try:
            await self._sandboxes.acquire(self.id, user)
            acquired = True
            await self._startup.run(self.id)
            self._sandboxes.update(self.id, status=PodStatus.RUNNING)
        except Exception as error:
            message = error.message if isinstance(error, HyperError) else str(error)
            await self._stop_members(0)
            self._sandboxes.update(self.id, status=PodStatus.FAILED, error=message)
            await self._sandboxes.down(self.id)
            raise
        finally:
            if acquired:
                await self._sandboxes.release(self.id, user)

    def _started(self, job: Job) -> None:
        self._starting = None
        self.move(State.IDLE)
        starts, self._starts = self._starts, []
        for message in starts:
            if error := failure(job):
                given_up = NotFound(f"the start of {self.name} was given up: it was stopped")
                message.refuse(given_up if isinstance(error, asyncio.CancelledError) else error)
            else:
                message.answer(True)

    # -- stop -------------------------------------------------------------------------

    def _stop(self, message: Stop) -> None:
        self._stops = [message]
        self.move(State.STOPPING)
        self.do(self._bring_down(message.timeout), self._stopped, message.context)

    def _stop_start(self, message: Stop) -> None:
        self._give_up_start()
        self.defer(message)

    def _give_up_start(self) -> None:
        if self._starting:
            self.end([self._starting])

    def _stop_too(self, message: Stop) -> None:
        """It is being stopped; the shorter grace counts."""
        self._stops.append(message)
        self.do(self._stop_members(message.timeout), lambda _: None)

    async def _bring_down(self, timeout: int | None) -> bool:
        """Those that depend on others first; False when it did not run."""
        if self._pod.status is PodStatus.PAUSED:
            with contextlib.suppress(HyperError):  # it ends all the same
                await self._sandboxes.unpause(self.id)
        if self._pod.status is PodStatus.SUSPENDED:  # nobody can be asked
            await self._sandboxes.down(self.id, clean=False)
            for c in self._registry.members(self.id):
                await self._containers.abandon(c, "it was ended while it was suspended")
        alive = any(c.state.status in ALIVE for c in self._registry.members(self.id))
        if not self._sandboxes.has_machine(self.id) and not alive:
            if self._pod.status is PodStatus.STARTING:
                self._sandboxes.update(self.id, status=PodStatus.EXITED)
            return False
        self._sandboxes.update(self.id, status=PodStatus.STOPPING)
        await self._stop_members(timeout)
        await self._sandboxes.down(self.id)
        if self._pod.status is PodStatus.STOPPING:  # it had no machine any more
            self._sandboxes.update(self.id, status=PodStatus.EXITED, finished_at=clock.stamp())
        return True

    async def _stop_members(self, timeout: int | None) -> None:
        for level in reversed(levels(self._registry.members(self.id))):
            await asyncio.gather(*(self._containers.stop(c.id, timeout) for c in level), return_exceptions=True)

    def _stopped(self, job: Job) -> None:
        stops, self._stops = self._stops, []
        self.move(State.IDLE)
        for message in stops:
            if error := failure(job):
                message.refuse(error)
            else:
                message.answer(job.result())

    # -- remove -----------------------------------------------------------------------

    def _remove(self, message: Remove) -> None:
        self._check_still(message)
        self.move(State.REMOVING)
        self.do(self._bring_down(0), lambda job: self._removed(message), message.context)

    def _check_still(self, message: Remove) -> None:
        pod = self._pod
        if pod.status in UP and not message.force:
            raise Conflict(f"pod {pod.name} is {pod.status}", hint="stop it first, or use --force")

    def _removed(self, message: Remove) -> None:
        self.do(self._forget(), lambda job: self._forgotten(job, message), message.context)

    async def _forget(self) -> None:
        await self._sandboxes.down(self.id)
        await self._containers.remove_pod(self.id)

    def _forgotten(self, job: Job, message: Remove) -> None:
        self.move(State.IDLE if self._registry.has_pod(self.id) else State.GONE)
        if error := failure(job):
            message.refuse(error)
        else:
            message.answer()

    def _remove_later(self, message: Remove) -> None:
        self._check_still(message)
        self._give_up_start()
        if self.state is State.STOPPING:
            self.do(self._stop_members(0), lambda _: None)
        self.defer(message)

    def _gone(self, message: Message) -> None:
        raise NotFound(f"no such {self.name}", hint="see `hyperctl list pod`")

    def _ignore(self, message: Message) -> None:
        message.answer()


P = PodSupervisor
_LATER = P.defer
PodSupervisor.TRANSITIONS = {
    State.IDLE: frozenset({State.STARTING, State.STOPPING, State.REMOVING}),
    State.STARTING: frozenset({State.IDLE}),
    State.STOPPING: frozenset({State.IDLE}),
    State.REMOVING: frozenset({State.IDLE, State.GONE}),
    State.GONE: frozenset(),
}
# For each verb, what each state does with it, in the order of `State`.
_ROWS: dict[type[Message], tuple[Handler, ...]] = {
    #        IDLE       STARTING       STOPPING    REMOVING   GONE
    Start: (P._start, P._join_start, _LATER, _LATER, P._gone),
    Resume: (P._begin, P._ignore, P._ignore, P._ignore, P._ignore),
    Stop: (P._stop, P._stop_start, P._stop_too, _LATER, P._gone),
    Remove: (P._remove, P._remove_later, P._remove_later, _LATER, P._ignore),
}
PodSupervisor.HANDLERS = table(State, _ROWS)
