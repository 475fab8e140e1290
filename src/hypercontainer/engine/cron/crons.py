# SPDX-License-Identifier: Apache-2.0
"""The jobs that there are."""

from __future__ import annotations

import asyncio
import secrets
from datetime import UTC, datetime

from msgspec.structs import replace

from ...errors import Conflict, InvalidArgument
from ...model.base import given_fields
from ...model.cron import RUNS_MAX, Cron, CronInfo, CronRequest, CronRun, CronUpdate
from ...model.quotas import Amounts
from ...model.specs import ContainerSpec, RestartPolicy
from ...state import changes as rows
from ...state.journal import Journal
from ...sys import clock
from .. import host_access, naming
from ..events import Events
from ..principal import own_scopes, owned
from ..quotas.quotas import Quotas
from . import schedule

_NAME_MAX = 63  # characters: its containers' names have the run's id, too


class Crons:
    """The only holder of these records."""

    def __init__(self, journal: Journal, events: Events, quotas: Quotas) -> None:
        self._journal = journal
        self._quotas = quotas
        quotas.counted["crons"] = self.records
        self._events = events
        self._records = {c.id: c for c in journal.database.crons()}
        self.changed = asyncio.Event()  # pulsed when there is something else to wait for

    def create(self, request: CronRequest) -> CronInfo:
        """:raise InvalidArgument: what is wrong with it. :raise Conflict: the name is taken. :raise NoSpace: the disk
        is full. :raise PermissionDenied: its container takes more of this host than who asks may have.
        :raise QuotaExceeded: no more may be had.
        """
        self._check_name(request.name)
        schedule.check(request.schedule, request.timezone)
        _check_container(request.container)
        given = {f: getattr(request, f) for f in CronRequest.__struct_fields__}
        scopes = own_scopes()
        record = Cron(
            id=secrets.token_hex(32), created_at=clock.stamp(), seen=clock.stamp(), scopes=scopes, **given, **owned()
        )
        with self._quotas.admitted({record.id: Amounts(crons=1)}):
            self.put(record)
        self._tell("create", record)
        return self.told(record)

    def _check_name(self, name: str) -> None:
        naming.check("job", name)
        if len(name) > _NAME_MAX:
            raise InvalidArgument(f"a job's name has {_NAME_MAX} characters at most", hint="choose a shorter one")
        if naming.find(self._records.values(), name):
            raise Conflict(f"there is a job {name} already", hint="remove it first, or choose another name")

    def all(self) -> list[CronInfo]:
        """Those that one sees, by name."""
        return [self.told(c) for c in sorted(naming.seen(self._records.values()), key=lambda c: c.name)]

    def find(self, key: str) -> Cron:
        """By id, name, or the beginning of an id. :raise NotFound: there is none that one sees."""
        return naming.pick(self._records, key, "job", "see `hyperctl cron ls`")

    def info(self, key: str) -> CronInfo:
        """Raises what `find` does."""
        return self.told(self.find(key))

    def update(self, key: str, wanted: CronUpdate) -> CronInfo:
        """Raises what `find` and `create` do. What was due before is not made up for."""
        found = self.find(key)
        changed = given_fields(wanted)
        record = replace(found, scopes=own_scopes(), **changed)
        schedule.check(record.schedule, record.timezone)
        if {"schedule", "timezone", "paused"} & changed.keys():
            record = replace(record, seen=clock.stamp())
        self.put(record)
        self._tell("update", record)
        return self.told(record)

    def forget(self, record: Cron) -> None:
        """:raise NoSpace: the disk is full, and it is there still."""
        self._journal.write_now(rows.remove(record))
        self._records.pop(record.id, None)
        self._pulse()
        self._tell("destroy", record)

    # -- for the runner -------------------------------------------------------------

    def records(self) -> list[Cron]:
        """Everybody's."""
        return list(self._records.values())

    def get(self, id_: str) -> Cron | None:
        """Whosever it is; None: it was removed."""
        return self._records.get(id_)

    def put(self, record: Cron) -> None:
        """:raise NoSpace: when the disk is full."""
        self._journal.write_now(rows.put(record))
        self._records[record.id] = record
        self._pulse()

    def put_run(self, id_: str, run: CronRun) -> None:
        """What has become of a run, when it can be written. Old ones that have ended make room."""
        record = self._records.get(id_)
        if record is None:
            return
        runs = [run if r.id == run.id else r for r in record.runs]
        record = replace(record, runs=bounded(runs if run in runs else [*runs, run]))
        self._records[id_] = record
        self._journal.write(rows.put(record))

    def tell_run(self, action: str, id_: str, run: CronRun) -> None:
        """An event of a run."""
        if record := self._records.get(id_):
            self._tell(action, record, run=run.id, container=run.container, error=run.error)

    def _tell(self, action: str, record: Cron, **attributes: str) -> None:
        said = {name: value for name, value in attributes.items() if value}
        self._events.publish("cron", action, record.id, of=None, tenant=record.tenant, name=record.name, **said)

    def _pulse(self) -> None:
        self.changed.set()
        self.changed = asyncio.Event()

    def told(self, record: Cron) -> CronInfo:
        """With the time when it is due next."""
        coming = None if record.paused else schedule.after(record.schedule, record.timezone, _moment(record.seen))
        given = {f: getattr(record, f) for f in CronInfo.__struct_fields__ if f != "next"}
        return CronInfo(next=clock.written(coming), **given)


def bounded(runs: list[CronRun]) -> list[CronRun]:
    """So many of them at most, where those that go on stay."""
    spare = len(runs) - RUNS_MAX
    for run in [r for r in runs if r.ended][: max(0, spare)]:
        runs = [r for r in runs if r is not run]
    return runs


def _moment(text: str) -> datetime:
    return datetime.fromisoformat(text).astimezone(UTC)


def _check_container(spec: ContainerSpec) -> None:
    """:raise InvalidArgument: it asks for what a job sees to itself, or has no image. :raise PermissionDenied: as
    `create`.
    """
    if not spec.image:
        raise InvalidArgument("a job's container needs an image", hint="name one")
    for given, flag, why in (
        (spec.name, "--name", "each run's container has a name of its own"),
        (spec.pod, "--pod", "each run has a machine of its own"),
        (spec.auto_remove, "--rm", "`--keep` says how many are kept"),
        (spec.restart != RestartPolicy(), "--restart", "the schedule is when it runs again"),
        (spec.bound, "bound", "nobody waits for it"),
    ):
        if given:
            raise InvalidArgument(f"{flag} is nothing for a job: {why}", hint="leave it out")
    host_access.check_container(spec)
