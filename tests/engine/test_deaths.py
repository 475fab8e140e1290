# SPDX-License-Identifier: Apache-2.0
"""The daemon dies just before each change that a verb makes to its host; the next one makes all of it right."""

from __future__ import annotations

import asyncio
from collections.abc import Callable
from typing import Any

import pytest

from hypercontainer.errors import InvalidState
from hypercontainer.model.specs import Dependency
from hypercontainer.protocol.constants import Type

from .deaths import DEATHS, Death
from .scenes import plan, spec
from .stage import Stage
from .trials import Workers, judge


@pytest.mark.parametrize("scene", DEATHS)
def test_a_death_at_every_step(workers: Workers, count: Callable[..., None], scene: str) -> None:
    judge(workers.at_every_step(scene, Death, count), None)


def test_a_pod_whose_machine_ends_while_no_daemon_is_there_to_start_it(act: Any) -> None:
    async def scenario(s: Stage) -> None:
        await s.call(s.engine.pods.create(plan(spec("a"))))
        s.silent.add(Type.PROCESS_START)
        assert s.daemon
        s.daemon.call(s.engine.pods.start("pod"))
        await asyncio.sleep(1)
        s.kill()
        s.silent.clear()
        next(iter(s.host.machines.values())).die()
        await s.open()
        state = s.engine.registry.container("a").state
        assert (state.status, state.starting) == ("exited", False) and s.engine.registry.pod("pod").status == "exited"
        await s.call(s.engine.pods.start("pod"))
        assert s.status("a") == "running"

    act(scenario)


def test_a_pod_without_a_container_that_another_waits_for_says_so(act: Any) -> None:
    async def scenario(s: Stage) -> None:
        await s.call(s.engine.pods.create(plan(spec("a"), spec("b", depends_on=[Dependency(container="a")]))))
        await s.call(s.engine.containers.remove("a"))
        with pytest.raises(InvalidState, match="container b waits for a, which the pod does not have any more"):
            await s.call(s.engine.pods.start("pod"))

    act(scenario)
