# SPDX-License-Identifier: Apache-2.0
"""Waiting for a container that others depend on ends when it crashes over and over."""

from __future__ import annotations

import asyncio
from pathlib import Path
from typing import Any, cast

import msgspec
import pytest

from hypercontainer.engine.registry import Registry
from hypercontainer.engine.startup import Startup
from hypercontainer.errors import InvalidState
from hypercontainer.model.specs import Condition, ContainerSpec, Dependency, HealthCheck
from hypercontainer.model.status import Container, ContainerState, ContainerStatus, Health, Pod, Process
from hypercontainer.state.database import Database


def made(name: str, **fields: Any) -> Container:
    process = Process(args=["x"], env=[], cwd="/", user="", stop_signal=15)
    return Container(
        id=name,
        name=name,
        pod="p",
        created_at=name,
        image="i",
        image_id="i",
        hostname="h",
        process=process,
        spec=ContainerSpec(image="i", name=name),
        log_path="/nonexistent",
        **fields,
    )


async def crash(registry: Registry, times: int) -> None:
    for n in range(times):
        for state in (
            ContainerState(status=ContainerStatus.RESTARTING, exit_code=7, started_at="1", finished_at=f"1:{n}"),
            ContainerState(status=ContainerStatus.RUNNING, started_at=f"2:{n}", finished_at=f"1:{n}", health=Health()),
        ):
            registry.put(msgspec.structs.replace(registry.container("db"), state=state))
            await asyncio.sleep(0)
            await asyncio.sleep(0)


def waiting(registry: Registry, condition: Condition) -> asyncio.Task[None]:
    startup = Startup(registry, cast(Any, None))
    return asyncio.create_task(
        startup._await(registry.container("web"), Dependency(container="db", condition=condition))
    )


@pytest.fixture
def registry(tmp_path: Path) -> Registry:
    found = Registry(Database(tmp_path / "state.db"))
    found.put_pod(Pod(id="p", name="p", created_at="0", hostname="h", vcpus=1, memory=1, started_at="0"))
    found.put(made("db", health=HealthCheck(command=["x"])))
    found.put(made("web"))
    return found


async def test_nobody_waits_for_ever_for_one_that_crashes(registry: Registry) -> None:
    task = waiting(registry, "healthy")
    await crash(registry, 4)
    assert not task.done()
    await crash(registry, 4)  # the same ends again are none
    assert not task.done()
    for n in (8, 9):
        state = ContainerState(status=ContainerStatus.RESTARTING, exit_code=7, finished_at=f"1:{n}")
        registry.put(msgspec.structs.replace(registry.container("db"), state=state))
        await asyncio.sleep(0)
    with pytest.raises(
        InvalidState, match="container web waits for db to be healthy, but it ended 5 times, at last with status 7"
    ):
        await asyncio.wait_for(task, 30)


async def test_one_that_recovers_is_waited_for_and_so_is_a_job(registry: Registry) -> None:
    healthy, completed = waiting(registry, "healthy"), waiting(registry, "completed")
    await crash(registry, 3)
    well = ContainerState(status=ContainerStatus.RUNNING, started_at="3", health=Health(status="healthy"))
    registry.put(msgspec.structs.replace(registry.container("db"), state=well))
    await asyncio.wait_for(healthy, 30)
    await crash(registry, 9)
    assert not completed.done()
    completed.cancel()
