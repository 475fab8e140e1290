# SPDX-License-Identifier: Apache-2.0
"""Machines that stand still for want of space are woken when there is some, and nobody else is asked anything."""

from __future__ import annotations

from pathlib import Path
from types import SimpleNamespace
from typing import Any, cast

from hypercontainer.engine.disk_watch import LOW, DiskWatch
from hypercontainer.engine.events import Events
from hypercontainer.engine.runtime import Runtime
from hypercontainer.errors import Unavailable
from hypercontainer.model.status import Pod, PodVolume


class Machine:
    """As much of one as is asked."""

    def __init__(self, *, broken: bool = False) -> None:
        self.still, self.asked, self.woken, self._broken = False, 0, 0, broken

    async def stalled(self) -> bool:
        self.asked += 1
        if self._broken:
            raise Unavailable("QEMU did not answer")
        return self.still

    async def resume(self) -> None:
        self.still = False
        self.woken += 1


class Host:
    """Pods on two file systems."""

    def __init__(self) -> None:
        self.free = {Path("/root"): 10 * LOW, Path("/data/v.img"): 10 * LOW}
        self.pods: list[tuple[Pod, Runtime]] = []
        self.events = Events()
        self.watch = DiskWatch(Path("/root"), lambda: self.pods, self.events, free=lambda p: self.free[p])

    def pod(self, id_: str, machine: Machine, *volumes: PodVolume) -> Runtime:
        runtime = cast(Any, SimpleNamespace(machine=machine, stalled=False))
        self.pods.append(
            (Pod(id=id_, name=id_, created_at="", hostname="", vcpus=1, memory=1, volumes=list(volumes)), runtime)
        )
        return cast(Runtime, runtime)


async def test_asked_once_when_the_daemon_comes_and_then_only_when_space_is_short() -> None:
    host, machine = Host(), Machine()
    host.pod("a", machine)
    for _ in range(3):
        await host.watch.look()
    assert machine.asked == 1  # an earlier daemon may have left it asleep


async def test_woken_when_there_is_space_and_not_before() -> None:
    host, machine, broken = Host(), Machine(), Machine(broken=True)
    host.pod("broken", broken)
    runtime = host.pod("a", machine)
    host.free[Path("/root")] = 0
    machine.still = True
    for _ in range(2):
        await host.watch.look()
        assert runtime.stalled and machine.woken == 0
    host.free[Path("/root")] = LOW
    await host.watch.look()
    assert not runtime.stalled and machine.woken == 1 and not machine.still
    machine.still = True  # it stopped again, before anybody looked at the space
    await host.watch.look()
    assert machine.woken == 2 and broken.asked >= 3
    await host.watch.look()
    asked = machine.asked
    await host.watch.look()
    assert machine.asked <= asked + 1


async def test_a_volume_on_another_file_system() -> None:
    host, machine, other = Host(), Machine(), Machine()
    volume = PodVolume(name="v", kind="disk", source="/data/v.img")
    host.pod("a", machine, volume)
    host.pod("b", other)
    await host.watch.look()
    host.free[Path("/data/v.img")], machine.still = 0, True
    await host.watch.look()
    assert machine.asked == 2 and other.asked == 1
    host.free[Path("/data/v.img")] = LOW
    await host.watch.look()
    assert machine.woken == 1 and other.asked == 1
