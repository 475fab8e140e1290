# SPDX-License-Identifier: Apache-2.0
"""Many daemons after one another, and one machine that outlives them all."""

from __future__ import annotations

import asyncio

from hypercontainer.hyperd.config import Config
from hypercontainer.hyperd.daemon import build_engine
from hypercontainer.model.status import ContainerStatus

from .conftest import DEADLINE, Lab


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
