# SPDX-License-Identifier: Apache-2.0
"""Machines whose connections break when they are saved, over fakes: what goes on, by another connection."""

from __future__ import annotations

import os
from collections.abc import Callable
from typing import Any

import pytest

from hypercontainer.engine.forks import suspending
from hypercontainer.errors import NoSpace
from hypercontainer.hypervisor.fake_saving import SeveringDriver
from hypercontainer.model.snapshots import ForkRequest, SnapshotRequest
from hypercontainer.model.specs import ExecSpec

from . import stage
from .stage import Stage


@pytest.fixture
def severing(act: Any, monkeypatch: pytest.MonkeyPatch) -> Callable[[Any], None]:
    """Play a scenario on a host whose driver saves such machines."""
    monkeypatch.setattr(stage, "SavingDriver", SeveringDriver)
    return lambda scenario: act(scenario, factory=True)


async def ends(s: Stage) -> int:
    """The status of a command in the pod."""
    exec_ = s.engine.execs.create("a", ExecSpec(command=["true"]))
    await s.call(s.engine.execs.start(exec_))
    await s.call(exec_.ended.wait())
    assert exec_.exit_code is not None
    return exec_.exit_code


def thawed(s: Stage) -> bool:
    return all(c.frozen is None for c in s.guest(s.machine("a")).containers.values())


def test_it_runs_on_by_another_connection(severing: Any) -> None:
    """However often it is saved: these are no connections that were lost."""

    async def scenario(s: Stage) -> None:
        id_ = await s.run("a", "sleep", "1000")
        before = s.engine.containers.runtime(s.engine.registry.container(id_))
        assert before
        for number in range(7):
            agent = before.agent
            await s.call(s.engine.snapshots.fork("a", ForkRequest(name=f"f{number}")))
            assert before.agent is not agent and before.agent.alive and not before.severed
            assert thawed(s) and s.status("a") == "running" and await ends(s) == 0
        await s.call(s.engine.snapshots.create(SnapshotRequest(pod="a", name="shot")))
        assert s.engine.containers.runtime(s.engine.registry.container(id_)) is before and await ends(s) == 0

    severing(scenario)


def test_it_is_suspended_and_resumed(severing: Any) -> None:
    async def scenario(s: Stage) -> None:
        await s.run("a", "sleep", "1000")
        await s.call(s.engine.suspensions.suspend("a"))
        assert s.status("a") == "suspended"
        await s.call(s.engine.suspensions.resume("a"))
        assert thawed(s) and await ends(s) == 0

    severing(scenario)


def test_one_that_could_not_be_suspended_runs_on(severing: Any, monkeypatch: pytest.MonkeyPatch) -> None:
    """Its programs go on by another connection, which is heard when it is lost."""

    async def scenario(s: Stage) -> None:
        id_ = await s.run("a", "sleep", "1000")

        def full(path: Any) -> None:
            raise OSError(28, os.strerror(28))

        with monkeypatch.context() as patched:
            patched.setattr(suspending, "_sync", full)
            with pytest.raises(NoSpace):
                await s.call(s.engine.suspensions.suspend("a"))
        runtime = s.engine.containers.runtime(s.engine.registry.container(id_))
        assert runtime and runtime.agent.alive and s.status("a") == "running"
        assert thawed(s) and await ends(s) == 0
        runtime.renewed.clear()
        runtime.agent.drop()
        await s.call(runtime.renewed.wait())
        assert await ends(s) == 0

    severing(scenario)
