# SPDX-License-Identifier: Apache-2.0
"""A sandbox's supervisor: one task that owns a pod's VM.

Whoever needs the machine is a user of it: each running container, a start of the pod, a copy
out of a stopped container. It is up when the first asks for it, and down when the last has left, unless the
pod says that it goes on without one.
"""

from __future__ import annotations

from ..errors import InvalidState
from ..hypervisor import facets
from ..hypervisor.facets import require
from ..model.status import PodStatus
from .sandbox_suspension import SandboxSuspension
from .sandbox_verbs import (
    Acquire,
    Down,
    GiveUp,
    Pause,
    Reattached,
    Release,
    Resume,
    State,
    Suspend,
    Unpause,
    Work,
)  # fmt: skip
from .supervisor import Handler, Job, Message, failure, table


class Sandbox(SandboxSuspension):
    """One pod's VM."""

    def expect(self) -> None:
        """An earlier daemon left a machine, which is asked whether it lives."""
        self.state = State.REATTACHING

    def expect_suspended(self) -> None:
        """It was suspended by an earlier daemon."""
        self.state = State.SUSPENDED

    # -- pause ------------------------------------------------------------------------------

    def _pause(self, message: Message) -> None:
        assert self.runtime is not None
        pauses = isinstance(message, Pause)
        if pauses and self._registry.pod(self.id).status in (PodStatus.STARTING, PodStatus.STOPPING):
            self._not_up(message)  # what has begun needs its guest
        machine = require(self.runtime.machine, facets.Pause)
        work = self.runtime.alone(machine.pause if pauses else machine.resume)
        self.do(work, lambda job: self._paused(job, message, pauses), message.context)

    def _paused(self, job: Job, message: Message, paused: bool) -> None:
        if error := failure(job):
            message.refuse(error)
            return
        if self.state not in (State.UP, State.PAUSED):
            self._not_up(message)
        pod = self._update(status=PodStatus.PAUSED if paused else PodStatus.RUNNING)
        if self.state is not (State.PAUSED if paused else State.UP):
            self.move(State.PAUSED if paused else State.UP)
        self._publish("pause" if paused else "unpause", pod)
        message.answer(pod)
        self._next_work()

    def _not_up(self, message: Message) -> None:
        pod = self._registry.pod(self.id)
        raise InvalidState(f"pod {pod.name} is {pod.status}, not running")

    def _not_paused(self, message: Message) -> None:
        raise InvalidState(f"pod {self._registry.pod(self.id).name} is not paused")

    # -- what an earlier daemon left -------------------------------------------------------------

    def _reattached(self, message: Reattached) -> None:
        if message.runtime is None:
            self.move(State.DOWN)
        else:
            self._own(message.runtime)
            self.save()
            if self._registry.pod(self.id).status is PodStatus.PAUSED:
                self.move(State.PAUSED)
        self._answer_downs()
        message.answer()

    def _give_up(self, message: Message) -> None:
        self._downs.append(message)
        self.do(self._reattacher.kill_machine(self._registry.pod(self.id)), lambda _: None)

    def _give_up_and_end(self, message: Message) -> None:
        self._give_up(GiveUp())
        self.defer(message)


S = Sandbox
_LATER = S.defer
Sandbox.TRANSITIONS = {
    State.REATTACHING: frozenset({State.UP, State.DOWN, State.SUSPENDED}),
    State.DOWN: frozenset({State.BOOTING}),
    State.BOOTING: frozenset({State.UP, State.DOWN}),
    State.UP: frozenset({State.PAUSED, State.SUSPENDING, State.ENDING}),
    State.PAUSED: frozenset({State.UP, State.ENDING}),
    State.SUSPENDING: frozenset({State.UP, State.SUSPENDED}),
    State.SUSPENDED: frozenset({State.RESUMING, State.ENDING}),
    State.RESUMING: frozenset({State.UP, State.SUSPENDED}),
    State.ENDING: frozenset({State.DOWN}),
}
# For each verb, what each state does with it, in the order of `State`.
_ROWS: dict[type[Message], tuple[Handler, ...]] = {
    #           REATTACHING         DOWN           BOOTING         UP             PAUSED
    #           SUSPENDING          SUSPENDED      RESUMING        ENDING
    Acquire: (_LATER, S._begin, S._join, S._acquire, S._acquire,
              _LATER, S._asleep, _LATER, S._await_end),
    Release: (_LATER, S._no_machine, _LATER, S._release, S._release,
              _LATER, S._release_asleep, _LATER, S._released_late),
    Work: (_LATER, S._no_work, S._no_work, S._queue, S._asleep,
           _LATER, S._asleep, _LATER, S._no_work),
    Down: (S._give_up_and_end, S._no_machine, S._down_booting, S._down, S._down,
           S._down_saving, S._down_asleep, S._down_saving, S._down_sooner),
    GiveUp: (S._give_up, *[S._no_machine] * 8),
    Pause: (S._not_up, S._not_up, S._not_up, S._pause, S._not_up,
            _LATER, S._not_up, _LATER, S._not_up),
    Unpause: (S._not_paused, S._not_paused, S._not_paused, S._not_paused, S._pause,
              S._not_paused, S._not_paused, S._not_paused, S._not_paused),
    Suspend: (S._not_up, S._not_up, S._not_up, S._suspend, S._not_up,
              _LATER, S._not_up, _LATER, S._not_up),
    Resume: (S._no_machine, S._no_machine, S._no_machine, S._no_machine, S._no_machine,
             _LATER, S._resume, _LATER, S._no_machine),
    Reattached: (S._reattached, *[S._no_machine] * 8),
}  # fmt: skip
Sandbox.HANDLERS = table(State, _ROWS)
