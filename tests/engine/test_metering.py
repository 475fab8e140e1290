# SPDX-License-Identifier: Apache-2.0
"""What is used, by a daemon that comes and goes: on a virtual clock, so sums are exact."""

from __future__ import annotations

import asyncio
import os
from collections.abc import Callable
from typing import Any
from unittest import mock

import pytest

from hypercontainer.engine.metering.measures import Counter
from hypercontainer.engine.principal import asked_by
from hypercontainer.errors import InvalidArgument, NotFound, PermissionDenied
from hypercontainer.images.progress import Progress
from hypercontainer.model.metering import Open
from hypercontainer.model.pods import VolumeSpec
from hypercontainer.model.principal import Principal, widened
from hypercontainer.model.specs import ContainerSpec
from hypercontainer.model.tenancy import OrganisationRequest, ProjectRequest
from hypercontainer.model.volume_snapshots import VolumeSnapshotRequest
from hypercontainer.sys import clock

from .stage import BEGINNING, IMAGE, Stage

ALL = 2**61


def used(s: Stage, *by: str, organisation: str = "") -> dict[tuple[str, ...], int]:
    found = s.engine.accounts.usage(0, ALL, by, organisation)  # type: ignore[arg-type]
    return {(*(getattr(r, b) for b in by), r.kind): r.quantity for r in found.rows}


def pods_now(s: Stage) -> list[Open]:
    return [o for o in s.engine.accounts.meter.used_now() if o.subject.kind == "pod"]


async def run_as(who: Principal, s: Stage, name: str) -> None:
    with asked_by(who):
        container = await s.engine.containers.create(ContainerSpec(image=IMAGE, name=name))
        await s.engine.containers.start(container.id)


async def remove_as(who: Principal, s: Stage, name: str) -> None:
    with asked_by(who):
        await s.engine.containers.remove(name, force=True)


def between(s: Stage, begin: str, end: str) -> int:
    """Milliseconds between two events."""
    times = {e.action: e.time_nano for e in s.engine.events.past()}
    return (times[end] - times[begin]) // 10**6


def test_a_run_over_the_death_of_hyperd_is_the_difference_of_its_events(act: Callable[..., None]) -> None:
    async def scenario(s: Stage) -> None:
        id_ = await s.run("a")
        await asyncio.sleep(12.5)
        s.kill()
        await asyncio.sleep(7)  # it goes on
        await s.open()
        await asyncio.sleep(30)
        before = used(s)["pod",]
        await asyncio.sleep(1.25)
        assert used(s)["pod",] - before == 1250
        await s.call(s.engine.containers.remove(id_, force=True))
        await asyncio.sleep(10)
        pods = [u for u in s.engine.registry.journal.database.uses(0, 2**40) if u.subject.kind == "pod"]
        (entry,) = pods
        assert entry.lasted == entry.run == used(s)["pod",]
        assert abs(entry.lasted - between(s, "start", "die")) < 300  # the machine is there a little longer

    act(scenario, metering=True)


@pytest.mark.parametrize("wrote_at", [10, 195])
def test_a_machine_that_ends_without_hyperd_is_used_until_it_was_seen_last(
    act: Callable[..., None], wrote_at: int
) -> None:
    async def scenario(s: Stage) -> None:
        id_ = await s.run("a")
        began = pods_now(s)[0].since.wall
        await asyncio.sleep(200)
        s.kill()
        next(iter(s.host.machines.values())).die()
        wrote = BEGINNING + wrote_at * 10**9
        os.utime(s.paths.scratch(id_), ns=(wrote, wrote))
        await asyncio.sleep(3600)
        await s.open()
        lasted = used(s)["pod",]
        if wrote_at == 195:
            assert lasted == wrote // 10**6 - began
        else:
            assert 120_000 <= lasted <= 200_000  # a moment is marked once a minute

    act(scenario, metering=True)


def test_bytes_of_a_pod_that_is_suspended_and_goes_on_are_counted_once(act: Callable[..., None]) -> None:
    """Its tap is another one then, which counts from the beginning under the same name."""

    async def scenario(s: Stage) -> None:
        counters: dict[str, Counter] = {}
        s.engine.accounts._watch._read = lambda: counters
        id_ = await s.run("a")
        await asyncio.sleep(1)
        (pod,) = s.engine.registry.pods()
        assert pod.vm
        tap = next(iter(pod.vm.nics))
        counters[tap] = Counter(5, 100)
        await s.call(s.engine.suspensions.suspend(pod.id))
        counters.clear()
        assert used(s)["egress",] == 100
        await s.call(s.engine.suspensions.resume(pod.id))
        counters[tap] = Counter(6, 250)
        await asyncio.sleep(700)
        assert used(s)["egress",] == 350
        counters[tap] = Counter(6, 251)
        await s.call(s.engine.containers.remove(id_, force=True))
        assert used(s)["egress",] == 351

    act(scenario, metering=True, network="bridge", factory=True)


def test_storage_is_used_as_long_as_it_is_there(act: Callable[..., None]) -> None:
    async def scenario(s: Stage) -> None:
        await s.call(s.engine.volumes.create(VolumeSpec(name="v", driver="block", size=64 << 20)))
        await asyncio.sleep(100)
        s.kill()
        await asyncio.sleep(100)
        await s.open()
        assert abs(used(s)["volume",] - 64 * 200_000) <= 64 * 1000
        await s.call(s.engine.volumes.remove("v"))
        after = used(s)["volume",]
        await asyncio.sleep(100)
        assert used(s)["volume",] == after
        await asyncio.sleep(700)
        assert used(s)["image",] > 0

    act(scenario, metering=True)


