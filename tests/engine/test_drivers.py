# SPDX-License-Identifier: Apache-2.0
"""Sandboxes of several drivers in one daemon, and what a driver cannot do."""

from __future__ import annotations

import os
from collections.abc import Awaitable, Callable
from pathlib import Path
from typing import Any

import pytest

from hypercontainer.errors import InvalidArgument, InvalidState, NotFound, Unsupported
from hypercontainer.hypervisor.driver import Disk, Probe
from hypercontainer.hypervisor.drivers import Drivers
from hypercontainer.hypervisor.fake import FakeDriver
from hypercontainer.model.pods import PodPlan, PodSpec
from hypercontainer.model.specs import ContainerSpec, PortMapping

from .stage import IMAGE, Stage, play, stage, whole

Scenario = Callable[[Stage], Awaitable[None]]
SLEEPER = ContainerSpec(image=IMAGE, name="b", command=["sleep", "100"])


@pytest.fixture
def act(template: Path) -> Callable[..., None]:
    """A daemon with three drivers: one that can all, one whose machines have no facets, one that takes disks only."""

    def acted(scenario: Scenario) -> None:
        with stage(template) as s:
            s.drivers = lambda: Drivers(
                [
                    FakeDriver(s.host),
                    FakeDriver(s.host, "bare", bare=True),
                    FakeDriver(s.host, "poor", takes=frozenset({Disk})),
                ]
            )
            play(s, whole(scenario))

    return acted


def test_each_sandbox_has_the_driver_that_it_names(act: Any) -> None:
    async def scenario(s: Stage) -> None:
        await s.run("a", "sleep", "100")
        await s.run("b", "sleep", "100", driver="bare")
        assert (s.machine("a").driver, s.machine("b").driver) == ("fake", "bare")
        registry = s.engine.registry
        pods = [registry.pod(registry.container(n).pod) for n in ("a", "b")]
        assert [p.spec.driver for p in pods] == [p.vm and p.vm.driver for p in pods] == ["fake", "bare"]

    act(scenario)


def test_the_next_daemon_finds_each_by_its_driver(act: Any) -> None:
    async def scenario(s: Stage) -> None:
        await s.run("a", "sleep", "100")
        await s.run("b", "sleep", "100", driver="bare")
        pids = {s.machine(n).pid for n in ("a", "b")}
        s.kill()
        await s.open()
        assert {s.machine(n).pid for n in ("a", "b")} == pids
        assert (s.status("a"), s.status("b")) == ("running", "running")

    act(scenario)


def test_a_driver_that_there_is_not(act: Any) -> None:
    async def scenario(s: Stage) -> None:
        with pytest.raises(InvalidArgument, match="there is no driver 'xen': this hyperd has fake, bare, poor"):
            await s.create("a", "true", driver="xen")
        plan = PodPlan(name="p", spec=PodSpec(driver="xen"), containers=[SLEEPER])
        with pytest.raises(InvalidArgument, match="there is no driver 'xen'"):
            await s.call(s.engine.pods.create(plan))
        assert s.engine.registry.containers() == [] and s.engine.registry.pods() == []
        assert await s.create("a", "true")  # its name is free

    act(scenario)


def test_what_a_driver_does_not_take_is_refused_before_anything_is_taken(act: Any) -> None:
    async def scenario(s: Stage) -> None:
        ports = [PortMapping(container_port=80, host_port=8080)]
        what = "'poor' does not support a user-mode network of its own: the driver 'fake' does: use --driver fake"
        with pytest.raises(Unsupported, match=what):
            await s.create("a", "sleep", "100", driver="poor", network="user", ports=ports)
        assert s.host.launched == 0 and s.engine.registry.containers() == []
        await s.run("b", "sleep", "100", network="user", ports=ports)  # the port is free
        await s.run("c", "sleep", "100", driver="poor", network="none")

    act(scenario)


