# SPDX-License-Identifier: Apache-2.0
"""A container's supervisor: one task that owns it from its creation to its removal.

`TRANSITIONS` and `HANDLERS` are the whole of its behaviour; docs/architecture.md draws them.
What runs in the guest is followed by a job; so are a start, an end and a removal.
"""

from __future__ import annotations

import asyncio
import contextlib
import logging
from collections.abc import AsyncIterator
from functools import partial

from ..errors import Conflict, InvalidState, NotFound, Unavailable
from ..guest.agent import Freeze, require
from ..model import ids
from ..model.status import ContainerStatus, PodStatus
from ..sys import clock
from .container_runs import ContainerRuns
from .container_state import Present
from .container_verbs import (
    Borrow,
    Kill,
    Lose,
    Pause,
    Reattach,
    Remove,
    Replace,
    Resume,
    Return,
    Start,
    State,
    Stop,
    Unpause,
)  # fmt: skip
from .run import SIGKILL, Run, lost
from .runtime import Runtime
from .supervisor import Handler, Job, Message, failure, table

log = logging.getLogger(__name__)


class ContainerSupervisor(ContainerRuns):
    """One container. What others wait for: `stopped`, `removed`, and its output."""

    def drop_request(self, message: Message) -> None:
        """A start that nobody waits for any more is given up."""
        if isinstance(message, Borrow):
            self._return(Return(message))
        elif isinstance(message, Start) and message in self._now.starts:
            if self.state is State.STARTING and all(m.abandoned for m in self._now.starts):
                self._give_up_launch()
            return
        message.reply.cancel()

    # -- stop and kill ----------------------------------------------------------------

    def _stop(self, message: Stop) -> None:
        self.stop_requested.set()
        self._now.stops.append(message)
        container = self._update(stopped_by_user=not message.daemon_ends, ended_with_daemon=message.daemon_ends)
        self._end(container.spec.stop_timeout if message.timeout is None else message.timeout, message.signal)

    def _stop_too(self, message: Stop) -> None:
        """It is being stopped; the shorter grace counts."""
        self.stop_requested.set()
        self._now.stops.append(message)
        grace = self.container.spec.stop_timeout if message.timeout is None else message.timeout
        asyncio.get_running_loop().call_later(grace, self._now.hasten.set)

    def _stop_start(self, message: Stop) -> None:
        self.stop_requested.set()
        self._now.stops.append(message)
        self._give_up_launch()

    def _stop_restart(self, message: Stop) -> None:
        self._update(stopped_by_user=not message.daemon_ends, ended_with_daemon=message.daemon_ends)
        self._stop_start(message)

    def _stop_lost(self, message: Stop) -> None:
        """Its machine has not answered since the daemon's start: it is ended, and recovery says so."""
        self.stop_requested.set()
        self._now.stops.append(message)
        self._give_up_machine()

    def _give_up_machine(self) -> None:
        """An earlier daemon left it. Of one that it suspended nothing is left then but this container's record."""
        if self._registry.pod(self._pod).status is PodStatus.SUSPENDED:
            work = self._sandboxes.down(self._pod, clean=False)
            self.do(work, lambda _: self.post(Lose("it was ended while it was suspended")))
        else:
            self._sandboxes.give_up(self._pod)

    def _await_end(self, message: Stop) -> None:
        self._now.stops.append(message)

    def _stopped_already(self, message: Message) -> None:
        message.answer(False)

    def _kill(self, message: Kill) -> None:
        container = self.container
        if message.signal == SIGKILL:
            self._now.kills.append(message)
            self.stop_requested.set()  # as Docker: who kills does not want it back
            self.publish("kill", container, signal=str(message.signal))
            self._end(0)
            return
        if message.signal == container.process.stop_signal:
            self.stop_requested.set()
        assert self._now.run is not None
        self.do(self._now.run.signal(message.signal), lambda job: self._signalled(job, message), message.context)

    def _signalled(self, job: Job, message: Kill) -> None:
        if error := failure(job):
            message.refuse(error)
            return
        self.publish("kill", self.container, signal=str(message.signal))
        message.answer()

    def _kill_too(self, message: Kill) -> None:
        if message.signal == SIGKILL:
            self.stop_requested.set()
            self._now.kills.append(message)
            self._now.hasten.set()
        else:
            self._kill(message)

    def _kill_start(self, message: Kill) -> None:
        self._check_ends(message)
        self._now.kills.append(message)
        self.stop_requested.set()
        self._give_up_launch()

    def _kill_lost(self, message: Kill) -> None:
        if message.signal != SIGKILL:
            raise self._unreachable()
        self.stop_requested.set()
        self._now.kills.append(message)
        self._give_up_machine()

    def _check_ends(self, message: Kill) -> None:
        if message.signal not in (SIGKILL, self.container.process.stop_signal):
            self._not_running(message)

    def machine(self) -> Runtime:
        """:raise InvalidState: when the container does not run. :raise Unavailable: it has not answered yet."""
        if self.state is State.REATTACHING:
            raise self._unreachable()
        if self.runtime is None or self.state not in (State.RUNNING, State.PAUSED, State.STOPPING):
            raise self._down()
        return self.runtime

    def _down(self) -> InvalidState:
        name = self.container.name
        return InvalidState(f"container {name} is not running", hint=f"start it with `hyperctl start {name}`")

    def _not_running(self, message: Message) -> None:
        raise self._down()

    def _unreachable(self) -> Unavailable:
        return Unavailable(
            f"the virtual machine of container {self.container.name} has not answered since hyperd was started",
            hint="wait, or end it with `hyperctl kill -s KILL` or `rm -f`",
        )

    def _cannot_reach(self, message: Message) -> None:
        raise self._unreachable()

    def _replace(self, message: Replace) -> None:
        message.answer()
        if not self.stop_requested.is_set():
            self._replaced = True
            self._end(self.container.spec.stop_timeout)

    def _ignore(self, message: Message) -> None:
        """It does not matter any more."""
        message.answer()

    # -- pause ------------------------------------------------------------------------

    def _freeze(self, message: Pause | Unpause) -> None:
        if self._now.freeze:
            self.defer(message)  # until the other one has ended
            return
        assert self._now.run is not None
        frozen = isinstance(message, Pause)
        runtime = self._now.run.runtime
        work = runtime.alone(partial(require(runtime.agent, Freeze).freeze_container, self.id[:12], frozen))
        self._now.freeze = self.do(work, lambda job: self._frozen(job, message, frozen), message.context)

    def _frozen(self, job: Job, message: Message, frozen: bool) -> None:
        self._now.freeze = None
        self.retake()
        if error := failure(job):
            stopped = InvalidState(f"container {self.container.name} is being stopped")
            message.refuse(stopped if isinstance(error, asyncio.CancelledError) else error)
        elif self.state not in (State.RUNNING, State.PAUSED):
            self._not_running(message)
        else:
            status = ContainerStatus.PAUSED if frozen else ContainerStatus.RUNNING
            container = self._set_state(State.PAUSED if frozen else State.RUNNING, status=status)
            self.publish("pause" if frozen else "unpause", container)
            message.answer()

    def _paused_already(self, message: Message) -> None:
        raise InvalidState(f"container {self.container.name} is paused already")

    def _not_paused(self, message: Message) -> None:
        raise InvalidState(f"container {self.container.name} is not paused")

    # -- remove, and copies out of what does not run --------------------------------------

    def _remove(self, message: Remove) -> None:
        before = self.state
        self._set_state(State.REMOVING)
        work = self._files.erase(self.container, volumes=message.volumes)
        self.do(work, lambda job: self._erased(job, message, before), message.context)

    def _erased(self, job: Job, message: Remove, before: State) -> None:
        error = failure(job)
        if self._registry.exists(self.id):
            self.move(before)
            message.refuse(error or Unavailable(f"{self.name} was not removed"))
            return
        self.move(State.GONE)
        self._on_removed()
        message.answer()

    def _remove_running(self, message: Remove) -> None:
        """By force: it is ended at once, and removed when it has."""
        if not message.force:
            status = "starting" if self.starting else self.container.state.status
            name = self.container.name
            raise Conflict(f"container {name} is {status}", hint="stop it first, or use --force")
        self.defer(message)
        self.stop_requested.set()
        if self.state is State.STOPPING:
            self._now.hasten.set()
        elif self.state in (State.STARTING, State.RESTARTING):
            self._give_up_launch()
        elif self.state is State.REATTACHING:
            self._give_up_machine()
        else:
            self._end(0)

    def _remove_lent(self, message: Remove) -> None:
        """When the copy is through; by force, a machine of its own that makes it ends now."""
        self.defer(message)
        if message.force and self._registry.pod(self._pod).implicit:
            self.do(self._sandboxes.down(self._pod, clean=False), lambda _: None)

    def _lend(self, message: Borrow) -> None:
        self._lent_from, self._borrower = self.state, message
        self._set_state(State.LENT)
        message.answer(True)

    def _runs_itself(self, message: Borrow) -> None:
        """By now: what runs is copied from as it is."""
        message.answer(False)

    def _return(self, message: Return) -> None:
        if self._borrower is message.borrow:
            self._borrower = None
            self.move(self._lent_from)
        message.answer()

    def _gone(self, message: Message) -> None:
        raise NotFound(f"no such container: {self._last.name}", hint="see `hyperctl ps -a`")

    # -- what an earlier daemon left --------------------------------------------------------

    def _reattach(self, message: Reattach) -> None:
        self.fan_out.attach_process(message.handle)
        run = Run(message.runtime, message.handle, clock.seconds())
        self._now.run = run
        paused = self.container.state.status is ContainerStatus.PAUSED
        self._begin(self.container, run)
        self._set_state(State.PAUSED if paused else State.RUNNING)
        message.answer()
        if self.stop_requested.is_set():
            self._end(0)

    def _resume(self, message: Resume) -> None:
        """At once; one that fails is tried again, as any start by a policy."""
        last = self.container.state
        known = {"exit_code": last.exit_code, "oom_killed": last.oom_killed, "error": last.error}
        self._now = Present(stops=self._now.stops, kills=self._now.kills, outcome=known)
        self._set_state(State.RESTARTING, status=ContainerStatus.RESTARTING, starting=False)
        self._now.launch = self.do(self._start_again(None), self._started_again)
        message.answer()
        if self.stop_requested.is_set():
            self._give_up_launch()

    def _lose(self, message: Lose) -> None:
        self._record_end(lost(message.why))
        message.answer()


