# SPDX-License-Identifier: Apache-2.0
"""Whoever asks is the owner of what is made, and is named by the events of it, whoever does the work."""

from __future__ import annotations

from collections.abc import Awaitable
from pathlib import Path
from typing import TypeVar

from hypercontainer.engine.principal import asked_by
from hypercontainer.model.principal import Principal
from hypercontainer.model.specs import ContainerSpec, RestartPolicy

from .stage import IMAGE, Stage, play, stage

T = TypeVar("T")
ALICE, BOB = Principal("uid:1000"), Principal("uid:1001")


async def by(who: Principal, work: Awaitable[T]) -> T:
    with asked_by(who):
        return await work


def test_verbs_are_those_of_whoever_asked(template: Path) -> None:
    async def scenario(s: Stage) -> None:
        await s.open()
        containers = s.engine.containers
        spec = ContainerSpec(image=IMAGE, name="a", command=["sleep", "1000"], restart=RestartPolicy(name="always"))
        made = await s.call(by(ALICE, containers.create(spec)))
        assert (made.owner, s.engine.registry.pod(made.pod).owner) == ("uid:1000", "uid:1000")
        await s.call(by(BOB, containers.start("a")))
        await s.call(by(ALICE, containers.pause("a")))
        await s.call(by(BOB, containers.unpause("a")))
        await s.call(by(BOB, containers.stop("a")))
        await s.call(by(ALICE, containers.remove("a")))
        told = [(e.action, e.principal) for e in s.engine.events.past() if e.type == "container"]
        asked = [("create", "uid:1000"), ("start", "uid:1001"), ("pause", "uid:1000"), ("unpause", "uid:1001")]
        assert told[: len(asked)] == asked
        assert ("stop", "uid:1001") in told and told[-1] == ("destroy", "uid:1000")
        assert {who for action, who in told if action == "die"} == {""}
        await s.check()
        await s.close()

    with stage(template) as s:
        play(s, scenario)


def test_a_restart_by_its_policy_was_asked_for_by_nobody(template: Path) -> None:
    async def scenario(s: Stage) -> None:
        await s.open()

        async def attached() -> None:
            """A client that stays, as `hyperctl run` does."""
            policy = RestartPolicy(name="on-failure", max_retries=2)
            spec = ContainerSpec(image=IMAGE, name="a", command=["exit", "7"], restart=policy)
            await s.engine.containers.create(spec)
            await s.engine.containers.start("a")
            while s.engine.registry.container("a").state.restart_count < 2 or s.status("a") != "exited":
                await s.engine.registry.changed.wait()

        await s.call(by(ALICE, attached()))
        told = [(e.action, e.principal) for e in s.engine.events.past() if e.action in ("create", "start")]
        assert told == [("create", "uid:1000"), ("start", "uid:1000"), ("start", ""), ("start", "")]
        await s.clear()
        await s.close()

    with stage(template) as s:
        play(s, scenario)
