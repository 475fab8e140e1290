# SPDX-License-Identifier: Apache-2.0
"""`update`: at once where the container runs, within its machine, and for its next start else."""

from __future__ import annotations

import asyncio
from typing import Any

import msgspec
import pytest

from hypercontainer.engine.resolve import GUEST_RESERVE
from hypercontainer.errors import InvalidArgument, InvalidState, NotFound, Unsupported
from hypercontainer.guest.fake import FakeGuest
from hypercontainer.model.specs import PIDS_MAX, ContainerUpdate, Resources, RestartPolicy
from hypercontainer.protocol.constants import Capability, Tag, Type

from .scenes import plan, spec
from .stage import Stage

MIB = 1 << 20


def given(s: Stage, key: str) -> dict[int, int]:
    """What its guest was told while it ran."""
    id_ = s.engine.registry.container(key).id[:12]
    return s.guest(s.machine(key)).containers[id_].limits


def test_of_what_runs(act: Any) -> None:
    async def scenario(s: Stage) -> None:
        await s.run("a", resources=Resources(memory=256 * MIB, cpus=1))
        update = s.engine.updates.update
        found = await s.call(update("a", ContainerUpdate(memory=128 * MIB, cpus=0.5, pids=9)))
        assert found.spec.resources == Resources(memory=128 * MIB, cpus=0.5, pids=9)
        assert given(s, "a") == {Tag.MEMORY_MAX: 128 * MIB, Tag.CPU_MAX: 50_000, Tag.PIDS_MAX: 9}
        await s.call(update("a", ContainerUpdate(pids=0)))
        assert given(s, "a")[Tag.PIDS_MAX] == 0
        before = s.guest(s.machine("a")).asked.count(Type.CONTAINER_LIMIT)
        await s.call(update("a", ContainerUpdate(restart=RestartPolicy(name="always"))))
        assert s.guest(s.machine("a")).asked.count(Type.CONTAINER_LIMIT) == before  # it is hyperd's own
        await s.call(s.engine.containers.pause("a"))
        await s.call(update("a", ContainerUpdate(memory=200 * MIB)))
        await s.call(s.engine.containers.unpause("a"))
        for change, says in (
            (ContainerUpdate(memory=1024 * MIB), "more than the .* that the virtual machine of a has: stop it first"),
            (ContainerUpdate(cpus=2), "2 CPUs are more than the 1 that the virtual machine of a has"),
        ):
            with pytest.raises(InvalidState, match=says):
                await s.call(update("a", change))
        with pytest.raises(InvalidArgument, match="too small"):
            await s.call(update("a", ContainerUpdate(memory=1)))
        with pytest.raises(NotFound):
            await s.call(update("other", ContainerUpdate(pids=1)))
        record = s.engine.registry.container("a").spec
        assert record.resources == Resources(memory=200 * MIB, cpus=0.5) and record.restart.name == "always"
        assert [e.action for e in s.engine.events.past()].count("update") == 4

    act(scenario)


def test_memory_goes_back(act: Any) -> None:
    """What the containers of a machine may not use any more, as long as each of them has a limit."""

    async def scenario(s: Stage) -> None:
        await s.run("a", resources=Resources(memory=256 * MIB))
        update = s.engine.updates.update
        assert s.machine("a").given_back == 0
        spare = s.machine("a").config.memory - GUEST_RESERVE - 256 * MIB
        await s.call(update("a", ContainerUpdate(memory=64 * MIB)))
        assert s.machine("a").given_back == spare + 192 * MIB
        await s.call(update("a", ContainerUpdate(memory=192 * MIB)))
        assert s.machine("a").given_back == spare + 64 * MIB
        s.machine("a").wedged = True  # its hypervisor takes no orders, and its guest goes on
        await s.call(update("a", ContainerUpdate(memory=32 * MIB)))
        s.machine("a").wedged = False
        assert (given(s, "a")[Tag.MEMORY_MAX], s.machine("a").given_back) == (32 * MIB, spare + 64 * MIB)
        await s.call(update("a", ContainerUpdate(memory=0)))
        assert s.machine("a").given_back == 0

    act(scenario)


