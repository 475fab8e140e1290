# SPDX-License-Identifier: Apache-2.0
"""The pool is filled though starts never pause; a paused container has no health checks; their output is bounded."""

from __future__ import annotations

import asyncio
import signal
from types import SimpleNamespace
from typing import Any

import pytest

from hypercontainer.engine import builtins, health
from hypercontainer.engine.events import Events
from hypercontainer.engine.factory import pool as pool_module
from hypercontainer.engine.factory.pool import Pool
from hypercontainer.engine.factory.shapes import Kind, Shape
from hypercontainer.errors import Unavailable
from hypercontainer.guest.process import GuestProcessHandle
from hypercontainer.model.specs import HealthCheck
from hypercontainer.model.status import ContainerStatus, HealthRecord, PodStatus
from hypercontainer.protocol.messages import ExitStatus, GuestProcess

from .sessions import Session


async def test_starts_that_follow_closely_do_not_starve_the_pool() -> None:
    made = asyncio.Event()

    async def make(kind: Kind) -> Any:
        made.set()
        await asyncio.Event().wait()

    pool, kind = Pool(1 << 30, make), Kind(Shape(1, 64 << 20, "none"))

    async def start_again_and_again() -> None:
        while True:
            with pool.foreground(kind):
                await asyncio.sleep(0.02)

    starts = asyncio.create_task(start_again_and_again())
    try:
        await asyncio.wait_for(made.wait(), 10)
    finally:
        starts.cancel()
        await asyncio.gather(starts, return_exceptions=True)
        await pool.close()


class Paused:
    """A registry of one container, and its pod."""

    def __init__(self, container: ContainerStatus, pod: PodStatus) -> None:
        self._container = SimpleNamespace(
            id="c", pod="p", name="c", state=SimpleNamespace(status=container, health=None)
        )
        self._pod = SimpleNamespace(id="p", status=pod)

    def container(self, key: str) -> Any:
        return self._container

    def pod(self, key: str) -> Any:
        return self._pod


@pytest.mark.parametrize(
    ("container", "pod", "probed"),
    [
        (ContainerStatus.RUNNING, PodStatus.RUNNING, True),
        (ContainerStatus.PAUSED, PodStatus.RUNNING, False),
        (ContainerStatus.RUNNING, PodStatus.PAUSED, False),
    ],
)
async def test_what_is_paused_is_not_probed(
    container: ContainerStatus, pod: PodStatus, probed: bool, monkeypatch: pytest.MonkeyPatch
) -> None:
    probes = 0

    async def fails(*_: object) -> HealthRecord:
        nonlocal probes
        probes += 1
        return HealthRecord(started_at="", ended_at="", exit_code=1, output="")

    replaced = asyncio.Event()

    monkeypatch.setattr(health, "_probe", fails)
    registry: Any = Paused(container, pod)
    monitor = health.HealthMonitor(registry, Events())
    check = HealthCheck(command=["false"], interval=0.001, start_period=0, retries=2)
    one = registry.container("c")
    one.health, one.spec = None, SimpleNamespace(liveness=check)
    (loop,) = monitor.checks(one, SimpleNamespace(), replaced.set)  # type: ignore[arg-type]
    task = asyncio.create_task(loop)
    try:
        if probed:
            await asyncio.wait_for(replaced.wait(), 30)
        for _ in range(100):
            await asyncio.sleep(0.001)
        assert (probes > 0, replaced.is_set()) == (probed, probed)
    finally:
        task.cancel()
        await asyncio.gather(task, return_exceptions=True)


class Chatty(Session):
    """A session whose process prints a lot."""

    async def start(self, process: GuestProcess, fan_out: Any) -> GuestProcessHandle:
        handle = GuestProcessHandle(self, 1, fan_out)
        for _ in range(100):
            fan_out.write(1, b"x" * 1000)
        for stream in (1, 2):
            fan_out.end(stream)
        handle.set_exit(ExitStatus(code=0, signal=0, oom=False))
        return handle


async def test_of_a_checks_output_the_beginning_is_kept() -> None:
    session: Any = Chatty()
    done = await builtins.run_process(session, GuestProcess(args=("x",)), keep=4096)
    assert done.output == b"x" * 4096


class Lingering(Chatty):
    """A session whose process closes its output and goes on; a signal ends it."""

    def __init__(self) -> None:
        self.signals: list[int] = []

    async def signal(self, handle: GuestProcessHandle, signal: int, *, everyone: bool = False) -> None:
        self.signals.append(signal)
        handle.set_exit(ExitStatus(code=0, signal=signal, oom=False))

    async def start(self, process: GuestProcess, fan_out: Any) -> GuestProcessHandle:
        for stream in (1, 2):
            fan_out.end(stream)
        return GuestProcessHandle(self, 1, fan_out)


async def test_one_that_lingers_after_its_output_is_killed() -> None:
    session: Any = Lingering()
    with pytest.raises(TimeoutError):
        await builtins.run_process(session, GuestProcess(args=("x",)), timeout=0.01)
    assert session.signals == [signal.SIGKILL]


@pytest.mark.parametrize("error", [ValueError("wrong"), asyncio.CancelledError(), Unavailable("no room")], ids=repr)
async def test_the_pool_is_filled_after_any_failure(
    monkeypatch: pytest.MonkeyPatch, caplog: pytest.LogCaptureFixture, error: BaseException
) -> None:
    monkeypatch.setattr(pool_module, "_RETRY", 0.01)
    tries, again = 0, asyncio.Event()

    async def make(kind: Kind) -> Any:
        nonlocal tries
        tries += 1
        if tries == 1:
            raise error
        again.set()
        await asyncio.Event().wait()

    pool, kind = Pool(1 << 30, make), Kind(Shape(1, 64 << 20, "none"))
    with pool.foreground(kind):
        pass
    await asyncio.wait_for(again.wait(), 10)
    await pool.close()
    assert "the pool is not refilled" in caplog.text