def test_a_snapshot_of_a_volume_is_used_as_one_of_a_pod(act: Callable[..., None]) -> None:
    async def scenario(s: Stage) -> None:
        await s.call(s.engine.volumes.create(VolumeSpec(name="v")))
        with open(s.engine.registry.volume("v").path, "r+b") as file:
            file.write(os.urandom(3 << 20))
        request = VolumeSnapshotRequest(volume="v", name="shot")
        await s.call(s.engine.volume_snapshots.create(request, Progress()))
        await asyncio.sleep(110)
        assert 3 * 100_000 <= used(s)["snapshot",] <= 5 * 110_000
        await s.call(s.engine.volume_snapshots.remove("shot"))
        await asyncio.sleep(10)
        after = used(s)["snapshot",]
        await asyncio.sleep(100)
        assert used(s)["snapshot",] == after

    act(scenario, metering=True)


def test_use_is_a_projects_and_is_told_to_its_organisation(act: Callable[..., None]) -> None:
    async def scenario(s: Stage) -> None:
        organisations, projects = s.engine.tenancy.organisations, s.engine.tenancy.projects
        for name in ("red", "blue"):
            organisations.create(OrganisationRequest(name=name))
            projects.create(ProjectRequest(name=f"{name}-web", organisation=name))
        red, blue = (p.id for p in (projects.inspect("red-web"), projects.inspect("blue-web")))
        s.give_image(red)
        await s.run("nobodys")
        await s.call(run_as(Principal("token:1", red), s, "a"))
        await asyncio.sleep(10)
        of_pods = [key for key in used(s, "organisation", "project", "size") if key[-1] == "pod"]
        assert of_pods == [("red", "red-web", "1x256", "pod")]
        assert used(s, organisation="blue") == {}
        for scopes, allowed in ((["audit"], True), (["read"], False)):
            with asked_by(Principal("token:1", red, widened(scopes))):  # type: ignore[arg-type]
                assert set(used(s)) >= {("pod",)}
                if allowed:
                    assert set(used(s, organisation="red")) >= {("pod",)}
                else:
                    with pytest.raises(PermissionDenied):
                        used(s, organisation="red")
                with pytest.raises(NotFound):
                    used(s, organisation="blue")
        with asked_by(Principal("token:2", blue, widened(["audit"]))):
            assert used(s) == {}
        for scope in ("read", "audit"):  # of no project, and not the administrator's
            with asked_by(Principal("token:3", scopes=widened([scope]))):  # type: ignore[list-item]
                assert used(s) == {}
        with pytest.raises(InvalidArgument, match="colour"):
            used(s, "colour")
        await s.call(remove_as(Principal("token:1", red), s, "a"))

    act(scenario)


def test_images_of_the_last_project_are_used_no_longer_than_it_is_there(act: Callable[..., None]) -> None:
    async def scenario(s: Stage) -> None:
        organisations, projects = s.engine.tenancy.organisations, s.engine.tenancy.projects
        organisations.create(OrganisationRequest(name="red"))
        s.give_image(projects.create(ProjectRequest(name="web", organisation="red")).id)
        await asyncio.sleep(700)
        assert used(s, organisation="red")["image",] > 0
        await s.call(projects.remove("web"))
        await asyncio.sleep(10)
        after = used(s, organisation="red")
        await asyncio.sleep(3600)
        assert used(s, organisation="red") == after and not s.engine.accounts.meter.used_now()

    act(scenario)


def test_a_volume_that_goes_while_it_is_measured_is_used_no_more(act: Callable[..., None]) -> None:
    async def scenario(s: Stage) -> None:
        await s.call(s.engine.volumes.create(VolumeSpec(name="v", driver="directory")))
        measures = s.engine.accounts._watch._measures
        measure, (volume,) = measures._measure, s.engine.registry.volumes()

        def slowly(*of: Any) -> Any:
            found = measure(*of)
            loop.call_soon_threadsafe(s.engine.registry.remove_volume, volume)
            return found

        loop = asyncio.get_running_loop()
        with mock.patch.object(measures, "_measure", slowly):
            assert [of.kind for of in await measures.look()] == ["image"]
        s.engine.registry.put_volume(volume)  # its directory is there still

    act(scenario, metering=True)


def test_a_daemon_that_meters_nothing_writes_nothing(act: Callable[..., None]) -> None:
    async def scenario(s: Stage) -> None:
        await s.run("a")
        await asyncio.sleep(100)
        database = s.engine.registry.journal.database
        assert (used(s), database.last_use(), database.metered()) == ({}, 0, {})

    act(scenario)


def test_a_day_ends(act: Callable[..., None]) -> None:
    async def scenario(s: Stage) -> None:
        await s.run("a")  # at 22:13:20
        (of,) = pods_now(s)
        await asyncio.sleep(7200)
        first = 86_400_000 - of.since.wall % 86_400_000
        found = {day: n for (day, kind), n in used(s, "day").items() if kind == "pod"}
        assert found == {"2023-11-14": first, "2023-11-15": clock.now_ns() // 10**6 - of.since.wall - first}
        assert pods_now(s)[0].since.wall > of.since.wall + first  # what was before is in the ledger

    act(scenario, metering=True)


def test_images_are_used_under_their_names(act: Callable[..., None]) -> None:
    async def scenario(s: Stage) -> None:
        await asyncio.sleep(1)
        images = [o.subject for o in s.engine.accounts.meter.used_now() if o.subject.kind == "image"]
        assert [f"docker.io/library/{i.name}" for i in images] == [IMAGE] or images

    act(scenario, metering=True)