S = State
C = ContainerSupervisor
_LATER = C.defer
ContainerSupervisor.TRANSITIONS = {
    State.REATTACHING: frozenset({State.RUNNING, State.PAUSED, State.RESTARTING, State.ENDING}),
    State.CREATED: frozenset({State.STARTING, State.RESTARTING, State.LENT, State.REMOVING, State.ENDING}),
    State.STARTING: frozenset({State.RUNNING, State.ENDING}),
    State.RUNNING: frozenset({State.PAUSED, State.STOPPING, State.RESTARTING, State.ENDING}),
    State.PAUSED: frozenset({State.RUNNING, State.STOPPING, State.RESTARTING, State.ENDING}),
    State.STOPPING: frozenset({State.RESTARTING, State.ENDING}),
    State.RESTARTING: frozenset({State.RUNNING, State.RESTARTING, State.ENDING}),
    State.ENDING: frozenset({State.EXITED, State.GONE}),
    State.EXITED: frozenset({State.STARTING, State.RESTARTING, State.LENT, State.REMOVING, State.ENDING}),
    State.LENT: frozenset({State.CREATED, State.EXITED}),
    State.REMOVING: frozenset({State.CREATED, State.EXITED, State.GONE}),
    State.GONE: frozenset(),
}
# For each verb, what each state does with it, in the order of `State`.
_ROWS: dict[type[Message], tuple[Handler, ...]] = {
    #        REATTACHING        CREATED             STARTING           RUNNING            PAUSED             STOPPING
    #        RESTARTING         ENDING              EXITED             LENT               REMOVING           GONE
    Start: (C._runs_already, C._start, C._join_start, C._runs_already, C._start_paused, _LATER,
            C._runs_already, _LATER, C._start, _LATER, _LATER, C._gone),
    Stop: (C._stop_lost, C._stopped_already, C._stop_start, C._stop, C._stop, C._stop_too,
           C._stop_restart, C._await_end, C._stopped_already, C._stopped_already, C._stopped_already, C._gone),
    Kill: (C._kill_lost, C._not_running, C._kill_start, C._kill, C._kill, C._kill_too,
           C._kill_start, C._not_running, C._not_running, C._not_running, C._not_running, C._gone),
    Pause: (C._cannot_reach, C._not_running, C._not_running, C._freeze, C._paused_already, C._not_running,
            C._not_running, C._not_running, C._not_running, C._not_running, C._not_running, C._gone),
    Unpause: (C._cannot_reach, C._not_running, C._not_running, C._not_paused, C._freeze, C._not_running,
              C._not_running, C._not_running, C._not_running, C._not_running, C._not_running, C._gone),
    Remove: (C._remove_running, C._remove, C._remove_running, C._remove_running, C._remove_running, C._remove_running,
             C._remove_running, _LATER, C._remove, C._remove_lent, _LATER, C._ignore),
    Borrow: (C._cannot_reach, C._lend, _LATER, C._runs_itself, C._runs_itself, C._runs_itself,
             _LATER, _LATER, C._lend, _LATER, _LATER, C._gone),
    Return: (C._return,) * len(State),
    Replace: (C._ignore, C._ignore, C._ignore, C._replace, C._ignore, C._ignore,
              C._ignore, C._ignore, C._ignore, C._ignore, C._ignore, C._ignore),
    Reattach: (C._reattach, *[C._ignore] * (len(State) - 1)),
    Resume: (C._resume, C._resume, C._ignore, C._ignore, C._ignore, C._ignore,
             C._ignore, _LATER, C._resume, _LATER, C._ignore, C._ignore),
    Lose: (C._lose, C._lose, C._ignore, C._ignore, C._ignore, C._ignore,
           C._ignore, C._ignore, C._lose, _LATER, C._ignore, C._ignore),
}  # fmt: skip
ContainerSupervisor.HANDLERS = table(State, _ROWS)


@contextlib.asynccontextmanager
async def borrowed(supervisor: ContainerSupervisor) -> AsyncIterator[str]:
    """Nobody starts or removes the container meanwhile; gives a name for its machine's user, "" when it runs."""
    borrow = Borrow()
    try:
        yield f"copy-{ids.new_id()}" if await supervisor.ask(borrow) else ""
    finally:
        supervisor.post(Return(borrow))
