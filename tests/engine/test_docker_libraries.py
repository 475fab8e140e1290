# SPDX-License-Identifier: Apache-2.0
"""docker-py and aiodocker: their streams, against the whole API over fakes."""

from __future__ import annotations

import asyncio
import contextlib
import threading
from collections.abc import AsyncIterator, Callable
from pathlib import Path
from typing import Any, TypeVar

import aiodocker
import docker
import pytest

from hypercontainer.guest.fake_process import FakeProcess
from hypercontainer.guest.fake_programs import PROGRAMS

from .served import Served, served
from .stage import IMAGE
from .test_docker_streams import run

T = TypeVar("T")
LIMIT = 60  # seconds: libraries wait in threads, which nobody can end


async def create(s: Served) -> None:
    """One whose stdin outlives its clients."""
    body = {"Image": IMAGE, "Cmd": ["cat"], "OpenStdin": True}
    assert (await s.ask("POST", "/v1.51/containers/create?name=a", body, docker=True)).status == 201


@contextlib.asynccontextmanager
async def library(s: Served) -> AsyncIterator[Callable[[Callable[[Any], T]], Any]]:
    """Gives what runs a piece of docker-py, which blocks, in a thread."""
    client = docker.DockerClient(base_url=f"unix://{s.docker}", version="1.51", timeout=LIMIT)
    answers: list[Any] = []  # docker-py leaves those of execs to the collector, which may come in another test
    client.api.hooks["response"].append(lambda answer, *_, **__: answers.append(answer))
    try:
        yield lambda work: asyncio.wait_for(asyncio.to_thread(work, client), LIMIT)
    finally:
        for answer in answers:
            with contextlib.suppress(ValueError):  # its file is closed already
                answer.close()
        await asyncio.to_thread(client.close)


async def test_docker_py_attaches(template: Path) -> None:
    async with served(template) as s, library(s) as call:
        await create(s)

        def talk(client: Any) -> bytes:
            container = client.containers.get("a")
            attached = container.attach_socket(params={"stdin": 1, "stdout": 1, "stream": 1})
            container.start()
            attached._sock.sendall(b"hello\n")
            said: bytes = attached.read(8 + 6)
            attached._sock.close()
            attached.close()
            container.kill()
            assert container.wait()["StatusCode"] == 137
            return said

        assert (await call(talk))[8:] == b"hello\n"


async def _echo_later(p: FakeProcess) -> int:
    """docker-py reads past its own buffer: what comes in one piece with the head of the answer is lost to it."""
    await asyncio.sleep(0.3)
    await p.write(" ".join(p.args[1:]).encode() + b"\n")
    return 0


async def test_docker_py_executes(template: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setitem(PROGRAMS, "echo", _echo_later)
    async with served(template) as s, library(s) as call:
        await run(s, "sleep", "1000")

        def execute(client: Any) -> list[Any]:
            container = client.containers.get("a")
            plain = container.exec_run(["echo", "plain"])
            streamed = container.exec_run(["echo", "streamed"], stream=True)
            apart = container.exec_run(["echo", "apart"], demux=True)
            failed = container.exec_run(["exit", "3"])
            _, socket = container.exec_run(["cat"], stdin=True, socket=True)
            socket._sock.sendall(b"typed\n")
            typed = socket.read(8 + 6)[8:]
            socket._sock.close()
            socket.close()
            return [plain.exit_code, plain.output, b"".join(streamed.output), apart.output, failed.exit_code, typed]

        assert await call(execute) == [0, b"plain\n", b"streamed\n", (b"apart\n", None), 3, b"typed\n"]


def end(stream: Any) -> None:
    """Close what docker-py leaves to the collector: its own close() leaves what reads from the socket."""
    stream.close()
    stream._response.close()


async def test_docker_py_follows(template: Path) -> None:
    async with served(template) as s, library(s) as call:
        await run(s, "cat", stdin=True)
        standing = threading.Event()

        def follow(client: Any) -> tuple[Any, list[str], list[bytes]]:
            container = client.containers.get("a")
            statistics = container.stats(stream=False)  # a stream of these cannot be closed but by the collector
            happening = client.events(decode=True, filters={"event": ["kill", "die"]})
            standing.set()
            log = container.logs(stream=True, follow=True, timestamps=False)
            lines = list(log)
            found = [next(happening)["Action"] for _ in range(2)]
            end(log)
            end(happening)
            return statistics["name"], found, lines

        following = asyncio.create_task(call(follow))
        async with asyncio.timeout(LIMIT):
            while not standing.is_set():
                await asyncio.sleep(0.01)
        await s.stage.engine.containers.kill("a", "KILL")
        assert await following == ("/a", ["kill", "die"], [])


async def test_aiodocker(template: Path) -> None:
    async with served(template) as s:
        await create(s)
        async with asyncio.timeout(LIMIT), aiodocker.Docker(url=f"unix://{s.docker}", api_version="v1.44") as client:
            container = await client.containers.get("a")
            socket = await container.websocket(stdin=True, stdout=True, stream=True)
            await container.start()
            await socket.send_bytes(b"hello\n")
            assert await socket.receive_bytes() == b"hello\n"
            await socket.close()
            async with container.attach(stdin=True, stdout=True, stderr=True) as attached:
                await attached.write_in(b"again\n")
                message = await attached.read_out()
                assert message is not None and message.data == b"again\n"
            made = await container.exec(["cat"], stdin=True)
            async with made.start(detach=False) as stream:
                await stream.write_in(b"typed\n")
                message = await stream.read_out()
                assert message is not None and (message.stream, message.data) == (1, b"typed\n")
            assert "".join(await container.log(stdout=True)) == "hello\nagain\n"
            assert (await container.stats(stream=False))[0]["name"] == "/a"
            await container.kill()
            assert (await container.wait())["StatusCode"] == 137
