# SPDX-License-Identifier: Apache-2.0
"""The tables of supervisors are whole, and the documents draw them as they are."""

from __future__ import annotations

import asyncio
import contextlib
from dataclasses import dataclass
from enum import StrEnum
from pathlib import Path
from typing import Any

import pytest

from hypercontainer.engine.container import ContainerSupervisor
from hypercontainer.engine.pod import PodSupervisor
from hypercontainer.engine.sandbox import Sandbox
from hypercontainer.engine.supervisor import Job, Message, Supervisor
from hypercontainer.errors import InternalError, InvalidState, Unavailable

KINDS: list[Any] = [ContainerSupervisor, Sandbox, PodSupervisor]


@pytest.mark.parametrize("kind", KINDS)
def test_every_verb_is_answered_for_in_every_state(kind: Any) -> None:
    states = set(kind.TRANSITIONS)
    assert states == set(type(next(iter(states))))
    for verb, row in kind.HANDLERS.items():
        assert set(row) == states, verb
    assert all(follower in states for followers in kind.TRANSITIONS.values() for follower in followers)


@pytest.mark.parametrize(("kind", "title"), list(zip(KINDS, ["A container (", "A sandbox (", "A pod ("], strict=True)))
def test_the_documents_draw_the_tables(kind: Any, title: str, repository: Path) -> None:
    text = (repository / "docs/architecture.md").read_text().split(title)[-1].split("\n\n")[1]
    drawn = {}
    for line in text.splitlines():
        state, _, followers = line.partition("→")
        drawn[state.strip()] = {f.strip() for f in followers.partition("  ")[0].split(",") if f.strip()}
    assert drawn == {str(s): {str(f) for f in followers} for s, followers in kind.TRANSITIONS.items()}


class Door(StrEnum):
    """As small as a table can be."""

    OPEN = "open"
    SHUT = "shut"


@dataclass(eq=False)
class Shut(Message):
    """In its time."""


@dataclass(eq=False)
class Open(Message):
    """When it is shut."""


class Porter(Supervisor[Door]):
    """Shuts a door, which takes until `go`."""

    def __init__(self) -> None:
        super().__init__("the door", Door.OPEN)
        self.go = asyncio.Event()
        self.job: Job | None = None

    def shut(self, message: Shut) -> None:
        self.job = self.do(self.go.wait(), lambda job: self.is_shut(job, message))

    def is_shut(self, job: Job, message: Shut) -> None:
        if job.cancelled():
            message.reply.cancel()
            return
        self.move(Door.SHUT)
        message.answer("shut")

    def open(self, message: Open) -> None:
        self.move(Door.OPEN)
        message.answer("open")

    def shut_already(self, message: Shut) -> None:
        raise InvalidState("the door is shut")

    def drop_request(self, message: Message) -> None:
        self.end([self.job])


Porter.TRANSITIONS = {Door.OPEN: frozenset({Door.SHUT}), Door.SHUT: frozenset({Door.OPEN})}
Porter.HANDLERS = {
    Shut: {Door.OPEN: Porter.shut, Door.SHUT: Porter.shut_already},
    Open: {Door.OPEN: Porter.defer, Door.SHUT: Porter.open},
}


@contextlib.asynccontextmanager
async def porter() -> Any:
    door = Porter()
    try:
        async with asyncio.timeout(5):
            yield door
    finally:
        await door.detach()


async def test_what_is_deferred_is_taken_in_the_next_state() -> None:
    async with porter() as door:
        opening = asyncio.create_task(door.ask(Open()))
        shutting = asyncio.create_task(door.ask(Shut()))
        door.go.set()
        assert [await shutting, await opening] == ["shut", "open"]


async def test_an_error_is_the_answer_and_ends_nobody() -> None:
    async with porter() as door:
        door.go.set()
        await door.ask(Shut())
        with pytest.raises(InvalidState):
            await door.ask(Shut())
        assert await door.ask(Open()) == "open"
        with pytest.raises(InternalError, match="cannot go from open to open"):
            door.move(Door.OPEN)


async def test_who_gives_up_waiting_has_the_work_ended() -> None:
    async with porter() as door:
        asking = asyncio.create_task(door.ask(Shut()))
        while door.job is None:
            await asyncio.sleep(0)
        asking.cancel()
        with pytest.raises(asyncio.CancelledError):
            await asking
        assert door.job.cancelled() and door.state is Door.OPEN


async def test_a_deferred_message_that_is_given_up_is_not_taken() -> None:
    async with porter() as door:
        asking = asyncio.create_task(door.ask(Open()))
        await asyncio.sleep(0)
        asking.cancel()
        with pytest.raises(asyncio.CancelledError):
            await asking
        door.go.set()
        assert await door.ask(Shut()) == "shut"
        assert door.state is Door.SHUT


async def test_a_supervisor_that_dies_is_followed_by_another() -> None:
    async with porter() as door:
        door.go.set()
        await door.ask(Shut())
        door._task.cancel()
        assert await door.ask(Open()) == "open"


async def test_who_waits_for_one_that_leaves_hears_of_it() -> None:
    async with porter() as door:
        shutting, opening = asyncio.create_task(door.ask(Shut())), asyncio.create_task(door.ask(Open()))
        while door.job is None:
            await asyncio.sleep(0)
        await door.detach()
        opening.cancel()
        with pytest.raises(Unavailable, match="hyperd ends"):
            await shutting
        with pytest.raises((Unavailable, asyncio.CancelledError)):
            await opening


async def test_nothing_is_asked_of_one_that_has_left() -> None:
    async with porter() as door:
        await door.detach()
        with pytest.raises(Unavailable, match="hyperd ends"):
            await door.ask(Shut())
