# SPDX-License-Identifier: Apache-2.0
"""Clients attached to containers and further processes, by the whole engine."""

from __future__ import annotations

import asyncio
from collections.abc import Awaitable, Callable
from pathlib import Path
from typing import Any

import pytest

from hypercontainer.engine import execs
from hypercontainer.engine.attach.fake import FakePeer
from hypercontainer.engine.attach.peer import End, Input, InputEnd
from hypercontainer.engine.attach.session import AttachOptions
from hypercontainer.errors import InvalidState, NotFound, StartFailed
from hypercontainer.model.specs import ContainerSpec, ExecSpec

from .stage import IMAGE, Stage, play, stage, whole

KEYS = Input(b"\x10\x11")


async def attach(s: Stage, key: str, peer: FakePeer, *, starts: bool = False, **options: bool) -> None:
    session = s.engine.attachments.container(key, AttachOptions(**options), starts=starts)
    await s.call(session.run(peer))


async def execute(s: Stage, peer: FakePeer, *command: str, tty: bool = False) -> None:
    exec_ = s.engine.execs.create("a", ExecSpec(command=list(command), stdin=True, tty=tty))
    await s.call(s.engine.attachments.exec(exec_, AttachOptions()).run(peer))


async def run_to_its_end(s: Stage) -> None:
    """What `run -i --rm` does: started and attached to, input and its end, nothing left when the client hears it."""
    await s.create("a", "cat", stdin=True, auto_remove=True)
    peer = FakePeer()
    peer.says(Input(b"hello\n"), InputEnd())
    await attach(s, "a", peer, starts=True)
    assert (peer.output(), peer.end) == (b"hello\n", End(exit_code=0))
    assert not s.engine.registry.containers()


async def detach_and_attach_again(s: Stage) -> None:
    await s.create("a", "cat", stdin=True, tty=True)
    peer = FakePeer()
    peer.says(Input(b"one\n"))
    running = asyncio.create_task(attach(s, "a", peer, starts=True))
    await peer.until(b"one\n")
    peer.says(KEYS)
    await running
    assert peer.end == End(detached=True) and s.status("a") == "running"
    peer = FakePeer()
    peer.says(Input(b"two\n"))
    running = asyncio.create_task(attach(s, "a", peer, logs=True))
    await peer.until(b"two\n")
    assert peer.output() == b"one\ntwo\n"
    await s.call(s.engine.containers.kill("a", "KILL"))
    await running
    assert peer.end == End(exit_code=137)


async def the_log_of_what_has_ended(s: Stage) -> None:
    await s.run("a", "echo", "hello")
    await s.call(s.engine.containers.wait("a"))
    with pytest.raises(InvalidState, match="container a is not running"):
        s.engine.attachments.container("a", AttachOptions())
    peer = FakePeer()
    await attach(s, "a", peer, logs=True, stream=False)
    assert (peer.output(), peer.end) == (b"hello\n", End())


async def further_processes(s: Stage) -> None:
    await s.run("a", "sleep", "1000")
    peer = FakePeer()
    peer.says(Input(b"x"), InputEnd())
    await execute(s, peer, "cat")
    assert (peer.output(), peer.end) == (b"x", End(exit_code=0))
    peer = FakePeer()
    await execute(s, peer, "exit", "3")
    assert peer.end == End(exit_code=3)
    peer = FakePeer()
    await execute(s, peer, "no-such-program")
    assert peer.end and isinstance(peer.end.error, StartFailed) and peer.end.error.exit_status == 127
    peer = FakePeer()
    peer.says(KEYS)
    await execute(s, peer, "sleep", "1000", tty=True)
    assert peer.end == End(detached=True)


