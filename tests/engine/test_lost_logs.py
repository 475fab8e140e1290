# SPDX-License-Identifier: Apache-2.0
"""A log that cannot be opened holds the output back, is told, and ends nothing."""

from __future__ import annotations

import asyncio
from pathlib import Path

import pytest

from hypercontainer.engine.attach.fake import FakePeer
from hypercontainer.engine.attach.peer import Input
from hypercontainer.engine.attach.session import AttachOptions
from hypercontainer.engine.logs import read
from hypercontainer.errors import NoSpace
from hypercontainer.model.specs import LogOptions, RestartPolicy

from .stage import Stage, play, stage, whole


async def _failed(s: Stage) -> list[str]:
    return [c.found for c in await s.call(s.engine.doctor()) if c.name == "log"]


def test_a_log_that_is_not_there_when_the_daemon_comes_back(template: Path, tmp_path: Path) -> None:
    """As on a file system that is mounted late."""
    place, away = tmp_path / "place", tmp_path / "away"
    place.mkdir()

    async def scenario(s: Stage) -> None:
        log = LogOptions(path=str(place / "box.log"))
        await s.create("a", "cat", stdin=True, log=log)
        peer = FakePeer()
        peer.says(Input(b"one\n"))
        session = s.engine.attachments.container("a", AttachOptions(), starts=True)
        running = asyncio.create_task(s.call(session.run(peer)))
        await peer.until(b"one\n")
        peer.goes()
        await running
        await s.close(keep_running=True)
        place.rename(away)

        await s.open()
        assert s.status("a") == "running"
        assert s.engine.registry.container("a").state.log_error == "No such file or directory"
        assert await _failed(s) == ["the log of container a cannot be written: No such file or directory"]
        peer = FakePeer()
        peer.says(Input(b"two\n"))
        running = asyncio.create_task(s.call(s.engine.attachments.container("a", AttachOptions()).run(peer)))
        await peer.until(b"two\n")
        away.rename(place)
        await asyncio.sleep(2)
        assert await _failed(s) == [] and s.engine.registry.container("a").state.log_error == ""
        assert [r.log for r in read(place / "box.log")] == ["one\n", "two\n"]
        peer.goes()
        await running

    with stage(template) as s:
        play(s, whole(scenario))


@pytest.mark.parametrize("host_went_down", [False, True])
def test_a_log_that_is_not_there_when_a_new_daemon_starts_it_by_its_policy(
    template: Path, tmp_path: Path, host_went_down: bool
) -> None:
    place, away = tmp_path / "place", tmp_path / "away"
    place.mkdir()

    async def scenario(s: Stage) -> None:
        log = LogOptions(path=str(place / "box.log"))
        await s.run("a", "after", "1000" if host_went_down else "1", "3", log=log, restart=RestartPolicy(name="always"))
        await asyncio.sleep(1.05)
        assert s.status("a") == ("running" if host_went_down else "restarting")
        if host_went_down:
            s.kill()
            for machine in list(s.host.machines.values()):
                machine.die()
        else:
            await s.close(keep_running=True)
        place.rename(away)

        await s.open()
        while s.status("a") != "running":
            await asyncio.sleep(0.05)
        assert s.engine.registry.container("a").state.log_error == "No such file or directory"
        away.rename(place)
        await asyncio.sleep(2)
        assert s.engine.registry.container("a").state.log_error == ""
        told = [e.action for e in s.engine.events.past() if e.action.startswith("log_")]
        assert told == ["log_failed", "log_written"]

    with stage(template) as s:
        play(s, whole(scenario))


def test_a_log_that_is_not_there_at_a_start(template: Path, tmp_path: Path) -> None:
    """Whoever starts it hears of it; a start by its policy goes on without."""
    place = tmp_path / "place"

    async def scenario(s: Stage) -> None:
        policy = RestartPolicy(name="always")
        await s.create("a", "after", "30", "1", log=LogOptions(path=str(place / "box.log")), restart=policy)
        with pytest.raises(NoSpace, match="the log cannot be written: No such file or directory"):
            await s.call(s.engine.containers.start("a"))
        place.mkdir()
        await s.call(s.engine.containers.start("a"))
        (place / "box.log").unlink()
        (place / "box.log.offsets").unlink()
        place.rmdir()
        while s.engine.registry.container("a").state.restart_count < 1 or s.status("a") != "running":
            await asyncio.sleep(1)
        assert len(await _failed(s)) == 1
        place.mkdir()
        await asyncio.sleep(2)
        assert await _failed(s) == []

    with stage(template) as s:
        play(s, whole(scenario))
