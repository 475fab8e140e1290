# SPDX-License-Identifier: Apache-2.0
"""A container's runs: start, what follows its process, another start by its policy, and the end."""

from __future__ import annotations

import asyncio
import logging
from typing import Any

from ..errors import HyperError, InvalidState, StartFailed, Unavailable
from ..model.status import Container, ContainerStatus, Health
from ..sys import clock, spans
from . import joined
from .container_state import ContainerState, Present
from .container_verbs import (
    Replace,
    Start,
    State,
)  # fmt: skip
from .run import Outcome, Run, back_off, end_process, lost, outcome, wants_restart
from .supervisor import Job, failure

log = logging.getLogger(__name__)


class ContainerRuns(ContainerState):
    """From the start of a container to the moment when its machine has been given back."""

    # -- start ------------------------------------------------------------------------

    def _start(self, message: Start) -> None:
        self.stop_requested.clear()
        self.ran = False
        self._now = Present(starts=[message])
        self._set_state(State.STARTING, starting=True)
        self._now.launch = self.do(self._launch(message.size), self._launched, message.context)

    async def _launch(self, size: tuple[int, int]) -> Run:
        container = self.container
        runtime = await self._sandboxes.acquire(container.pod, container.id)
        try:
            await self._sandboxes.build(container)
            handle = await self._sandboxes.start_main(container, runtime, self.fan_out, size)
        except BaseException:
            clean = not self._registry.pod(container.pod).implicit
            await self._sandboxes.release(container.pod, container.id, clean=clean)
            raise
        return Run(runtime, handle, clock.seconds())

    def _launched(self, job: Job) -> None:
        if error := failure(job):
            self._start_failed(error)
            return
        self._running(job.result(), stopped_by_user=False, restart_count=0)
        for number, message in enumerate(self._now.starts):
            message.answer(number == 0)
        self._now.starts.clear()

    def _running(self, run: Run, **record: Any) -> None:
        self._now.run, self._now.launch, self._now.hasten = run, None, asyncio.Event()
        container = self.container
        checks = container.health is not None or container.spec.liveness is not None
        self._begin(container, run)
        container = self._set_state(
            State.RUNNING, status=ContainerStatus.RUNNING, starting=False, pid=run.handle.pid, finished_at="",
            identity=run.handle.identity, started_at=clock.stamp(), exit_code=0, error="", oom_killed=False,
            unresponsive=False, ended_with_daemon=False, health=Health() if checks else None,
            **record,
        )  # fmt: skip
        joined.tell(self._events, self._registry, container, began=True)
        self.publish("start", container)
        if self.stop_requested.is_set():  # it came too late to keep it from running
            self._end(0 if self._now.kills else container.spec.stop_timeout)

    def _begin(self, container: Container, run: Run) -> None:
        self.runtime = run.runtime
        self._replaced = False
        self.ran = True
        self.stopped.clear()
        self.at_rest.clear()
        run.runtime.agent.on_oom[container.id[:12]] = lambda: self.publish("oom", container)
        self._now.checks = [
            self.do(work, self._check_ended) for work in self._health.checks(container, run.runtime, self._replace_me)
        ]
        self.do(outcome(run), self._process_ended, spans.recorded_in(self._context))

    def _replace_me(self) -> None:
        self.post(Replace())

    def _check_ended(self, job: Job) -> None:
        error = failure(job)
        if error and not isinstance(error, asyncio.CancelledError):
            log.error("%s: a check of its health failed", self.name, exc_info=error)

    def _start_failed(self, error: BaseException) -> None:
        """Whoever hears of the failure finds the record settled, and removed if that was asked for."""
        code = error.exit_status if isinstance(error, StartFailed) else 125
        if isinstance(error, asyncio.CancelledError):
            self._now.error = InvalidState(
                f"container {self.container.name} was stopped or removed before it had started",
                hint="see `hyperctl events`",
            )
            why = "the start was given up"
        else:
            self._now.error, why = error, error.message if isinstance(error, HyperError) else str(error)
        self._record_end({"exit_code": code, "oom_killed": False, "error": why})

    def _join_start(self, message: Start) -> None:
        self._now.starts.append(message)

    def _runs_already(self, message: Start) -> None:
        message.answer(False)

    def _start_paused(self, message: Start) -> None:
        name = self.container.name
        raise InvalidState(f"container {name} is paused", hint=f"use `hyperctl unpause {name}`")

    def _give_up_launch(self) -> None:
        if self._now.launch:
            self.end([self._now.launch])

    # -- the end of its process -------------------------------------------------------

    def _process_ended(self, job: Job) -> None:
        error = failure(job)
        if error is not None:
            log.error("%s cannot be followed any longer, and is ended", self.name, exc_info=error)
        self._now.outcome = lost(f"hyperd failed to follow the container: {error}") if error else job.result()
        assert self._now.run is not None
        if error:
            self.do(self._now.run.kill(), lambda _: None)
        self._end_jobs()
        self.fan_out.finish()
        if not self._restarts():
            self._record_end(self._now.outcome)
            return
        self._publish_end(self._wait_for_restart(clock.seconds() - self._now.run.began), self._now.run)
        self._tell_end()

    def _publish_end(self, container: Container, run: Run | None) -> None:
        """With the seconds that it ran; without a run it has not."""
        if run:
            joined.tell(self._events, self._registry, container, began=False)
        lasted = int(clock.seconds() - run.began) if run else 0
        self.publish("die", container, exit_code=str(self.exit_code), exec_duration=str(lasted))

    def _end_jobs(self) -> None:
        """Checks and freezing, which are of a process that runs."""
        for job in (*self._now.checks, self._now.freeze):
            if job:
                job.cancel()
        self._now.checks = []

    def _told(self, outcome: Outcome) -> None:
        self.exit_code, self.error = outcome["exit_code"], outcome["error"]

    def _restarts(self) -> bool:
        if self.stop_requested.is_set():
            return False
        return self._replaced or wants_restart(self.container, self._now.outcome["exit_code"])

    def _wait_for_restart(self, lasted: float, *, failed: bool = False, **record: Any) -> Container:
        """`lasted` is how many seconds it ran; `failed`: that was an attempt to start it, which ended in an error."""
        self._now.delay = back_off(self._now.delay, lasted)
        self._told(self._now.outcome)
        container = self._set_state(
            State.RESTARTING, status=ContainerStatus.RESTARTING, starting=False, pid=0, finished_at=clock.stamp(),
            **self._now.outcome, **record,
        )  # fmt: skip
        self._now.launch = self.do(self._start_again(self._now.run, failed=failed), self._started_again)
        return container

    async def _start_again(self, run: Run | None, *, failed: bool = False) -> Run:
        """After the wait, in the machine of its last run if that is of use."""
        await asyncio.sleep(self._now.delay)
        container = self.container
        if run is not None and not failed and not run.runtime.dead:
            await run.handle.release()
            handle = await self._sandboxes.start_main(container, run.runtime, self.fan_out, (0, 0))
            return Run(run.runtime, handle, clock.seconds())
        if run is not None:
            await self._sandboxes.release(container.pod, container.id)
            self._now.run = None
        return await self._launch((0, 0))

    def _started_again(self, job: Job) -> None:
        """A program that cannot be executed is the container's end, as with Docker; what else went wrong may pass."""
        count = self.container.state.restart_count + 1
        if not (error := failure(job)):
            self._running(job.result(), restart_count=count)
            return
        if isinstance(error, HyperError):
            code = error.exit_status if isinstance(error, StartFailed) else 125
            self._now.outcome = {"exit_code": code, "oom_killed": False, "error": error.message}
            if not isinstance(error, StartFailed) and self._restarts():
                log.warning("%s is not started again, which is tried further: %s", self.name, error.message)
                container = self._wait_for_restart(0, failed=True, restart_count=count)
                self.publish("start_failed", container, error=error.message)
                return
        elif not isinstance(error, asyncio.CancelledError):
            log.error("%s cannot be started again", self.name, exc_info=error)
            self._now.outcome = lost(f"hyperd failed to start it again: {error}")
        self._record_end(self._now.outcome)

    # -- settling ---------------------------------------------------------------------

    def _record_end(self, state: Outcome) -> None:
        """Record the end, let all hear of it who wait, and give the machine back."""
        run, self._now.launch = self._now.run, None
        self._told(state)
        self.fan_out.finish()
        container = self._set_state(
            State.ENDING, status=ContainerStatus.EXITED, starting=False, pid=0, finished_at=clock.stamp(), **state
        )
        self._publish_end(container, run)
        self.runtime = None
        record_goes_first = bool(run) and container.spec.auto_remove and self._files.is_alone(container)
        work = self._give_back(container, run)
        if record_goes_first:
            # Nothing of it is anybody else's: its name is free when the exit code is known, its machine ends then.
            assert run is not None
            self.do(run.runtime.machine.kill(), lambda _: None)
            self._files.delete_record(container)
            self._on_removed()
        self._tell_end()
        self.fan_out.pulse()
        for kill in self._now.kills:
            kill.answer()
        self.do(work, self._given_back, spans.recorded_in(self._context))

    async def _give_back(self, container: Container, run: Run | None) -> None:
        remove = container.spec.auto_remove
        pod = self._registry.pod(container.pod) if self._registry.has_pod(container.pod) else None
        if run is not None:
            clean = pod is not None and (bool(pod.volumes) or not (remove and pod.implicit))
            await self._sandboxes.release(container.pod, container.id, clean=clean)
        if remove:
            await self._files.erase(container, volumes=True)
        elif run is not None and not run.runtime.dead:
            await self._sandboxes.forget_process(container, run.runtime, run.handle)

    def _given_back(self, job: Job) -> None:
        if error := failure(job):
            log.error("%s: what it had is not all given back", self.name, exc_info=error)
        gone = not self._registry.exists(self.id)
        now, self._now = self._now, Present()
        self.move(State.GONE if gone else State.EXITED)
        self.at_rest.set()
        for stop in now.stops:
            stop.answer(True)
        for start in now.starts:
            start.refuse(now.error or Unavailable(f"{self.name} has ended"))
        if gone:
            self._on_removed()

    # -- ending it ---------------------------------------------------------------------

    def _end(self, grace: float, signal: int = 0) -> None:
        """Its signal, or another one, and SIGKILL after `grace` seconds; `_process_ended` hears of what comes of it."""
        paused = self.state is State.PAUSED
        self._set_state(State.STOPPING)
        if self._now.freeze:
            self._now.freeze.cancel()
        assert self._now.run is not None
        if grace <= 0:
            self._now.hasten.set()
        signal = signal or self.container.process.stop_signal
        work = end_process(self.container, self._now.run, grace, self.stopped, self._now.hasten, signal, paused=paused)
        self.do(work, self._end_tried, None)

    def _end_tried(self, job: Job) -> None:
        error = failure(job)
        if error and not isinstance(error, asyncio.CancelledError) and self._now.run:
            log.error("%s does not end, and its machine is killed", self.name, exc_info=error)
            self.do(self._now.run.kill(), lambda _: None)
