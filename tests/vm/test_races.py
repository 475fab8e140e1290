# SPDX-License-Identifier: Apache-2.0
"""Verbs that meet a start on its way: whoever wins, nothing is left without an owner (the `lab` looks at its end)."""

from __future__ import annotations

import asyncio
import os

import pytest

from hypercontainer.errors import HyperError, InvalidState
from hypercontainer.model.status import ContainerStatus

from .conftest import DEADLINE, Lab

RACES = int(os.environ.get("HYPER_TEST_RACES", "30"))


async def _during(lab: Lab, id_: str, moment: float) -> asyncio.Task[bool]:
    """A start that has gone on for so long, in seconds, or has ended."""
    start = asyncio.create_task(lab.engine.containers.start(id_))
    await asyncio.wait({start}, timeout=moment)
    return start


async def test_rm_f_during_a_start_leaves_nothing(lab: Lab) -> None:
    for n in range(RACES):
        id_ = await lab.create("sleep", "1000", auto_remove=n % 2 == 0)
        start = await _during(lab, id_, 0.01 * (n % 30))
        ran = start.done()
        async with asyncio.timeout(DEADLINE):
            await lab.engine.containers.remove(id_, force=True)
            (outcome,) = await asyncio.gather(start, return_exceptions=True)
        assert not lab.engine.registry.exists(id_) and not lab.engine.registry.has_pod(id_)
        assert outcome is True if ran else isinstance(outcome, HyperError) or outcome is True


async def test_rm_without_force_during_a_start_is_refused(lab: Lab) -> None:
    id_ = await lab.create("sleep", "1000")
    start = await _during(lab, id_, 0.02)
    with pytest.raises(HyperError, match="is (starting|running): stop it first, or use --force"):
        await lab.engine.containers.remove(id_)
    assert await asyncio.wait_for(start, DEADLINE)
    assert lab.engine.registry.container(id_).state.status is ContainerStatus.RUNNING


@pytest.mark.parametrize("verb", ["stop", "kill"])
async def test_stop_and_kill_during_a_start(lab: Lab, verb: str) -> None:
    for n in range(5):
        id_ = await lab.create("sleep", "1000")
        start = await _during(lab, id_, 0.02 * n)
        async with asyncio.timeout(DEADLINE):
            await (lab.engine.containers.stop(id_, 0) if verb == "stop" else lab.engine.containers.kill(id_, "KILL"))
            (outcome,) = await asyncio.gather(start, return_exceptions=True)
            await lab.engine.containers.wait(id_)
        assert outcome is True or isinstance(outcome, InvalidState), outcome
        assert lab.engine.registry.container(id_).state.status is ContainerStatus.EXITED


async def test_a_rename_during_a_start_is_kept(lab: Lab) -> None:
    id_ = await lab.create("sleep", "1000", name="before")
    start = await _during(lab, id_, 0.02)
    lab.engine.containers.rename(id_, "after")
    assert await asyncio.wait_for(start, DEADLINE)
    assert lab.engine.registry.container(id_).name == "after" and lab.engine.registry.pod(id_).name == "after"


async def test_a_start_whose_caller_gives_up(lab: Lab) -> None:
    id_ = await lab.create("sleep", "1000")
    start = await _during(lab, id_, 0.05)
    start.cancel()
    await asyncio.wait_for(asyncio.gather(start, return_exceptions=True), DEADLINE)
    if start.cancelled():
        assert lab.engine.registry.container(id_).state.status is ContainerStatus.EXITED
    assert await asyncio.wait_for(lab.engine.containers.start(id_), DEADLINE) is start.cancelled()


async def test_the_name_is_free_when_the_end_is_known(lab: Lab) -> None:
    for _ in range(10):
        id_ = await lab.create("true", name="one", auto_remove=True)
        life = lab.engine.containers.supervisor(lab.engine.registry.container(id_))
        await asyncio.wait_for(lab.engine.containers.start(id_), DEADLINE)
        await asyncio.wait_for(life.stopped.wait(), DEADLINE)
        assert life.removed.is_set() and life.exit_code == 0


async def test_the_guest_forgets_processes_that_have_ended(lab: Lab) -> None:
    from hypercontainer.model.pods import PodPlan
    from hypercontainer.model.specs import ContainerSpec

    plan = PodPlan(name="p", containers=[ContainerSpec(image="busybox", name="stays", command=["sleep", "1000"]),
                                         ContainerSpec(image="busybox", name="ends", command=["true"])])  # fmt: skip
    pod = await lab.engine.pods.create(plan)
    await asyncio.wait_for(lab.engine.pods.start(pod.id), DEADLINE)
    ends = lab.engine.registry.container("ends")
    for _ in range(3):
        await asyncio.wait_for(lab.engine.containers.wait(ends.id), DEADLINE)
        await asyncio.wait_for(lab.engine.containers.supervisor(ends).at_rest.wait(), DEADLINE)
        async with asyncio.timeout(DEADLINE):
            while ends.id in lab.engine.registry.pod(pod.id).vm.processes:  # type: ignore[union-attr]
                await asyncio.sleep(0.01)
        await asyncio.wait_for(lab.engine.containers.start(ends.id), DEADLINE)
    await lab.engine.pods.remove(pod.id, force=True)
