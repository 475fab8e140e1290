# SPDX-License-Identifier: Apache-2.0
"""Jobs over fakes: when they run, beside what, what is kept of them, and what survives hyperd."""

from __future__ import annotations

import asyncio
from typing import Any

import pytest

from hypercontainer.engine.principal import asked_by
from hypercontainer.errors import Conflict, HyperError, InvalidArgument, NotFound, PermissionDenied
from hypercontainer.model.cron import RUNS_MAX, CronInfo, CronRequest, CronRun, CronUpdate
from hypercontainer.model.principal import Principal
from hypercontainer.model.specs import ContainerSpec, Mount, RestartPolicy
from hypercontainer.model.tenancy import OrganisationRequest, ProjectRequest
from hypercontainer.sys import clock

from .stage import IMAGE, Stage

# The stage's clock begins at 2023-11-14 22:13:20 UTC.


def made(s: Stage, *command: str, schedule: str = "* * * * *", name: str = "job", **how: Any) -> CronInfo:
    spec = ContainerSpec(image=IMAGE, command=list(command), **how.pop("spec", {}))
    return s.engine.crons.create(CronRequest(name=name, schedule=schedule, container=spec, **how))


async def begin(s: Stage, name: str = "job") -> CronRun:
    async def begun() -> CronRun:
        return s.engine.cron_runner.begin(name)

    return await s.call(begun())


def runs(s: Stage) -> list[tuple[str, str, int | None, str]]:
    return [(r.due[11:19], r.by, r.exit_code, r.error) for r in s.engine.crons.info("job").runs]


def there(s: Stage) -> int:
    return len(s.engine.registry.containers())


def test_it_runs_when_it_is_due(act: Any) -> None:
    async def scenario(s: Stage) -> None:
        job = made(s, "exit", "3", keep=2)
        assert job.next == "2023-11-14T22:14:00.000000Z"
        await asyncio.sleep(30)
        assert runs(s) == []
        await asyncio.sleep(200)
        assert runs(s) == [(f"22:{m}:00", "schedule", 3, "") for m in (14, 15, 16, 17)]
        kept = s.engine.registry.containers()
        assert [c.id for c in reversed(kept)] == [r.container for r in s.engine.crons.info("job").runs[-2:]]
        assert all(c.name.startswith("job-") and c.spec.labels["hypercontainer.cron"] == "job" for c in kept)
        told = [e for e in s.engine.events.past() if e.type == "cron"]
        assert [e.action for e in told] == ["create", *["run", "end"] * 4]
        await s.call(s.engine.cron_runner.remove("job", force=False))
        assert there(s) == 0
        with pytest.raises(NotFound, match="no such job: job"):
            s.engine.crons.info("job")
        await asyncio.sleep(100)
        assert there(s) == 0

    act(scenario)


@pytest.mark.parametrize("concurrency", ["forbid", "allow", "replace"])
def test_one_that_goes_on_and_the_next(act: Any, concurrency: Any) -> None:
    async def scenario(s: Stage) -> None:
        made(s, "sleep", "90", concurrency=concurrency)
        await asyncio.sleep(165)  # until 22:16:05
        live = [c for c in s.engine.registry.containers() if c.state.status == "running"]
        if concurrency == "forbid":
            assert runs(s)[:2] == [
                ("22:14:00", "schedule", 0, ""),
                ("22:15:00", "schedule", None, "the run before it went on"),
            ]
            assert [r[0] for r in runs(s)] == ["22:14:00", "22:15:00", "22:16:00"] and len(live) == 1
            with pytest.raises(Conflict, match="a run of the job job goes on"):
                await begin(s)
        elif concurrency == "allow":
            assert len(live) == 2 and runs(s)[0][2] == 0 and runs(s)[1][2:] == (None, "")
            await begin(s)
        else:
            assert len(live) == 1 and [r[2] for r in runs(s)] == [143, 143, None]
        with pytest.raises(Conflict, match="goes on"):
            await s.call(s.engine.cron_runner.remove("job", force=False))
        await s.call(s.engine.cron_runner.remove("job", force=True))
        assert there(s) == 0

    act(scenario)


