# SPDX-License-Identifier: Apache-2.0
"""Runs jobs when they are due.

A run is written before its container is made, so one that hyperd dies in is not begun a second time; the next hyperd
follows its container, which has the run's id as a label.
"""

from __future__ import annotations

import asyncio
import contextlib
import logging
import secrets
from datetime import UTC, datetime, timedelta
from typing import Literal

from msgspec.structs import replace

from ...errors import Conflict, HyperError, InvalidState, NotFound
from ...model.cron import LABEL, RUN_LABEL, Cron, CronRun
from ...model.specs import ContainerSpec
from ...model.status import Container, ContainerStatus
from ...sys import clock, tasks
from ..containers import Containers
from ..principal import acting_for, forget
from ..registry import Registry
from . import schedule
from .crons import Crons, bounded

log = logging.getLogger(__name__)
_LOOK = 30.0  # seconds after which the clock is looked at at least: it may have been set
_ON_TIME = timedelta(seconds=60)  # what is due earlier was missed
_SET_BACK = timedelta(hours=1)  # by so much a clock is set, and not only corrected
_AGAIN = 5.0  # seconds after what went wrong in here


class Runner:
    """One task that waits for what is due, and one for each run that goes on."""

    def __init__(self, crons: Crons, registry: Registry, containers: Containers) -> None:
        self._crons = crons
        self._registry = registry
        self._containers = containers
        self._removing: set[str] = set()  # jobs of which no run is begun any more
        self._runs: dict[str, asyncio.Task[None]] = {}  # by their ids

    # -- by the clock ---------------------------------------------------------------

    async def run(self) -> None:
        """Until it is cancelled: runs go on, and the next one follows them."""
        try:
            self._go_on()
            while True:
                pause, changed = self._look(), self._crons.changed
                if pause is None:
                    await changed.wait()
                    continue
                with contextlib.suppress(TimeoutError):
                    await tasks.within(changed.wait(), pause)
        finally:
            await tasks.end(list(self._runs.values()))

    def _go_on(self) -> None:
        """With runs that an earlier hyperd had begun."""
        for record in self._crons.records():
            for run in [r for r in record.runs if not r.ended]:
                self._begin(record, run)

    def _look(self) -> float | None:
        """Begin what is due; seconds until the next look. None: nothing will be due."""
        pauses = []
        for record in [c for c in self._crons.records() if not c.paused and c.id not in self._removing]:
            try:
                pauses.append(self._look_at(record))
            except Exception:
                log.exception("job %s cannot be looked at", record.name)
                pauses.append(_AGAIN)
        return min(max(min(pauses), 0.0), _LOOK) if pauses else None

    def _look_at(self, record: Cron) -> float:
        now = clock.now()
        seen = datetime.fromisoformat(record.seen).astimezone(UTC)
        if seen - now > _SET_BACK:
            seen = now
            self._crons.put(replace(record, seen=clock.written(now)))
        elif due := schedule.last(record.schedule, record.timezone, now, seen):
            seen = due
            self._due_at(record, due, now)
        coming = schedule.after(record.schedule, record.timezone, seen)
        return (coming - clock.now()).total_seconds() if coming else _LOOK

    def _due_at(self, record: Cron, due: datetime, now: datetime) -> None:
        if now - due <= _ON_TIME:
            self._fire(record, "schedule", clock.written(due))
        elif record.catch_up:
            self._fire(record, "catch-up", clock.written(due))
        else:
            log.info("job %s was due at %s, and is not made up for", record.name, clock.written(due))
            self._crons.put(replace(record, seen=clock.written(due)))

    def begin(self, key: str) -> CronRun:
        """One by hand. Raises what `Crons.find` does. :raise Conflict: one goes on, beside which none may."""
        record = self._crons.find(key)
        if record.id in self._removing:
            raise InvalidState(f"the job {record.name} is being removed", hint="make another when it is gone")
        run = self._fire(record, "hand", "")
        if run.ended:
            raise Conflict(f"a run of the job {record.name} goes on", hint="wait for its end, or stop its container")
        return run

    def _fire(self, record: Cron, by: Literal["schedule", "hand", "catch-up"], due: str) -> CronRun:
        run = CronRun(id=secrets.token_hex(6), by=by, due=due or clock.stamp())
        if record.concurrency == "forbid" and any(not r.ended for r in record.runs):
            run = replace(run, ended=clock.stamp(), error="the run before it went on")
            if by == "hand":
                return run
        record = replace(record, seen=due or record.seen, runs=bounded([*record.runs, run]))
        self._crons.put(record)
        if not run.ended:
            self._begin(record, run)
        self._crons.tell_run("skip" if run.ended else "run", record.id, run)
        return run

    # -- a run ----------------------------------------------------------------------

    def _begin(self, record: Cron, run: CronRun) -> None:
        before = [task for r in record.runs if r.id != run.id and (task := self._runs.get(r.id))]
        task = self._runs[run.id] = asyncio.create_task(self._guarded(record, run, before))
        task.add_done_callback(lambda _: self._runs.pop(run.id, None))

    async def _guarded(self, record: Cron, run: CronRun, before: list[asyncio.Task[None]]) -> None:
        forget(record.tenant)
        try:
            with acting_for(record, self._registry.policy_of(record.tenant)):
                if record.concurrency == "replace":
                    await self._end_others(record, run, before)
                run = await self._carried_out(record, run)
        except HyperError as error:
            run = replace(self._latest(record, run), ended=clock.stamp(), error=str(error))
        except Exception as error:
            log.exception("a run of job %s failed", record.name)
            run = replace(self._latest(record, run), ended=clock.stamp(), error=f"internal error: {error}")
        self._crons.put_run(record.id, run)
        self._crons.tell_run("end", record.id, run)
        await self._clear(record)

    def _latest(self, record: Cron, run: CronRun) -> CronRun:
        now = self._crons.get(record.id)
        return next((r for r in (now.runs if now else ()) if r.id == run.id), run)

    async def _end_others(self, record: Cron, run: CronRun, before: list[asyncio.Task[None]]) -> None:
        for other in [r for r in record.runs if r.id != run.id and not r.ended]:
            if container := self._container_of(record, other):
                with contextlib.suppress(NotFound, InvalidState):
                    await self._containers.stop(container.id)
        if before:
            await asyncio.wait(before)

    async def _carried_out(self, record: Cron, run: CronRun) -> CronRun:
        """Its end. :raise HyperError: why there was no run, or none as a whole."""
        container = self._container_of(record, run)
        if container is None and run.container:
            return replace(run, ended=clock.stamp(), error="its container was removed")
        if container is None:
            container = await self._containers.create(_spec(record, run), starting=True)
        run = replace(run, container=container.id)
        self._crons.put_run(record.id, run)
        if container.state.status is ContainerStatus.CREATED:
            await self._containers.start(container.id)
        error = await self._ended(record, container.id)
        state = self._registry.container(container.id).state
        return replace(run, ended=clock.stamp(), exit_code=state.exit_code, error=error or state.error)

    async def _ended(self, record: Cron, id_: str) -> str:
        """Wait for its end, which comes in time; what is to be said of it."""
        waiting = self._containers.await_end(id_)
        if not record.time_limit:
            await waiting()
            return ""
        made = datetime.fromisoformat(self._registry.container(id_).created_at).astimezone(UTC)
        left = record.time_limit - (clock.now() - made).total_seconds()
        try:
            await tasks.within(waiting(), min(max(left, 0.0), record.time_limit))
        except TimeoutError:
            await self._containers.stop(id_)
            return f"it was stopped after {record.time_limit:g} s, its time limit"
        return ""

    def _container_of(self, record: Cron, run: CronRun) -> Container | None:
        """One that an earlier hyperd made is known by its label."""
        if run.container:
            return self._registry.container(run.container) if self._registry.exists(run.container) else None
        found = (c for c in self._registry.containers() if c.tenant == record.tenant)
        return next((c for c in found if c.spec.labels.get(RUN_LABEL) == run.id), None)

    async def _clear(self, record: Cron) -> None:
        """Remove containers of runs that have ended, but for the last ones."""
        now = self._crons.get(record.id)
        ended = [r.container for r in (now.runs if now else ()) if r.ended and self._registry.exists(r.container)]
        for id_ in ended[: len(ended) - now.keep] if now else ended:
            with contextlib.suppress(HyperError):  # it may be in use; the next run tries it again
                await self._containers.remove(id_, volumes=True)

    # -- the end of a job -----------------------------------------------------------

    async def remove(self, key: str, *, force: bool) -> Cron:
        """With the containers of its runs. Raises what `Crons.find` does. :raise Conflict: a run goes on, without
        `force`.
        """
        record = self._crons.find(key)
        going = [r for r in record.runs if not r.ended]
        if going and not force:
            raise Conflict(f"a run of the job {record.name} goes on", hint="wait for its end, or use --force")
        self._removing.add(record.id)
        try:
            self._crons.put(replace(record, paused=True))  # should hyperd die in the midst of it, nothing runs any more
            await tasks.to_the_end(tasks.end([task for r in going if (task := self._runs.get(r.id))]))
            for id_ in [c.id for r in record.runs if (c := self._container_of(record, r))]:
                with contextlib.suppress(NotFound):
                    await self._containers.remove(id_, force=True, volumes=True)
            self._crons.forget(record)
        except BaseException:
            self._follow_again(record.id)
            raise
        finally:
            self._removing.discard(record.id)
        return record

    def _follow_again(self, id_: str) -> None:
        """A removal has failed: the runs that it left are followed again, and those that it has ended are told."""
        record = self._crons.get(id_)
        for run in [r for r in (record.runs if record else ()) if not r.ended and r.id not in self._runs]:
            if record and self._container_of(record, run):
                self._begin(record, run)
            else:
                run = replace(run, ended=clock.stamp(), error="it was ended by a removal of the job, which failed")
                self._crons.put_run(id_, run)
                self._crons.tell_run("end", id_, run)


def _spec(record: Cron, run: CronRun) -> ContainerSpec:
    labels = {**record.container.labels, LABEL: record.name, RUN_LABEL: run.id}
    return replace(record.container, name=f"{record.name}-{run.id}", labels=labels)
