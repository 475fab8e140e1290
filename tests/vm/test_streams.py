# SPDX-License-Identifier: Apache-2.0
"""Output and logs of real machines: slow readers, full disks, no log, many processes."""

from __future__ import annotations

import asyncio
from collections.abc import Callable, Iterator
from pathlib import Path

import pytest

from hypercontainer.hyperd.config import Config
from hypercontainer.hyperd.daemon import build_engine
from hypercontainer.model.specs import LogOptions, Resources
from tests.small_disk import small_disk

from .conftest import DEADLINE, Lab


async def _lines(lab: Lab, id_: str, tail: int | None = None) -> list[str]:
    return [
        r.log for b in [b async for b in lab.engine.logs(id_, tail=tail, since="", until="", follow=False)] for r in b
    ]


async def _until(condition: Callable[[], object]) -> None:
    async with asyncio.timeout(DEADLINE):
        while not condition():
            await asyncio.sleep(0.05)


@pytest.fixture
def small(tmp_path: Path) -> Iterator[Path]:
    """A file system of 8 MiB."""
    with small_disk(tmp_path / "small", 8) as place:
        yield place


async def test_the_log_is_whole_when_a_reader_stands_still(lab: Lab) -> None:
    """It slows the program while that runs; the rest, about 120 KB in the pipe, goes into the log after its end."""
    id_ = await lab.create(
        "sh", "-c", "head -c 1170000 /dev/zero | tr '\\0' x; seq 1 40000; exit 3", log=LogOptions(max_size=1 << 30)
    )
    life = lab.engine.containers.supervisor(lab.engine.registry.container(id_))
    reader = life.fan_out.attach()
    await asyncio.wait_for(lab.engine.containers.start(id_), DEADLINE)
    await asyncio.wait_for(life.stopped.wait(), DEADLINE)
    assert life.exit_code == 3 and life.error == ""
    text = "".join(await _lines(lab, id_))
    expected = "x" * 1_170_000 + "".join(f"{n}\n" for n in range(1, 40_001))
    assert len(text) == len(expected) and text == expected
    assert "".join([data.decode() async for _, data in reader]) == expected
    reader.close()


async def test_a_full_disk_below_the_log_ends_nothing(lab: Lab, small: Path) -> None:
    ballast = small / "ballast"
    ballast.write_bytes(bytes(7600 << 10))
    log = LogOptions(path=str(small / "box.log"), max_size=1 << 30)
    script = f"seq 1 20000 | sed s/$/{'x' * 60}/; echo done"  # more than the buffers between the program and its log
    id_ = await lab.create("sh", "-c", script, log=log)
    life = lab.engine.containers.supervisor(lab.engine.registry.container(id_))
    await asyncio.wait_for(lab.engine.containers.start(id_), DEADLINE)
    await _until(lambda: (small / "box.log").stat().st_size > (300 << 10))
    assert (await lab.exec(id_, "echo", "alive")).out == "alive\n"
    assert not life.stopped.is_set()
    ballast.unlink()
    await asyncio.wait_for(life.stopped.wait(), DEADLINE)
    assert life.exit_code == 0 and life.error == ""

    async def whole() -> None:
        while (await _lines(lab, id_, 1)) != ["done\n"]:
            await asyncio.sleep(0.1)

    await asyncio.wait_for(whole(), DEADLINE)
    assert await _lines(lab, id_) == [*(f"{n}{'x' * 60}\n" for n in range(1, 20_001)), "done\n"]


async def test_no_log_and_another_daemon(lab: Lab, config: Config) -> None:
    script = (
        "head -c 700000 /dev/zero; touch /said; while ! test -e /go; do sleep 0.05; done; "
        "head -c 700000 /dev/zero; exit 4"
    )
    id_ = await lab.create("sh", "-c", script, log=LogOptions(driver="none"))
    await lab.engine.containers.start(id_)
    await lab.exec(id_, "sh", "-c", "while ! test -e /said; do sleep 0.05; done")
    await lab.engine.close(keep_running=True)
    lab.engine = build_engine(config)
    await lab.engine.open()
    assert (await lab.exec(id_, "touch", "/go")).code == 0
    assert await asyncio.wait_for(lab.engine.containers.wait(id_), DEADLINE) == 4


async def test_top_of_many_processes_with_long_arguments(lab: Lab) -> None:
    script = (
        "long=$(printf '%01000d' 1000); i=0; while [ $i -lt 1000 ]; do sleep $long & i=$((i+1)); done; echo ready; wait"
    )
    id_ = await lab.create("sh", "-c", script, resources=Resources(memory=768 << 20))
    await lab.engine.containers.start(id_)
    await lab.printed(id_, "ready")
    listed = await asyncio.wait_for(lab.engine.monitor.top(id_), DEADLINE)
    assert len(listed) >= 1000
    assert sum(len(p.command) > 500 for p in listed) >= 1000
    assert (await lab.exec(id_, "echo", "alive")).out == "alive\n"
