# SPDX-License-Identifier: Apache-2.0
"""Starts take turns: by tenants, and none of them waits for ever."""

from __future__ import annotations

import asyncio
import contextlib

import pytest
from msgspec import UNSET

from hypercontainer.engine.quotas.turns import Turns
from hypercontainer.errors import Unavailable
from hypercontainer.model.principal import Tenant


class Starts:
    """Of several tenants, each of which goes on until it is told to end."""

    def __init__(self, places: int, wait: float = 60.0) -> None:
        self.turns = Turns(places, wait)
        self.begun: list[str] = []
        self._ends: dict[str, asyncio.Event] = {}
        self._tasks: dict[str, asyncio.Task[None]] = {}

    async def ask(self, *names: str) -> None:
        """A name's first letter is its tenant."""
        for name in names:
            self._ends[name] = asyncio.Event()
            self._tasks[name] = asyncio.create_task(self._start(name))
            await self.go_on()

    async def _start(self, name: str) -> None:
        async with self.turns.of(name[0]):
            self.begun.append(name)
            await self._ends[name].wait()

    async def end(self, name: str) -> None:
        self._ends[name].set()
        await self._tasks[name]
        await self.go_on()

    async def give_up(self, name: str) -> None:
        self._tasks[name].cancel()
        with contextlib.suppress(asyncio.CancelledError):
            await self._tasks[name]
        await self.go_on()

    async def end_all(self) -> None:
        for name in list(self._tasks):
            self._ends[name].set()
        await asyncio.gather(*self._tasks.values(), return_exceptions=True)

    @staticmethod
    async def go_on() -> None:
        for _ in range(5):
            await asyncio.sleep(0)


async def test_tenants_come_in_turn() -> None:
    s = Starts(places=4)
    await s.ask("a1", "a2", "a3", "a4", "a5", "a6")
    assert s.begun == ["a1", "a2", "a3"]  # a place is left for another
    await s.ask("b1", "b2", "c1")
    assert s.begun[3:] == ["b1"]
    await s.end("a1")
    await s.end("a2")
    await s.end("a3")
    assert s.begun[4:] == ["a4", "b2", "c1"]  # each of them once, before the first again
    await s.end_all()
    assert sorted(s.begun) == ["a1", "a2", "a3", "a4", "a5", "a6", "b1", "b2", "c1"]


async def test_who_gives_up_takes_no_turn() -> None:
    s = Starts(places=2)
    await s.ask("a1", "a2", "a3", "b1")
    assert s.begun == ["a1", "b1"]
    await s.give_up("a2")
    await s.give_up("b1")  # it had its turn, and gives it back
    await s.ask("b2")
    await s.end("a1")
    assert s.begun == ["a1", "b1", "b2", "a3"]
    await s.end_all()
    await s.ask("c1", "d1")
    assert s.begun[4:] == ["c1", "d1"]
    await s.end_all()


async def test_a_turn_that_does_not_come() -> None:
    s = Starts(places=1, wait=0.01)
    await s.ask("a1")
    with pytest.raises(Unavailable, match=r"1 pods are being started, and its turn did not come in 0\.01 s"):
        async with s.turns.of("b"):
            pass
    await s.end_all()
    async with s.turns.of("b"):
        pass


async def test_what_is_no_tenants_does_not_wait() -> None:
    s, nobody = Starts(places=1), UNSET
    await s.ask("a1")
    tenant: Tenant = nobody
    async with s.turns.of(tenant), s.turns.of(tenant):
        pass
    await s.end_all()