def test_a_container_that_comes_later_gets_its_memory(act: Any) -> None:
    async def scenario(s: Stage) -> None:
        pod = await s.call(s.engine.pods.create(plan(spec("b", resources=Resources(memory=128 * MIB)))))
        await s.call(s.engine.pods.start(pod.id))
        await s.call(s.engine.updates.update("b", ContainerUpdate(memory=32 * MIB)))
        assert s.machine("b").given_back >= 96 * MIB
        await s.call(s.engine.containers.create(spec("late", pod=pod.id)))
        await s.call(s.engine.containers.start("late"))
        assert s.machine("b").given_back == 0

    act(scenario)


def test_more_processes_than_there_are_numbers() -> None:
    raw = b'{"pids": %d}'
    assert msgspec.json.decode(raw % PIDS_MAX, type=ContainerUpdate).pids == PIDS_MAX
    for number in (PIDS_MAX + 1, 1 << 64, -1):
        with pytest.raises(msgspec.ValidationError):
            msgspec.json.decode(raw % number, type=ContainerUpdate)


def test_of_what_does_not_run(act: Any) -> None:
    """A machine of its own is as large as it takes at the next start; a pod's is as it was made."""

    async def scenario(s: Stage) -> None:
        await s.create("a", resources=Resources(memory=64 * MIB))
        await s.call(s.engine.updates.update("a", ContainerUpdate(memory=512 * MIB)))
        await s.call(s.engine.containers.start("a"))
        assert s.machine("a").config.memory >= 512 * MIB
        await s.call(s.engine.pods.create(plan(spec("b"))))
        with pytest.raises(InvalidState, match="its pod has no more"):
            await s.call(s.engine.updates.update("b", ContainerUpdate(memory=1024 * MIB)))
        await s.call(s.engine.updates.update("b", ContainerUpdate(memory=32 * MIB)))
        assert s.engine.registry.container("b").spec.resources.memory == 32 * MIB

    act(scenario)


def test_of_what_is_about_to_change(act: Any) -> None:
    async def scenario(s: Stage) -> None:
        await s.run("a", "exit", "3", restart=RestartPolicy(name="always"))
        while s.status("a") != "restarting":
            await asyncio.sleep(0.01)
        with pytest.raises(InvalidState, match="container a is restarting"):
            await s.call(s.engine.updates.update("a", ContainerUpdate(pids=1)))

    act(scenario)


def test_of_a_guest_that_cannot(act: Any) -> None:
    async def scenario(s: Stage) -> None:
        made = s._guest

        def guest(config: Any) -> FakeGuest:
            found = made(config)
            found.capabilities = Capability.FREEZE
            return found

        s.host._guest = guest
        await s.run("a")
        with pytest.raises(Unsupported, match="does not support other limits"):
            await s.call(s.engine.updates.update("a", ContainerUpdate(pids=1)))
        assert s.engine.registry.container("a").spec.resources.pids == 0

    act(scenario)


def test_the_hosts_limits_of_processors(act: Any) -> None:
    """While a machine boots it has all of its own and one more; then what its containers want, and a quarter."""

    async def scenario(s: Stage) -> None:
        await s.run("a", resources=Resources(cpus=0.5))
        (name,) = s.groups.groups
        before = s.groups.groups[name]
        assert before.cpus == 0.75 and before.memory and before.tasks
        await s.call(s.engine.updates.update("a", ContainerUpdate(cpus=1)))
        assert s.groups.groups[name].cpus == 1.25
        assert (s.groups.groups[name].memory, s.groups.groups[name].tasks) == (before.memory, before.tasks)
        await s.run("b")
        assert sorted(b.cpus or 0 for b in s.groups.groups.values()) == [1.25, 2.0]  # who asks for nothing

    act(scenario)
