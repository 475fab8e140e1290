# SPDX-License-Identifier: Apache-2.0
"""An end that is asked for while a container's policy starts it again comes."""

from __future__ import annotations

import asyncio
from pathlib import Path
from types import SimpleNamespace
from typing import Any

import pytest

from hypercontainer.engine.events import Events
from hypercontainer.engine.life import Life
from hypercontainer.engine.registry import Registry
from hypercontainer.engine.runs import Runs
from hypercontainer.engine.streams import Hub
from hypercontainer.guest.process import GuestProcessHandle
from hypercontainer.model.specs import ContainerSpec, RestartPolicy
from hypercontainer.model.status import Container, ContainerStatus, Pod, Process
from hypercontainer.protocol.messages import ExitStatus
from hypercontainer.state.database import Database


class Guest:
    """A machine whose processes end when they are killed; the start of the second can be held up."""

    def __init__(self) -> None:
        self.dead = False
        self.session = self.machine = self
        self.on_oom: dict[str, Any] = {}
        self.handles: dict[str, GuestProcessHandle] = {}
        self.processes: dict[str, int] = {}
        self.users: set[str] = set()
        self.alive: list[GuestProcessHandle] = []
        self.again, self.go = asyncio.Event(), asyncio.Event()
        self.count = 0

    def send_frame(self, type_: int, id_: int, body: bytes) -> None: ...

    async def resize(self, handle: GuestProcessHandle, rows: int, columns: int) -> None: ...

    async def release(self, *_: object, **__: object) -> None: ...

    async def signal(self, handle: GuestProcessHandle, signal: int, *, everyone: bool = False) -> None:
        self.end(handle, 137)

    def end(self, handle: GuestProcessHandle, code: int) -> None:
        if handle in self.alive:
            self.alive.remove(handle)
        handle.drained.set()
        handle.set_exit(ExitStatus(code=code))

    async def acquire(self, pod: str, user: str) -> Guest:
        return self

    async def build(self, runtime: Guest, container: Container) -> None: ...

    def save(self, pod: str, runtime: Guest) -> None: ...

    async def start_main(
        self, runtime: Guest, container: Container, hub: Hub, size: tuple[int, int]
    ) -> GuestProcessHandle:
        self.count += 1
        if self.count == 2:
            self.again.set()
            await self.go.wait()
        handle = self.handles[container.id] = GuestProcessHandle(self, self.count, hub)
        self.alive.append(handle)
        return handle


@pytest.mark.parametrize("answers", [True, False], ids=["guest answers", "guest stands still"])
async def test_stop_while_the_policy_starts_it_again(tmp_path: Path, answers: bool) -> None:
    registry, guest, life = Registry(Database(tmp_path / "state.db")), Guest(), Life(Hub())
    spec = ContainerSpec(image="x", restart=RestartPolicy(name="always"))
    process = Process(args=["x"], env=[], cwd="/", user="", stop_signal=15)
    container = Container(
        id="c" * 64,
        name="c",
        pod="c" * 64,
        created_at="",
        image="x",
        image_id="x",
        hostname="c",
        process=process,
        spec=spec,
    )
    registry.create(
        Pod(id="c" * 64, name="c", created_at="", hostname="c", vcpus=1, memory=1, implicit=True), container
    )
    unused: Any = SimpleNamespace()
    made: Any = guest
    runs = Runs(
        registry=registry,
        machines=made,
        provisioner=made,
        events=Events(),
        life=lambda _: life,
        erase=unused,
        withdraw=unused,
    )
    try:
        await runs.start(container.id)
        guest.end(guest.alive[0], 1)
        await asyncio.wait_for(guest.again.wait(), 5)
        stopping = asyncio.create_task(runs.stop(container, 1))
        await asyncio.wait_for(life.stop_requested.wait(), 5)
        if answers:
            guest.go.set()
        assert await asyncio.wait_for(stopping, 5)
        assert registry.container(container.id).state.status is ContainerStatus.EXITED
        assert life.runtime is None and not guest.alive
    finally:
        guest.go.set()
        await runs.leave()
        registry.journal.close()
