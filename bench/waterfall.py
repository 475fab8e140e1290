# SPDX-License-Identifier: Apache-2.0
"""Where the time of a cold run goes inside hyperd: `python -m bench.waterfall`."""

from __future__ import annotations

import asyncio
import statistics
import tempfile
import time
from collections.abc import Awaitable, Callable
from pathlib import Path
from typing import Any

from hypercontainer.engine.engine import Engine
from hypercontainer.engine.paths import Paths
from hypercontainer.guest.session import GuestSession
from hypercontainer.hyperctl.output import print_table
from hypercontainer.hyperd.config import Config
from hypercontainer.hyperd.daemon import build_engine
from hypercontainer.hypervisor.qemu.driver import QemuDriver
from hypercontainer.model.specs import ContainerSpec

RUNS = 9
STEPS = (
    (QemuDriver, "launch", "QEMU started"),
    (GuestSession, "_greet", "boot until the guest answers"),
    (GuestSession, "setup_pod", "network, PID namespace"),
    (GuestSession, "create_container", "disks and overlay mounted"),
    (GuestSession, "start", "fork and exec"),
)


def timed(spans: dict[str, list[float]], name: str, call: Callable[..., Awaitable[Any]]) -> Callable[..., Awaitable[Any]]:
    async def wrapper(*args: Any, **kwargs: Any) -> Any:
        begin = time.perf_counter()
        try:
            return await call(*args, **kwargs)
        finally:
            spans.setdefault(name, []).append(time.perf_counter() - begin)

    return wrapper


async def one_run(engine: Engine, spans: dict[str, list[float]]) -> None:
    begin = time.perf_counter()
    container = await engine.containers.create(ContainerSpec(image="busybox", command=["true"], auto_remove=True))
    life = engine.containers.life(container)
    spans.setdefault("records and scratch disk", []).append(time.perf_counter() - begin)
    await engine.containers.start(container.id)
    started = time.perf_counter()
    await life.stopped.wait()
    spans.setdefault("the program, until its exit is known", []).append(time.perf_counter() - started)
    await life.removed.wait()
    spans.setdefault("all of it", []).append(time.perf_counter() - begin)


async def measure() -> dict[str, list[float]]:
    spans: dict[str, list[float]] = {}
    for owner, attribute, name in STEPS:
        setattr(owner, attribute, timed(spans, name, getattr(owner, attribute)))
    with tempfile.TemporaryDirectory(prefix="hyw") as directory:
        config = Config(root=f"{directory}/root", run=f"{directory}/run", network="user")
        for path in (config.root_path, config.run_path):
            Path(path).mkdir()
        Paths(config.root_path, config.run_path).create()
        engine = build_engine(config)
        await engine.open()
        await engine.pull("builtin:busybox")[1]
        await engine.info()  # the probe of KVM is not part of a run
        for _ in range(RUNS + 1):
            await one_run(engine, spans)
        await engine.close(keep_running=False)
    return spans


def main() -> None:
    spans = asyncio.run(measure())
    print_table(["STEP", "MEDIAN"], [[name, f"{1000 * statistics.median(times[-RUNS:]):.0f} ms"] for name, times in spans.items()])


if __name__ == "__main__":
    main()
