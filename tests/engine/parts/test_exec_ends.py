# SPDX-License-Identifier: Apache-2.0
"""An exec whose output ends in the moment of its start has an end; its user number is nobody else's."""

from __future__ import annotations

import asyncio
from types import SimpleNamespace
from typing import Any

import pytest
from msgspec import UNSET

from hypercontainer.engine import execs, resolve
from hypercontainer.engine.events import Events
from hypercontainer.guest.process import GuestProcessHandle
from hypercontainer.model.specs import ContainerSpec, ExecSpec
from hypercontainer.model.status import ContainerStatus
from hypercontainer.protocol.messages import ExitStatus, GuestProcess

from .sessions import Session


async def test_output_that_ends_before_it_is_watched(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(resolve, "exec_process", lambda *_: GuestProcess(args=("x",)))
    container = SimpleNamespace(
        id="c", name="c", image="x", tenant=UNSET, spec=ContainerSpec(image="x"),
        state=SimpleNamespace(status=ContainerStatus.RUNNING),
    )  # fmt: skip
    registry: Any = SimpleNamespace(container=lambda _: container)
    containers: Any = SimpleNamespace(runtime=lambda _: SimpleNamespace(agent=Session()))
    service = execs.Execs(registry, containers, Events())
    exec_ = service.create("c", ExecSpec(command=["x"]))
    await service.start(exec_)  # nothing is waited for: the task that watches it has not begun
    handle = exec_.fan_out.handle
    assert isinstance(handle, GuestProcessHandle)
    exec_.fan_out.end(1)
    exec_.fan_out.end(2)
    handle.drained.set()
    handle.set_exit(ExitStatus(code=3))
    await asyncio.wait_for(exec_.ended.wait(), 30)
    assert exec_.exit_code == 3 and not exec_.info().running
