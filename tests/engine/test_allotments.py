# SPDX-License-Identifier: Apache-2.0
"""What each machine has of its host for itself, from before its launch until its end."""

from __future__ import annotations

from typing import Any

import pytest

from hypercontainer.errors import Unavailable
from hypercontainer.jail.control_groups import Budget
from hypercontainer.model.specs import Resources
from hypercontainer.model.status import ContainerStatus

from .stage import Stage


def test_a_machine_has_a_group_until_it_ends(act: Any) -> None:
    async def scenario(s: Stage) -> None:
        id_ = await s.run("a", resources=Resources(memory=256 << 20))
        pod = s.engine.registry.pod(s.engine.registry.container(id_).pod)
        assert pod.vm and list(s.groups.groups) == [pod.vm.allotment]
        assert s.groups.groups[pod.vm.allotment].memory == pod.memory + (64 << 20)
        assert s.machine("a").config.control_groups
        await s.call(s.engine.containers.stop(id_))
        assert s.groups.groups == {}

    act(scenario)


def test_without_a_group_there_is_no_machine(act: Any) -> None:
    async def scenario(s: Stage) -> None:
        s.groups.trouble = "there is no room for groups"
        with pytest.raises(Unavailable, match="no room for groups"):
            await s.run("a")
        assert s.host.machines == {}

    act(scenario)


def test_a_machine_for_which_the_host_had_no_memory(act: Any) -> None:
    async def scenario(s: Stage) -> None:
        id_ = await s.run("a")
        s.groups.starved.update(s.groups.groups)
        s.machine("a").die()
        await s.call(s.engine.containers.supervisor(s.engine.registry.container(id_)).stopped.wait())
        state = s.engine.registry.container(id_).state
        assert state.status is ContainerStatus.EXITED
        assert "reached this host's limit of memory for its virtual machine" in state.error

    act(scenario)


def test_the_next_daemon_keeps_those_of_machines(act: Any) -> None:
    async def scenario(s: Stage) -> None:
        await s.run("a")
        await s.run("b")
        before = dict(s.groups.groups)
        s.kill()
        s.groups.groups["pool-0.1"] = Budget()  # of a machine that waited, and ended with its daemon
        next(iter(s.host.machines.values())).die()
        await s.open()
        await s.check()
        assert len(s.groups.groups) == 1 and set(s.groups.groups) < set(before)

    act(scenario)