async def a_client_that_a_process_is_bound_to(s: Stage) -> None:
    """It attaches before somebody else starts the process, which ends with it; one who types the keys lets it go on."""
    await s.create("a", "cat", stdin=True, tty=True)
    for told, status in ((None, "exited"), (KEYS, "running")):
        peer = FakePeer()
        session = s.engine.attachments.container("a", AttachOptions(bound=True), early=True)
        running = asyncio.create_task(s.call(session.run(peer)))
        await s.call(s.engine.containers.start("a"))
        peer.says(Input(b"x"))
        await peer.until(b"x")
        assert s.status("a") == "running"
        peer.says(told) if told else peer.goes()
        await running
        assert s.status("a") == status
    exec_ = s.engine.execs.create("a", ExecSpec(command=["cat"], stdin=True, detach=True))
    peer = FakePeer()
    session = s.engine.attachments.exec(exec_, AttachOptions(bound=True), starts=False)
    running = asyncio.create_task(s.call(session.run(peer)))
    await s.call(s.engine.execs.start(exec_))
    peer.says(Input(b"y"))
    await peer.until(b"y")
    peer.goes()
    await running
    await s.call(exec_.ended.wait())
    assert exec_.exit_code == 137 and s.status("a") == "running"
    starting = s.engine.execs.create("a", ExecSpec(command=["sleep", "1000"], detach=True))
    begun = asyncio.create_task(s.call(s.engine.execs.start(starting)))
    while not starting.started:
        await asyncio.sleep(0)
    assert starting.handle is None
    await s.call(s.engine.execs.signal(starting.id, "KILL"))  # one that is just being started is waited for
    await begun
    await s.call(starting.ended.wait())
    assert starting.exit_code == 137


async def a_bound_client_that_goes_before_the_start(s: Stage) -> None:
    await s.create("a", "cat", stdin=True)
    peer = FakePeer()
    peer.goes()
    await s.call(s.engine.attachments.container("a", AttachOptions(bound=True), early=True).run(peer))
    assert s.status("a") == "created"


async def a_client_that_goes(s: Stage) -> None:
    """While it starts, the start is given up; while it runs, the container goes on."""
    await s.create("a", "sleep", "1000")
    peer = FakePeer()
    running = asyncio.create_task(attach(s, "a", peer, starts=True))
    while not s.engine.registry.container("a").state.starting:
        await asyncio.sleep(0)
    peer.goes()
    await running
    await s.check()
    assert s.status("a") == "exited"
    await s.call(s.engine.containers.start("a"))
    peer = FakePeer()
    running = asyncio.create_task(attach(s, "a", peer))
    while not peer.opened:
        await asyncio.sleep(0)
    peer.goes()
    await running
    assert s.status("a") == "running" and peer.end is None


async def a_client_that_has_gone_before(s: Stage) -> None:
    """It asked for a container that is made to be started, and removed."""
    made = await s.call(s.engine.containers.create(ContainerSpec(image=IMAGE, auto_remove=True), starting=True))
    peer = FakePeer()
    peer.goes()
    await attach(s, made.id, peer, starts=True)
    await s.check()
    assert not s.engine.registry.containers()


async def who_a_container_is_bound_to_comes_back(s: Stage) -> None:
    """Or it is killed: what stands for it on its host may end while there is no daemon."""
    await s.run("a", "sleep", "1000", bound=True)
    await s.run("b", "sleep", "1000", bound=True)
    s.kill()
    await s.open()
    peer = FakePeer()
    session = s.engine.attachments.container("a", AttachOptions(bound=True))
    running = asyncio.create_task(s.call(session.run(peer)))
    await asyncio.sleep(30)
    assert (s.status("a"), s.status("b")) == ("running", "exited")
    peer.goes()
    await running
    assert s.status("a") == "exited"


SCENES = [
    run_to_its_end,
    detach_and_attach_again,
    the_log_of_what_has_ended,
    further_processes,
    a_client_that_goes,
    a_client_that_has_gone_before,
    a_client_that_a_process_is_bound_to,
    a_bound_client_that_goes_before_the_start,
    who_a_container_is_bound_to_comes_back,
]


@pytest.mark.parametrize("scene", SCENES, ids=lambda f: f.__name__)
def test_attached(template: Path, scene: Callable[[Stage], Awaitable[None]]) -> None:
    with stage(template) as s:
        play(s, whole(scene))


def test_further_processes_that_nobody_starts_are_forgotten(act: Any, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(execs, "_NEW", 3)

    async def scenario(s: Stage) -> None:
        await s.run("a", "sleep", "100")
        running = s.engine.execs.create("a", ExecSpec(command=["sleep", "100"]))
        await s.call(s.engine.execs.start(running))
        made = [s.engine.execs.create("a", ExecSpec(command=["true"])) for _ in range(5)]
        for gone in made[:2]:
            with pytest.raises(NotFound, match="no such exec"):
                s.engine.execs.get(gone.id)
        assert [s.engine.execs.get(e.id) for e in (running, *made[2:])] == [running, *made[2:]]

    act(scenario)
