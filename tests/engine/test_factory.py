# SPDX-License-Identifier: Apache-2.0
"""Machines that start from what was saved, and those that wait, with drivers and guests that are objects."""

from __future__ import annotations

import asyncio
from collections.abc import Awaitable, Callable
from functools import partial
from pathlib import Path

import pytest

from hypercontainer.engine.factory.shapes import SLOTS
from hypercontainer.errors import InvalidState, NotFound, Unsupported
from hypercontainer.hypervisor.drivers import Drivers
from hypercontainer.hypervisor.facets import Reconfigure
from hypercontainer.hypervisor.fake_saving import SavingDriver, SavingMachine
from hypercontainer.model.factory import WarmRequest
from hypercontainer.model.specs import Mount

from .stage import Stage, play, stage, whole

Scenario = Callable[[Stage], Awaitable[None]]
MEMORY = 64 << 20
SOON = 120.0  # virtual seconds in which templates and what waits are made


@pytest.fixture
def act(template: Path) -> Callable[[Scenario], None]:
    """A daemon with a factory; at the end nothing of it is left."""

    def acted(scenario: Scenario) -> None:
        with stage(template, factory=True) as s:
            play(s, whole(scenario))
            assert not list(s.paths.waiting.iterdir()) and not s.host.machines

    return acted


async def runs(s: Stage, name: str) -> dict[str, int]:
    """How machines have started once this one runs."""
    await s.run(name)
    assert s.status(name) == "running"
    return s.engine.factory.started


def test_the_first_is_booted_and_the_next_comes_from_the_pool(act: Callable[[Scenario], None]) -> None:
    async def scenario(s: Stage) -> None:
        assert await runs(s, "a") == {"pool": 0, "clone": 0, "cold": 1}
        await asyncio.sleep(SOON)
        status = s.engine.factory.status()
        assert status.templates and sum(p.waiting for p in status.pool) == 1
        assert await runs(s, "b") == {"pool": 1, "clone": 0, "cold": 1}
        guest = s.guest(s.machine("b"))
        assert list(guest.containers) == [s.engine.registry.container("b").id[:12]]  # the prepared one has its id
        await s.call(s.engine.containers.stop("b", 0))
        await s.call(s.engine.containers.start("b"))
        assert s.status("b") == "running"

    act(scenario)


def test_without_a_machine_that_waits_one_goes_on_from_the_template(act: Callable[[Scenario], None]) -> None:
    async def scenario(s: Stage) -> None:
        await runs(s, "a")
        await asyncio.sleep(SOON)
        await s.call(s.engine.factory.drain(templates=False))
        assert (await runs(s, "b"))["clone"] == 1
        await s.run("c", mounts=[Mount(target="/data", source="vol")])  # not plain: the generic one, or booted
        assert s.status("c") == "running"

    act(scenario)


def test_a_driver_whose_machines_cannot_wait_has_templates_only(template: Path) -> None:
    """Each start is a clone, and nothing is kept ready that could not be used."""

    async def scenario(s: Stage) -> None:
        await runs(s, "a")
        await asyncio.sleep(SOON)
        assert await runs(s, "b") == {"pool": 0, "clone": 1, "cold": 1}
        await asyncio.sleep(SOON)
        status = s.engine.factory.status()
        assert status.templates and status.pool == []
        with pytest.raises(Unsupported, match="'stiff' does not support virtual machines that wait for a pod"):
            await s.call(s.engine.warm(WarmRequest(count=1)))

    def drivers(s: Stage) -> Drivers:
        driver = SavingDriver(s.host, "stiff")
        driver.facets -= {Reconfigure}
        return Drivers([driver])

    with stage(template, factory=True) as s:
        s.drivers = partial(drivers, s)
        play(s, whole(scenario))


def test_a_guest_that_knows_its_disks_by_other_names(
    act: Callable[[Scenario], None], monkeypatch: pytest.MonkeyPatch
) -> None:
    """As Firecracker's do, which have no serial numbers: a container that is built ahead is told these names, too."""
    named = {slot: f"dev:{slot}" for slot in SLOTS}
    monkeypatch.setattr(SavingMachine, "names", named)

    async def scenario(s: Stage) -> None:
        await runs(s, "a")
        await asyncio.sleep(SOON)
        assert (await runs(s, "b"))["pool"] == 1
        (made,) = s.guest(s.machine("b")).containers.values()
        assert (made.image_disk, made.scratch_disk) == ("dev:image", "dev:scratch")

    act(scenario)


def test_a_snapshot_that_is_of_no_use_is_made_again(act: Callable[[Scenario], None]) -> None:
    async def scenario(s: Stage) -> None:
        await runs(s, "a")
        await asyncio.sleep(SOON)
        await s.call(s.engine.factory.drain(templates=False))
        s.host.saved.clear()
        assert await runs(s, "b") == {"pool": 0, "clone": 0, "cold": 2}
        await asyncio.sleep(SOON)
        await s.call(s.engine.factory.drain(templates=False))
        assert (await runs(s, "c"))["clone"] == 1

    act(scenario)


def test_the_next_daemon_has_the_templates_of_the_one_before(act: Callable[[Scenario], None]) -> None:
    async def scenario(s: Stage) -> None:
        await runs(s, "a")
        await asyncio.sleep(SOON)
        saved = len(s.host.saved)
        await s.close(keep_running=True)
        await s.open()
        assert s.status("a") == "running" and len(s.host.machines) == 1  # what waited has ended
        await runs(s, "b")
        await asyncio.sleep(SOON)
        assert len(s.host.saved) == saved and s.engine.factory.status().templates

    act(scenario)


def test_machines_wait_as_soon_as_they_are_asked_for(act: Callable[[Scenario], None]) -> None:
    async def scenario(s: Stage) -> None:
        status = await s.call(s.engine.warm(WarmRequest(memory=MEMORY, cpus=1, count=2)))
        assert [(p.waiting, p.target) for p in status.pool] == [(2, 2)]
        with pytest.raises(InvalidState, match="machines fit into the pool's memory"):
            await s.call(s.engine.warm(WarmRequest(memory=MEMORY, cpus=1, count=1000)))
        assert await s.call(s.engine.factory.drain(templates=True)) == 2
        with pytest.raises(NotFound):
            await s.call(s.engine.warm(WarmRequest(memory=MEMORY, cpus=1, count=1, network="nowhere")))

    act(scenario)