@pytest.mark.parametrize("catch_up", [False, True])
def test_what_was_missed_while_hyperd_was_down(act: Any, catch_up: bool) -> None:
    async def scenario(s: Stage) -> None:
        made(s, "true", schedule="*/10 * * * *", catch_up=catch_up)
        await s.close()
        await asyncio.sleep(3000)  # until 23:03:20: five were due
        await s.open()
        await asyncio.sleep(10)
        assert runs(s) == ([("23:00:00", "catch-up", 0, "")] if catch_up else [])
        await asyncio.sleep(500)
        assert runs(s)[-1] == ("23:10:00", "schedule", 0, "")

    act(scenario)


@pytest.mark.parametrize("how", ["killed", "restarted"])
def test_a_run_goes_on_under_the_next_hyperd(act: Any, how: str) -> None:
    async def scenario(s: Stage) -> None:
        made(s, "after", "100", "exit", "5", schedule="0 * * * *")
        run = await begin(s)
        await asyncio.sleep(20)
        s.kill() if how == "killed" else await s.close(keep_running=True)
        await s.open()
        await asyncio.sleep(200)
        (found,) = s.engine.crons.info("job").runs
        assert (found.id, found.by, found.error) == (run.id, "hand", "") and found.exit_code is not None and found.ended
        assert there(s) == 1

    act(scenario)


def test_a_run_whose_container_was_not_made_is_begun_by_the_next_hyperd(act: Any) -> None:
    async def scenario(s: Stage) -> None:
        made(s, "true", schedule="0 * * * *")
        await begin(s)
        s.kill()  # before its task has done anything
        await s.open()
        await asyncio.sleep(20)
        assert [(r.exit_code, r.error) for r in s.engine.crons.info("job").runs] == [(0, "")] and there(s) == 1

    act(scenario)


def test_limits_of_time_and_words_of_what_fails(act: Any) -> None:
    async def scenario(s: Stage) -> None:
        made(s, "sleep", "1000", schedule="0 * * * *", time_limit=30)
        await begin(s)
        await asyncio.sleep(60)
        assert runs(s)[0][1:] == ("hand", 143, "it was stopped after 30 s, its time limit")
        made(s, "nothing-like-this", name="bad")
        await begin(s, "bad")
        await asyncio.sleep(5)
        (run,) = s.engine.crons.info("bad").runs
        assert run.ended and run.error
        spec = ContainerSpec(image="none:1")
        s.engine.crons.create(CronRequest(name="no-image", schedule="0 * * * *", container=spec))
        await begin(s, "no-image")
        await asyncio.sleep(5)
        (run,) = s.engine.crons.info("no-image").runs
        assert "no such image: none:1" in run.error and run.container == ""

    act(scenario)


def test_paused_changed_and_a_clock_that_is_set(act: Any) -> None:
    async def scenario(s: Stage) -> None:
        made(s, "true")
        assert s.engine.crons.update("job", CronUpdate(paused=True)).next == ""
        await asyncio.sleep(300)
        assert runs(s) == []
        s.engine.crons.update("job", CronUpdate(paused=False))
        await asyncio.sleep(61)
        assert len(runs(s)) == 1  # and not those of the time when it was paused
        s.engine.crons.update("job", CronUpdate(schedule="0 12 * * *"))
        for days in (30, -30):
            began, since, now = len(runs(s)), clock.seconds(), clock.now_ns() + days * 86_400 * 10**9

            def wall(now: int = now, since: float = since) -> int:
                return now + int((clock.seconds() - since) * 1e9)

            with clock.told_by(wall):
                await asyncio.sleep(100)
                assert len(runs(s)) == began  # what lies between is not made up for
                assert s.engine.crons.info("job").next > clock.stamp()
                await asyncio.sleep(86_400)
                assert len(runs(s)) == began + 1

    act(scenario)


def test_no_more_than_so_many_runs_are_known(act: Any) -> None:
    async def scenario(s: Stage) -> None:
        made(s, "true", schedule="*/10 * * * * *", keep=0)
        await asyncio.sleep(10 * (RUNS_MAX + 20) + 5)
        assert len(runs(s)) == RUNS_MAX and there(s) == 0

    act(scenario)


