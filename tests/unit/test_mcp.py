# SPDX-License-Identifier: Apache-2.0
"""What a session of a language model may have, without a daemon."""

from __future__ import annotations

import asyncio
from typing import Any

import pytest

from hypercontainer.errors import HyperError, InvalidArgument, NotFound, Unavailable
from hypercontainer.integrations import mcp
from hypercontainer.model.status import Container

from .test_sdk import CONTAINER


class Sandboxes:
    """They are made when they may, and counted."""

    def __init__(self) -> None:
        self.may = asyncio.Event()
        self.alive: set[str] = set()
        self.stubborn = False
        self.renewed: list[str] = []
        self._number = 0

    async def create(self, image: str, *, ttl: float, **_: Any) -> Any:
        assert ttl
        await self.may.wait()
        self._number += 1
        name = f"s{self._number}"
        self.alive.add(name)
        return Sandbox(self, name, image)


class Sandbox:
    def __init__(self, of: Sandboxes, name: str, image: str) -> None:
        self._of, self.name, self.image = of, name, image

    async def set_lifetime(self, *, ttl: float) -> None:
        if self.name not in self._of.alive:
            raise NotFound("there is none")
        self._of.renewed.append(self.name)

    async def info(self) -> Container:
        if self.name not in self._of.alive:
            raise NotFound("there is none")
        return CONTAINER

    async def kill(self, **_: Any) -> None:
        if self._of.stubborn:
            raise Unavailable("not now")
        self._of.alive.discard(self.name)


@pytest.fixture
async def sandboxes(monkeypatch: pytest.MonkeyPatch) -> Sandboxes:
    found = Sandboxes()
    monkeypatch.setattr(mcp, "AsyncSandbox", found)
    return found


async def test_calls_at_one_time_make_no_more_than_there_may_be(sandboxes: Sandboxes) -> None:
    tools = mcp.Tools(None, "x", 3600)
    calls = [asyncio.create_task(tools.sandbox_create()) for _ in range(mcp.SANDBOXES_MAX + 5)]
    sandboxes.may.set()
    made = await asyncio.gather(*calls, return_exceptions=True)
    assert sum(isinstance(each, HyperError) for each in made) == 5
    assert len(sandboxes.alive) == mcp.SANDBOXES_MAX
    await tools.close()
    assert sandboxes.alive == set()


async def test_nothing_comes_after_the_end(sandboxes: Sandboxes) -> None:
    tools = mcp.Tools(None, "x", 3600)
    call = asyncio.create_task(tools.sandbox_create())
    await asyncio.sleep(0)
    await tools.close()
    sandboxes.may.set()
    assert isinstance((await asyncio.gather(call, return_exceptions=True))[0], asyncio.CancelledError)
    with pytest.raises(InvalidArgument):
        await tools.sandbox_create()
    assert sandboxes.alive == set()


async def test_a_sandbox_that_does_not_end_is_the_sessions_still(sandboxes: Sandboxes) -> None:
    tools = mcp.Tools(None, "x", 3600)
    sandboxes.may.set()
    made = await tools.sandbox_create()
    sandboxes.stubborn = True
    with pytest.raises(Unavailable):
        await tools.sandbox_end(made.sandbox)
    sandboxes.stubborn = False
    await tools.close()
    assert sandboxes.alive == set()


async def test_a_command_that_runs_keeps_its_sandbox(sandboxes: Sandboxes) -> None:
    """hyperd ends what is not renewed."""
    tools = mcp.Tools(None, "x", 0.01)
    sandboxes.may.set()
    made = await tools.sandbox_create()
    async with tools._used(made.sandbox), asyncio.timeout(60):
        while len(sandboxes.renewed) < 5:
            await asyncio.sleep(0)
    before = len(sandboxes.renewed)
    await tools.sandbox_list()
    assert len(sandboxes.renewed) == before, "to be listed is no use"
    await tools.close()


async def test_those_that_hyperd_has_ended_do_not_count(sandboxes: Sandboxes) -> None:
    tools = mcp.Tools(None, "x", 3600)
    sandboxes.may.set()
    made = [await tools.sandbox_create() for _ in range(mcp.SANDBOXES_MAX)]
    sandboxes.alive -= {each.sandbox for each in made[:2]}
    with pytest.raises(NotFound, match="no sandbox s1"):
        await tools.sandbox_end("s1")
    for _ in range(2):
        await tools.sandbox_create()
    with pytest.raises(InvalidArgument, match="at most"):
        await tools.sandbox_create()
    await tools.close()
    assert sandboxes.alive == set()


@pytest.mark.parametrize("image", ["docker-archive:/root/x.tar", "oci:/x", "oci-archive:/x", "docker-daemon:x"])
async def test_images_are_no_files_of_this_host(sandboxes: Sandboxes, image: str) -> None:
    with pytest.raises(InvalidArgument, match="is no image's name"):
        await mcp.Tools(None, "x", 3600).sandbox_create(image)