def test_what_a_machine_cannot_do_is_refused_with_its_drivers_name(act: Any) -> None:
    async def scenario(s: Stage) -> None:
        pod = await s.call(s.engine.pods.create(PodPlan(name="p", spec=PodSpec(driver="bare"), containers=[SLEEPER])))
        await s.call(s.engine.pods.start(pod.id))
        with pytest.raises(Unsupported, match="the driver 'bare' does not support pausing a virtual machine"):
            await s.call(s.engine.pods.pause("p"))
        with pytest.raises(
            Unsupported, match="'bare' does not support publishing ports of a virtual machine that runs"
        ):
            await s.call(s.engine.pods.add_ports("p", [PortMapping(container_port=80, host_port=8081)]))
        assert s.engine.registry.pod("p").ports == []
        await s.create("late", "sleep", "100", pod="p")
        with pytest.raises(Unsupported, match="'bare' does not support adding disks"):
            await s.call(s.engine.containers.start("late"))
        assert s.status("b") == "running"

    act(scenario)


def test_a_machine_goes_on_while_a_daemon_has_not_its_driver(template: Path) -> None:
    """Its record is set aside, and named; a daemon that has the driver takes both up again."""

    async def scenario(s: Stage) -> None:
        both = s.drivers = lambda: Drivers([FakeDriver(s.host), FakeDriver(s.host, "bare", bare=True)])
        await s.open()
        await s.run("a", "sleep", "1000")
        id_ = await s.run("other", "sleep", "1000", driver="bare")
        pids = {n: s.machine(n).pid for n in ("a", "other")}
        for _ in range(2):
            s.kill()
            s.drivers = lambda: Drivers([FakeDriver(s.host)])
            await s.open()
            assert s.status("a") == "running" and set(s.host.machines) == set(pids.values())
            with pytest.raises(NotFound, match="no such container: other") as error:
                s.status("other")
            assert f"(process {pids['other']}) is of the driver 'bare', which this hyperd has not" in str(error.value)
            failed = [c.found for c in await s.call(s.engine.doctor()) if c.status == "fail" and c.name == "state"]
            assert len(failed) == 2 and all("of the driver 'bare'" in found for found in failed)
        s.engine.registry.undriven[id_] = os.getpid()  # those of the fake are no processes
        with pytest.raises(InvalidState, match="no driver that could end its virtual machine"):
            await s.call(s.engine.forget("other"))
        await s.run("c", "sleep", "1000")
        s.kill()
        s.drivers = both
        await s.open()
        assert {n: s.machine(n).pid for n in ("a", "other")} == pids
        assert s.status("other") == "running" and s.engine.registry.container("other").id == id_
        assert s.engine.registry.set_aside == []
        await s.check()
        await s.clear()
        await s.close()

    with stage(template) as s:
        play(s, scenario)


def test_a_machine_of_a_record_that_is_found_elsewhere_goes_on(act: Any) -> None:
    """Its directory has vanished, and with it the name that it got when it became a pod's."""

    async def scenario(s: Stage) -> None:
        await s.run("a", "sleep", "1000")
        machine = s.machine("a")
        directory = machine.directory
        s.kill()
        machine.directory = directory.with_name("pool-0")
        await s.open()
        machine.directory = directory
        assert s.machine("a").pid == machine.pid and s.status("a") == "running"

    act(scenario)


class TrialDriver(FakeDriver):
    """One that may find another accelerator when it is asked again."""

    accelerator = "tcg"
    closed = False

    async def probe(self) -> Probe:
        return Probe(self.accelerator, "it is tried")

    async def try_again(self) -> Probe:
        self.accelerator = "kvm"
        return await self.probe()

    async def close(self) -> None:
        self.closed = True


def test_an_accelerator_is_tried_again_when_doctor_is_told_to(template: Path) -> None:
    async def scenario(s: Stage) -> None:
        driver = s.engine.drivers.default
        for probe, found in ((False, "tcg: it is tried"), (True, "kvm: it is tried"), (True, "kvm: it is tried")):
            checks = await s.call(s.engine.doctor(probe=probe))
            assert [c.found for c in checks if c.name == "accelerator"] == [found]
        await s.close()
        assert isinstance(driver, TrialDriver) and driver.closed
        await s.open()

    with stage(template) as s:
        s.drivers = lambda: Drivers([TrialDriver(s.host)])
        play(s, whole(scenario))
