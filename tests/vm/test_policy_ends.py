# SPDX-License-Identifier: Apache-2.0
"""Ends that come while a container's policy starts it again, on real machines."""

from __future__ import annotations

import asyncio

import pytest

from hypercontainer.engine.build import Builder
from hypercontainer.guest.process import GuestProcessHandle
from hypercontainer.hyperd.config import Config
from hypercontainer.model.specs import RestartPolicy
from hypercontainer.model.status import ContainerStatus

from .conftest import DEADLINE, Lab, machines

_ONCE = "test -e /once || { touch /once; exit 1; }; exec sleep 1000"  # ends at once; its second run goes on


@pytest.mark.parametrize("verb", ["stop", "remove"])
async def test_a_container_ends_while_its_policy_starts_it_again(
    lab: Lab, config: Config, monkeypatch: pytest.MonkeyPatch, verb: str
) -> None:
    """The end is asked for when the next run is on its way, and nobody has heard of it yet."""
    again, go = asyncio.Event(), asyncio.Event()
    start_main, runs = Builder.start_main, 0

    async def held(self: Builder, *args: object) -> GuestProcessHandle:
        nonlocal runs
        runs += 1
        if runs > 1:
            again.set()
            await go.wait()
        return await start_main(self, *args)  # type: ignore[arg-type]

    monkeypatch.setattr(Builder, "start_main", held)
    id_ = await lab.create("sh", "-c", _ONCE, restart=RestartPolicy(name="always"))
    containers = lab.engine.containers
    life = containers.supervisor(lab.engine.registry.container(id_))
    await containers.start(id_)
    await asyncio.wait_for(again.wait(), DEADLINE)
    ending = asyncio.create_task(containers.stop(id_, 1) if verb == "stop" else _remove(lab, id_))
    await asyncio.wait_for(life.stop_requested.wait(), DEADLINE)
    go.set()
    await asyncio.wait_for(ending, DEADLINE / 2)
    if verb == "stop":
        assert lab.engine.registry.container(id_).state.status is ContainerStatus.EXITED
    else:
        assert not lab.engine.registry.exists(id_)
    assert machines(config.run_path) == []


async def _remove(lab: Lab, id_: str) -> bool:
    await lab.engine.containers.remove(id_, force=True)
    return True
