# SPDX-License-Identifier: Apache-2.0
"""Pods with PCI devices of the host: one has a device at a time, and it is free after each end."""

from __future__ import annotations

import asyncio
from collections.abc import Awaitable, Callable
from pathlib import Path
from typing import Any

import pytest

from hypercontainer.engine import machinery
from hypercontainer.errors import Conflict, InvalidArgument, NotFound, Unavailable, Unsupported
from hypercontainer.hypervisor.driver import Disk
from hypercontainer.hypervisor.drivers import Drivers
from hypercontainer.hypervisor.fake import FakeDriver
from hypercontainer.model.pods import PodPlan, PodSpec
from tests.unit.test_pci import NIC, TWIN, Host, rebind

from .scenes import spec
from .stage import Stage, play, stage, whole

Scenario = Callable[[Stage], Awaitable[None]]
OTHER = "0000:02:00.0"


@pytest.fixture
def bus(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Host:
    made = Host(tmp_path / "bus")
    for address, group in ((NIC, 7), (TWIN, 7), (OTHER, 9)):
        made.add(address, "vfio-pci", group)
        (made.nodes / str(group)).touch()
    monkeypatch.setattr(machinery, "PciBus", lambda: made.bus)
    return made


@pytest.fixture
def act(template: Path, bus: Host) -> Callable[[Scenario], None]:
    def acted(scenario: Scenario) -> None:
        with stage(template) as s:
            s.drivers = lambda: Drivers([FakeDriver(s.host), FakeDriver(s.host, "poor", takes=frozenset({Disk}))])
            play(s, whole(scenario))

    return acted


def given(s: Stage, name: str) -> list[str]:
    return [d.address for d in s.machine(name).config.devices]


def test_one_pod_at_a_time(act: Any) -> None:
    async def scenario(s: Stage) -> None:
        await s.run("a", "sleep", "100", devices=[NIC, "/dev/vfio/7"])
        assert given(s, "a") == [NIC, TWIN]  # each once
        assert s.engine.registry.pod("a").vm.devices == {NIC: 7, TWIN: 7}  # type: ignore[union-attr]
        await s.create("b", "sleep", "100", devices=[TWIN])
        with pytest.raises(Conflict, match=f"the PCI device {TWIN} is in use by the running pod a: stop that pod"):
            await s.call(s.engine.containers.start("b"))
        await s.run("c", "sleep", "100", devices=[OTHER])
        s.kill()
        await s.open()  # its record tells
        with pytest.raises(Conflict, match="by the running pod a"):
            await s.call(s.engine.containers.start("b"))
        await s.call(s.engine.containers.kill("a", "KILL"))
        await s.call(s.engine.containers.wait("a"))
        await s.call(s.engine.containers.start("b"))
        assert given(s, "b") == [TWIN]

    act(scenario)


def test_a_start_that_fails_has_none(act: Any, bus: Host, monkeypatch: pytest.MonkeyPatch) -> None:
    async def refused(*_: Any) -> None:
        raise Unavailable("no more machines")

    async def scenario(s: Stage) -> None:
        await s.create("a", "sleep", "100", devices=[NIC])
        with monkeypatch.context() as patched:
            patched.setattr(FakeDriver, "launch", refused)
            with pytest.raises(Unavailable, match="no more machines"):
                await s.call(s.engine.containers.start("a"))
        await s.run("b", "sleep", "100", devices=[NIC])
        rebind(bus, OTHER, "nvme")
        await s.create("c", "sleep", "100", devices=[OTHER])
        with pytest.raises(Unavailable, match="is the driver nvme's"):
            await s.call(s.engine.containers.start("c"))
        with pytest.raises(NotFound, match="this host has no PCI device 0000:77:00.0"):
            await s.run("d", "sleep", "100", devices=["0000:77:00.0"])

    act(scenario)


def test_who_cannot_is_told_before_anything_is_made(act: Any) -> None:
    async def scenario(s: Stage) -> None:
        with pytest.raises(Unsupported, match="does not support passthrough of PCI devices: the driver 'fake' do"):
            await s.create("a", "true", driver="poor", devices=[NIC], network="none")
        plan = PodPlan(name="p", spec=PodSpec(devices=[NIC]), containers=[spec("p-a")])
        await s.call(s.engine.pods.create(plan))
        with pytest.raises(InvalidArgument, match="devices of this host are the pod's, not a container's in it"):
            await s.create("b", "true", devices=[OTHER], pod="p")
        await s.call(s.engine.pods.start("p"))
        assert given(s, "p") == [NIC]
        assert [c.name for c in s.engine.registry.containers()] == ["p-a"]

    act(scenario)


def test_no_machine_of_the_factory(template: Path, bus: Host) -> None:
    async def scenario(s: Stage) -> None:
        await s.run("a", "sleep", "1000")
        await asyncio.sleep(60)  # a template is made, a machine waits
        await s.run("b", "sleep", "1000", devices=[NIC])
        assert s.engine.factory.started == {"cold": 2, "clone": 0, "pool": 0}
        await s.call(s.engine.factory.drain(templates=True))

    with stage(template, factory=True) as s:
        play(s, whole(scenario))
