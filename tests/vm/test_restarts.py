# SPDX-License-Identifier: Apache-2.0
"""Many daemons after one another, and one machine that outlives them all."""

from __future__ import annotations

import asyncio
import shutil

import pytest

from hypercontainer.engine.reattach import Reattacher
from hypercontainer.engine.runtime import Runtime
from hypercontainer.hyperd.config import Config
from hypercontainer.hyperd.daemon import build_engine
from hypercontainer.model.specs import ContainerSpec
from hypercontainer.model.status import ContainerStatus, Pod

from .conftest import DEADLINE, Lab, machines


async def test_a_container_outlives_several_daemons(lab: Lab, config: Config) -> None:
    """Each writes down what the next one needs, whether it had something to do or not."""
    id_ = await lab.create("sh", "-c", "n=0; while ! test -e /go; do n=$((n+1)); echo $n; done; echo end; exit 7")
    await lab.engine.containers.start(id_)
    await lab.printed(id_, "1\n")
    for _ in range(4):
        await lab.engine.close(keep_running=True)
        lab.engine = build_engine(config)
        await lab.engine.open()
        state = lab.engine.registry.container(id_).state
        assert state.status is ContainerStatus.RUNNING, state.error
    await lab.exec(id_, "touch", "/go")  # it may be killed with the container, which ends by it
    assert await asyncio.wait_for(lab.engine.containers.wait(id_), DEADLINE) == 7
    lines = [r.log async for b in lab.engine.logs(id_, tail=None, since="", until="", follow=False) for r in b]
    assert lines == [*(f"{n}\n" for n in range(1, len(lines))), "end\n"]


async def test_a_machine_that_nothing_knows_but_itself_is_ended(lab: Lab, config: Config) -> None:
    """As one whose daemon was killed while it launched it: without a record, a pid file, even a directory."""
    id_ = await lab.create("sleep", "1000")
    await lab.engine.containers.start(id_)
    await lab.engine.close(keep_running=True)
    assert len(machines(config.run_path)) == 1
    next_ = build_engine(config)
    pod, container = next_.registry.pod(id_), next_.registry.container(id_)
    next_.registry.erase(container, pod, files=id_)
    shutil.rmtree(config.run_path / "pods" / id_[:12])
    next_.registry.journal.close()
    lab.engine = build_engine(config)
    await lab.engine.open()
    async with asyncio.timeout(DEADLINE):
        while machines(config.run_path):
            await asyncio.sleep(0.05)
    assert not (config.root_path / "containers" / id_).exists()  # its removal had begun


async def test_one_pod_that_cannot_be_taken_up_harms_no_other(
    lab: Lab, config: Config, monkeypatch: pytest.MonkeyPatch
) -> None:
    good, bad = await lab.create("sleep", "1000"), await lab.create("sleep", "1000")
    for id_ in (good, bad):
        await lab.engine.containers.start(id_)
    await lab.engine.close(keep_running=True)
    reattach = Reattacher.reattach

    async def hostile(self: Reattacher, pod: Pod) -> Runtime | None:
        if pod.id == bad:
            raise KeyError("VERSION")
        return await reattach(self, pod)

    monkeypatch.setattr(Reattacher, "reattach", hostile)
    lab.engine = build_engine(config)
    await lab.engine.open()
    states = [lab.engine.registry.container(i).state for i in (good, bad)]
    assert [s.status for s in states] == [ContainerStatus.RUNNING, ContainerStatus.EXITED]
    assert (await lab.exec(good, "true")).code == 0
    assert len(machines(config.run_path)) == 1


async def test_a_run_that_was_starting_leaves_nothing(lab: Lab, config: Config) -> None:
    """Its daemon was killed between its creation and the start of its program."""
    spec = ContainerSpec(image="busybox", command=["true"], auto_remove=True)
    gone = (await lab.engine.containers.create(spec, starting=True)).id
    kept = (await lab.engine.containers.create(ContainerSpec(image="busybox", command=["true"]), starting=True)).id
    waits = (await lab.engine.containers.create(spec)).id
    half = "f" * 64
    lab.engine.registry.begin(half)
    (config.root_path / "containers" / half).mkdir()
    (config.root_path / "pods" / half).mkdir()
    await lab.engine.close(keep_running=True)
    lab.engine = build_engine(config)
    await lab.engine.open()
    registry = lab.engine.registry
    assert (
        not registry.exists(gone)
        and not registry.has_pod(gone)
        and not (config.root_path / "containers" / gone).exists()
    )
    assert (
        registry.container(kept).state.status is ContainerStatus.EXITED
        and "while it was started" in registry.container(kept).state.error
    )
    assert registry.container(waits).state.status is ContainerStatus.CREATED
    assert not (config.root_path / "containers" / half).exists() and not (config.root_path / "pods" / half).exists()