def test_what_is_refused(act: Any) -> None:
    async def scenario(s: Stage) -> None:
        made(s, "true")
        for how, error, says in (
            ({}, Conflict, "there is a job job already"),
            ({"name": "-"}, InvalidArgument, "invalid job name"),
            ({"name": "a" * 64}, InvalidArgument, "63 characters at most"),
            ({"name": "b", "schedule": "* *"}, InvalidArgument, "wrong number of fields"),
            ({"name": "b", "timezone": "No/where"}, InvalidArgument, "no time zone"),
            ({"name": "b", "spec": {"name": "x"}}, InvalidArgument, "--name is nothing for a job"),
            ({"name": "b", "spec": {"auto_remove": True}}, InvalidArgument, "--rm is nothing"),
            ({"name": "b", "spec": {"restart": RestartPolicy(name="always")}}, InvalidArgument, "--restart is nothing"),
            ({"name": "b", "spec": {"pod": "x"}}, InvalidArgument, "--pod is nothing"),
        ):  # fmt: skip
            with pytest.raises(error, match=says):
                made(s, "true", **how)
        bind = [Mount(target="/d", type="bind", source="/etc")]
        with asked_by(Principal("token:x", scopes=frozenset({"operate", "read"}))), pytest.raises(PermissionDenied):
            made(s, "true", name="b", spec={"mounts": bind})
        with pytest.raises(InvalidArgument, match="wrong number of fields"):
            s.engine.crons.update("job", CronUpdate(schedule="x"))
        assert [j.name for j in s.engine.crons.all()] == ["job"]

    act(scenario)


def test_they_are_a_projects_own(act: Any) -> None:
    async def scenario(s: Stage) -> None:
        tenancy = s.engine.tenancy
        tenancy.organisations.create(OrganisationRequest(name="blue"))
        web = tenancy.projects.create(ProjectRequest(name="web"))
        s.give_image(web.id)
        made(s, "true")
        with asked_by(Principal("token:x", web.id, frozenset({"operate", "read"}))):
            made(s, "true")  # of the same name
            assert len(s.engine.crons.all()) == 1
        await asyncio.sleep(61)
        with asked_by(Principal("token:x", web.id)):
            (run,) = s.engine.crons.info("job").runs
            container = s.engine.registry.container(run.container)
            assert (container.tenant, container.owner, run.error) == (web.id, "token:x", "")
        with pytest.raises(HyperError, match="1 cron job"):
            await s.call(tenancy.projects.remove(web.id))
        with asked_by(Principal("token:x", web.id)):
            await s.call(s.engine.cron_runner.remove("job", force=False))
        assert len(s.engine.crons.all()) == 1

    act(scenario)


def test_a_removal_that_hyperd_dies_in_can_be_done_again(act: Any) -> None:
    async def scenario(s: Stage) -> None:
        made(s, "sleep", "1000", schedule="0 * * * *")
        await begin(s)
        await asyncio.sleep(5)
        removal = asyncio.ensure_future(s.call(s.engine.cron_runner.remove("job", force=True)))
        await asyncio.sleep(0.01)
        s.kill()
        removal.cancel()
        await s.open()
        await asyncio.sleep(7200)
        assert s.engine.crons.info("job").paused and len(runs(s)) == 1
        await s.call(s.engine.cron_runner.remove("job", force=True))
        assert there(s) == 0

    act(scenario)


@pytest.mark.parametrize("made_yet", [False, True], ids=["before its container was made", "while it went on"])
def test_a_removal_that_is_given_up_leaves_no_run_that_nobody_follows(act: Any, made_yet: bool) -> None:
    async def scenario(s: Stage) -> None:
        made(s, "sleep", "100", schedule="0 * * * *")
        await begin(s)
        await asyncio.sleep(5 if made_yet else 0)
        assert s.daemon
        removal = s.daemon.call(s.engine.cron_runner.remove("job", force=True))
        await asyncio.sleep(0)
        removal.cancel()
        await asyncio.wait([removal])
        assert removal.cancelled() and s.engine.crons.info("job").paused
        await asyncio.sleep(200)
        ((_, by, code, error),) = runs(s)
        assert (by, code) == ("hand", 0 if made_yet else None) and bool(error) != made_yet, error
        assert s.engine.crons.info("job").runs[0].ended
        await begin(s)  # the next one may
        await s.call(s.engine.cron_runner.remove("job", force=True))
        assert there(s) == 0

    act(scenario)
