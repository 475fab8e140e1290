# SPDX-License-Identifier: Apache-2.0
"""What a guest writes to its console takes no room on this host, and its end is heard all the same."""

from __future__ import annotations

import asyncio

from hypercontainer.hyperd.config import Config
from hypercontainer.hyperd.daemon import build_engine

from .conftest import DEADLINE, Lab

FLOOD = 200_000  # bytes
ROOM = 64 << 10  # bytes that files of a machine may take


async def test_a_flood_is_not_kept(lab: Lab, config: Config) -> None:
    script = (
        f"mknod /tmp/console c 4 64; head -c {FLOOD} /dev/zero | tr '\\0' x > /tmp/console;"
        "echo > /tmp/console; echo first words > /tmp/console; echo written;"
        "while [ ! -e /go ]; do sleep 0.1; done; echo other words > /tmp/console; echo again; sleep 1000"
    )
    id_ = await lab.create("sh", "-c", script, privileged=True)
    await lab.engine.containers.start(id_)
    await lab.printed(id_, "written")
    await heard(lab, id_, "first words")
    directory = lab.engine.containers.runtime(lab.engine.registry.container(id_)).directory
    assert sum(f.stat().st_size for f in directory.iterdir()) < ROOM

    await lab.engine.close(keep_running=True)
    lab.engine = build_engine(config)
    await lab.engine.open()
    await lab.exec(id_, "touch", "/go")
    await lab.printed(id_, "again")
    await heard(lab, id_, "other words")


async def heard(lab: Lab, id_: str, words: str) -> None:
    machine = lab.engine.containers.runtime(lab.engine.registry.container(id_)).machine
    async with asyncio.timeout(DEADLINE):
        while words not in machine.last_words():
            await asyncio.sleep(0.05)
