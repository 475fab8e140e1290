# SPDX-License-Identifier: Apache-2.0
"""Many execs at once, and those that nobody waits for any more."""

from __future__ import annotations

import asyncio

import pytest

from hypercontainer.engine.engine import Engine
from hypercontainer.hyperd.config import Config
from hypercontainer.hyperd.daemon import build_engine
from hypercontainer.model.specs import ExecSpec

from .conftest import DEADLINE, Lab

AT_ONCE = 200


async def names(engine: Engine, id_: str) -> list[str]:
    return [p.command for p in await engine.monitor.top(id_)]


async def until(engine: Engine, id_: str, *, has: str, wanted: bool) -> None:
    async with asyncio.timeout(DEADLINE):
        while any(has in name for name in await names(engine, id_)) is not wanted:
            await asyncio.sleep(0.1)


async def test_all_of_many_end(lab: Lab) -> None:
    id_ = await lab.create("sleep", "1000")
    await lab.engine.containers.start(id_)
    ends = await asyncio.gather(*(lab.exec(id_, "echo", str(n)) for n in range(AT_ONCE)))
    assert [(e.code, e.out) for e in ends] == [(0, f"{n}\n") for n in range(AT_ONCE)]


async def test_given_up_it_ends(lab: Lab) -> None:
    id_ = await lab.create("sleep", "1000")
    await lab.engine.containers.start(id_)
    exec_ = lab.engine.execs.create(id_, ExecSpec(command=["sleep", "777"]))
    start = asyncio.ensure_future(lab.engine.execs.start(exec_))
    await asyncio.sleep(0)  # it is sent
    start.cancel()
    with pytest.raises(asyncio.CancelledError):
        await start
    await lab.exec(id_, "true")  # requests are taken in their order
    await until(lab.engine, id_, has="777", wanted=False)


async def test_of_a_daemon_that_is_gone_it_ends(lab: Lab, config: Config) -> None:
    id_ = await lab.create("sleep", "1000")
    await lab.engine.containers.start(id_)
    await lab.engine.execs.start(lab.engine.execs.create(id_, ExecSpec(command=["sleep", "778"])))
    await until(lab.engine, id_, has="778", wanted=True)
    await lab.engine.close(keep_running=True)
    lab.engine = build_engine(config)
    await lab.engine.open()
    await until(lab.engine, id_, has="778", wanted=False)
    assert any("1000" in name for name in await names(lab.engine, id_))
