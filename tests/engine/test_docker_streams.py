# SPDX-License-Identifier: Apache-2.0
"""Docker's Engine API: attach, wait, exec, and what becomes of their connections."""

from __future__ import annotations

import asyncio
import contextlib
import json
from collections.abc import AsyncIterator
from pathlib import Path
from typing import Any

import pytest

from hypercontainer.engine.attach.peer import HEADER, frame
from hypercontainer.model.specs import ContainerSpec

from .served import Answer, Served, read_answer, served
from .stage import IMAGE

UPGRADE = {"Connection": "Upgrade", "Upgrade": "tcp"}
ALL = "stream=1&stdin=1&stdout=1&stderr=1"


class Hijack:
    """A connection that a request was answered on, and is HTTP no more."""

    def __init__(self, answer: Answer, reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        self.answer, self.reader, self.writer = answer, reader, writer

    async def rest(self) -> bytes:
        """All until the end."""
        async with asyncio.timeout(20):
            return await self.reader.read()

    async def frames(self) -> list[tuple[int, bytes]]:
        data, found = await self.rest(), []
        while data:
            kind, length = HEADER.unpack_from(data)
            found.append((kind, data[HEADER.size : HEADER.size + length]))
            assert len(found[-1][1]) == length, "a frame that is cut off"
            data = data[HEADER.size + length :]
        return found

    async def read(self, count: int) -> bytes:
        async with asyncio.timeout(20):
            return await self.reader.readexactly(count)


@contextlib.asynccontextmanager
async def hijack(
    s: Served, path: str, body: Any = None, *, headers: dict[str, str] | None = None, early: bytes = b""
) -> AsyncIterator[Hijack]:
    """`early` is sent together with the request."""
    reader, writer = await s.open(docker=True)
    data = b"" if body is None else json.dumps(body).encode()
    fields = {"Host": "x", "Content-Length": str(len(data)), **(UPGRADE if headers is None else headers)}
    head = f"POST {path} HTTP/1.1\r\n" + "".join(f"{k}: {v}\r\n" for k, v in fields.items()) + "\r\n"
    writer.write(head.encode() + data + early)
    try:
        async with asyncio.timeout(20):
            top = await reader.readuntil(b"\r\n\r\n")
        first, *lines = top.decode().split("\r\n")
        named = {k.lower(): v.strip() for k, _, v in (x.partition(":") for x in lines if x)}
        body_ = await reader.readexactly(int(named["content-length"])) if "content-length" in named else b""
        yield Hijack(Answer(int(first.split()[1]), named, body_), reader, writer)
    finally:
        writer.close()


async def create(s: Served, *command: str, **spec: Any) -> str:
    made = await s.stage.engine.containers.create(ContainerSpec(image=IMAGE, name="a", command=list(command), **spec))
    return made.id


async def run(s: Served, *command: str, **spec: Any) -> None:
    await s.stage.engine.containers.start(await create(s, *command, **spec))


async def made_exec(s: Served, **config: Any) -> str:
    both = {"AttachStdout": True, "AttachStderr": True}
    answer = await s.ask("POST", "/v1.51/containers/a/exec", {**both, **config}, docker=True)
    assert answer.status == 201, answer.body
    return str(answer.json["Id"])


# -- attach -----------------------------------------------------------------------


@pytest.mark.parametrize("upgrades", [True, False])
@pytest.mark.parametrize("tty", [True, False])
@pytest.mark.parametrize("version", ["1.41", "1.51"])
async def test_an_attachment_before_the_start_hears_all(
    template: Path, upgrades: bool, tty: bool, version: str
) -> None:
    """As `docker run -i`: create, attach, wait, start; the client ends its half, and hears the rest."""
    async with served(template) as s:
        await create(s, "cat" if not tty else "echo", *([] if not tty else ["hello"]), stdin=True, tty=tty)
        headers: dict[str, str] | None = None if upgrades else {}
        async with hijack(s, f"/v{version}/containers/a/attach?{ALL}", headers=headers) as client:
            answer = client.answer
            assert answer.status == (101 if upgrades else 200)
            assert answer.headers.get("upgrade") == ("tcp" if upgrades else None)
            assert "transfer-encoding" not in answer.headers
            multiplexed = not tty and version == "1.51"
            kind = "multiplexed" if multiplexed else "raw"
            assert answer.headers["content-type"] == f"application/vnd.docker.{kind}-stream"
            client.writer.write(b"hello\n")
            client.writer.write_eof()
            await s.stage.engine.containers.start("a")
            assert await client.rest() == (b"hello\n" if tty else frame(1, b"hello\n"))


async def test_who_sends_input_before_the_answer_loses_it_and_no_more(template: Path) -> None:
    """As in Docker, whose server drops what it has read of HTTP by then."""
    async with served(template) as s:
        await run(s, "cat", stdin=True)
        async with hijack(s, f"/containers/a/attach?{ALL}", early=b"early\n") as client:
            client.writer.write(b"late\n")
            client.writer.write_eof()
            assert await client.frames() == [(1, b"late\n")]


@pytest.mark.parametrize("once", [True, False])
async def test_stdin_stays_open_unless_it_is_opened_once(template: Path, once: bool) -> None:
    """Without StdinOnce a client that goes is followed by the next one, as compose's `stdin_open` has it."""
    async with served(template) as s:
        body = {"Image": IMAGE, "Cmd": ["cat"], "OpenStdin": True, "StdinOnce": once}
        assert (await s.ask("POST", "/v1.51/containers/create?name=a", body, docker=True)).status == 201
        await s.stage.engine.containers.start("a")
        async with hijack(s, f"/containers/a/attach?{ALL}") as first:
            first.writer.write(b"one\n")
            first.writer.write_eof()
            assert await first.read(12) == frame(1, b"one\n")
            if once:
                assert await first.rest() == b""
                return
            async with hijack(s, f"/containers/a/attach?{ALL}") as second:
                second.writer.write(b"two\n")
                assert await second.read(12) == frame(1, b"two\n") == await first.read(12)


async def test_only_the_streams_that_are_asked_for(template: Path) -> None:
    async with served(template) as s:
        await create(s, "echo", "out")
        async with hijack(s, "/containers/a/attach?stream=1&stderr=1") as client:
            await s.stage.engine.containers.start("a")
            assert await client.frames() == []


async def test_input_that_is_not_asked_for_is_dropped(template: Path) -> None:
    async with served(template) as s:
        await run(s, "cat", stdin=True)
        async with (
            hijack(s, "/containers/a/attach?stream=1&stdout=1") as deaf,
            hijack(s, f"/containers/a/attach?{ALL}") as client,
        ):
            deaf.writer.write(b"not this\n")
            deaf.writer.write_eof()
            client.writer.write(b"this\n")
            assert await client.read(13) == frame(1, b"this\n") == await deaf.read(13)
            client.writer.write_eof()
            assert await client.frames() == [] == await deaf.frames()


async def test_the_log_and_what_follows(template: Path) -> None:
    async with served(template) as s:
        await run(s, "cat", stdin=True)
        async with hijack(s, f"/containers/a/attach?{ALL}") as first:
            first.writer.write(b"one\n")
            assert await first.read(12) == frame(1, b"one\n")
            async with hijack(s, f"/containers/a/attach?{ALL}&logs=1") as second:
                assert await second.read(12) == frame(1, b"one\n")
                second.writer.write(b"two\n")
                assert await second.read(12) == frame(1, b"two\n")
            async with hijack(s, "/containers/a/attach?logs=1&stdout=1") as third:
                assert await third.frames() == [(1, b"one\n"), (1, b"two\n")]


async def test_the_keys_detach(template: Path) -> None:
    async with served(template) as s:
        await run(s, "cat", stdin=True, tty=True)
        for keys, typed in (("", b"\x10\x11"), ("ctrl-a,q", b"\x01q")):
            async with hijack(s, f"/containers/a/attach?{ALL}&detachKeys={keys}") as client:
                client.writer.write(b"x" + typed)
                assert await client.rest() in (b"", b"x")
        assert s.stage.status("a") == "running"
        answer = await s.ask("POST", "/containers/a/attach?stream=1&detachKeys=nonsense", docker=True)
        assert answer.status == 400


async def test_who_cannot_be_attached_to(template: Path) -> None:
    async with served(template) as s:
        async with hijack(s, f"/containers/none/attach?{ALL}") as client:
            assert client.answer.status == 404 and "no such container" in client.answer.json["message"].lower()
        await run(s, "sleep", "1000")
        await s.stage.engine.containers.pause("a")
        async with hijack(s, f"/containers/a/attach?{ALL}") as client:
            assert client.answer.status == 409 and "paused" in client.answer.json["message"]


# -- wait -------------------------------------------------------------------------


@pytest.mark.parametrize("condition", ["next-exit", "not-running", "removed", ""])
async def test_the_head_comes_before_the_end(template: Path, condition: str) -> None:
    async with served(template) as s:
        await create(s, "exit", "3", auto_remove=condition == "removed")
        if condition in ("", "not-running"):
            await s.stage.engine.containers.start("a")
        reader, writer = await s.open(docker=True)
        writer.write(f"POST /v1.51/containers/a/wait?condition={condition} HTTP/1.1\r\nHost: x\r\n\r\n".encode())
        async with asyncio.timeout(20):
            head = await reader.readuntil(b"\r\n\r\n")
            assert b" 200 " in head
            if condition in ("next-exit", "removed"):
                await s.stage.engine.containers.start("a")
            size = int(await reader.readline(), 16)
            assert json.loads(await reader.readexactly(size)) == {"StatusCode": 3}
        writer.close()


async def test_wait_for_what_does_not_run(template: Path) -> None:
    async with served(template) as s:
        await run(s, "exit", "4")
        await s.stage.engine.containers.wait("a")
        for version in ("1.24", "1.51"):
            reader, writer = await s.open(docker=True)
            writer.write(
                f"POST /v{version}/containers/a/wait HTTP/1.1\r\nHost: x\r\nConnection: close\r\n\r\n".encode()
            )
            async with asyncio.timeout(20):
                answer = await read_answer(reader)
            assert answer.status == 200 and b'"StatusCode":4' in answer.body
            writer.close()
        bad = await s.ask("POST", "/containers/a/wait?condition=never", docker=True)
        assert (bad.status, bad.json) == (400, {"message": 'invalid condition: "never"'})
        assert (await s.ask("POST", "/containers/none/wait", docker=True)).status == 404


async def test_a_machine_that_dies_is_told(template: Path) -> None:
    async with served(template) as s:
        await run(s, "sleep", "1000")
        async with (
            hijack(s, f"/containers/a/attach?{ALL}") as client,
            hijack(s, "/containers/a/wait?condition=next-exit", headers={"Connection": "close"}) as waiting,
        ):
            s.stage.machine("a").die()
            told = await client.frames()
            assert [kind for kind, _ in told] == [2] and b"virtual machine ended unexpectedly" in told[0][1]
            end = await waiting.rest()
            assert b'"StatusCode":255' in end and b"virtual machine ended unexpectedly" in end


# -- exec -------------------------------------------------------------------------


async def test_a_further_process(template: Path) -> None:
    async with served(template) as s:
        await run(s, "sleep", "1000")
        id_ = await made_exec(s, Cmd=["cat"], AttachStdin=True, User="5", Env=["A=b"], WorkingDir="/tmp")
        found = (await s.ask("GET", f"/exec/{id_}/json", docker=True)).json
        assert (found["Running"], found["ExitCode"], found["OpenStdin"], found["CanRemove"]) == (
            False,
            None,
            True,
            False,
        )
        assert found["ContainerID"] == s.stage.engine.registry.container("a").id
        assert found["ProcessConfig"] == {
            "tty": False, "entrypoint": "cat", "arguments": [], "privileged": False, "user": "5"
        }  # fmt: skip
        async with hijack(s, f"/exec/{id_}/start", {"Detach": False, "Tty": False}) as client:
            assert client.answer.status == 101
            client.writer.write(b"hello\n")
            client.writer.write_eof()
            assert await client.frames() == [(1, b"hello\n")]
        found = (await s.ask("GET", f"/exec/{id_}/json", docker=True)).json
        assert (found["Running"], found["ExitCode"], found["CanRemove"]) == (False, 0, False)
        again = await s.ask("POST", f"/exec/{id_}/start", {}, docker=True)
        assert again.status == 409


async def test_an_exec_that_cannot_be_executed_says_so_in_its_output(template: Path) -> None:
    async with served(template) as s:
        await run(s, "sleep", "1000")
        id_ = await made_exec(s, Cmd=["no-such-program"])
        async with hijack(s, f"/exec/{id_}/start", {}) as client:
            assert [kind for kind, _ in await client.frames()] == [1]
        assert (await s.ask("GET", f"/exec/{id_}/json", docker=True)).json["ExitCode"] == 127
        id_ = await made_exec(s, Cmd=["no-such-program"])
        assert (await s.ask("POST", f"/exec/{id_}/start", {"Detach": True}, docker=True)).status == 400


async def test_a_detached_exec(template: Path) -> None:
    async with served(template) as s:
        await run(s, "sleep", "1000")
        id_ = await made_exec(s, Cmd=["exit", "3"])
        assert (await s.ask("POST", f"/exec/{id_}/start", {"Detach": True}, docker=True)).status == 200
        await s.stage.engine.execs.get(id_).ended.wait()
        assert (await s.ask("GET", f"/exec/{id_}/json", docker=True)).json["ExitCode"] == 3


@pytest.mark.parametrize(
    ("method", "path", "body", "status"),
    [
        ("POST", "/containers/none/exec", {"Cmd": ["x"]}, 404),
        ("POST", "/containers/a/exec", {}, 400),
        ("POST", "/containers/a/exec", {"Cmd": 5}, 400),
        ("POST", "/exec/none/start", {}, 404),
        ("POST", "/exec/none/resize?h=1&w=1", None, 404),
        ("GET", "/exec/none/json", None, 404),
        ("POST", "/containers/a/resize?h=1", None, 400),
        ("POST", "/containers/a/resize?h=x&w=1", None, 400),
        ("POST", "/containers/a/resize?h=70000&w=1", None, 400),
        ("POST", "/containers/a/resize?h=1&w=1", None, 409),
        ("POST", "/containers/a/exec", {"Cmd": ["x"]}, 409),
    ],
)
async def test_what_is_refused(template: Path, method: str, path: str, body: Any, status: int) -> None:
    async with served(template) as s:
        await create(s, "sleep", "1000")
        answer = await s.ask(method, path, body, docker=True)
        assert answer.status == status and list(answer.json) == ["message"], answer.body


# -- connections that end otherwise ----------------------------------------------------


@pytest.mark.parametrize("half_first", [False, True])
async def test_a_client_that_goes_is_let_go(template: Path, half_first: bool) -> None:
    """Also one that had ended its half, on whose connection nothing is read any more."""
    async with served(template) as s:
        await run(s, "sleep", "1000", stdin=True)
        fan_out = s.stage.engine.containers.supervisor(s.stage.engine.registry.container("a")).fan_out
        async with hijack(s, f"/containers/a/attach?{ALL}") as client:
            assert len(fan_out._readers) == 1
            if half_first:
                client.writer.write_eof()
                answer = await s.ask("GET", "/_ping", docker=True)  # by then it is known
                assert answer.status == 200 and len(fan_out._readers) == 1
        async with asyncio.timeout(20):
            while fan_out._readers:
                await asyncio.sleep(0.01)
        assert s.stage.status("a") == "running"


async def test_input_that_nobody_reads_does_not_break_the_end(template: Path) -> None:
    """A connection that is closed with bytes unread is reset, and the client takes that for an error."""
    async with served(template) as s:
        await create(s, "echo", "done", stdin=True)
        async with hijack(s, f"/containers/a/attach?{ALL}") as client:
            client.writer.write(bytes(1 << 20))
            await s.stage.engine.containers.start("a")
            assert await client.frames() == [(1, b"done\n")]


# -- logs and stats -----------------------------------------------------------------


def frames_of(data: bytes) -> list[tuple[int, bytes]]:
    found = []
    while data:
        kind, length = HEADER.unpack_from(data)
        found.append((kind, data[HEADER.size : HEADER.size + length]))
        data = data[HEADER.size + length :]
    return found


async def log(s: Served, query: str, version: str = "1.51") -> Answer:
    """As a client of HTTP/1.0, to which no chunks are sent."""
    reader, writer = await s.open(docker=True)
    writer.write(f"GET /v{version}/containers/a/logs?{query} HTTP/1.0\r\nHost: x\r\n\r\n".encode())
    async with asyncio.timeout(20):
        answer = await read_answer(reader)
    writer.close()
    return answer


async def test_the_log_as_it_was_written(template: Path) -> None:
    async with served(template) as s:
        await run(s, "cat", stdin=True)
        async with hijack(s, f"/containers/a/attach?{ALL}") as client:
            client.writer.write(b"one\ntwo\nlast")
            client.writer.write_eof()
            await client.rest()
        await s.stage.engine.containers.wait("a")
        lines = [(1, b"one\n"), (1, b"two\n"), (1, b"last")]
        answer = await log(s, "stdout=1&stderr=1")
        assert answer.headers["content-type"] == "application/vnd.docker.multiplexed-stream"
        assert frames_of(answer.body) == lines
        assert (await log(s, "stdout=1", "1.41")).headers["content-type"] == "application/vnd.docker.raw-stream"
        assert frames_of((await log(s, "stderr=1")).body) == []
        for tail, shown in (("1", lines[2:]), ("0", []), ("all", lines), ("-1", lines), ("", lines)):
            assert frames_of((await log(s, f"stdout=1&follow=1&tail={tail}")).body) == shown, tail
        assert frames_of((await log(s, "stdout=1&details=1&tail=1")).body) == [(1, b" last")]
        timed = [text.split(b" ", 1) for _, text in frames_of((await log(s, "stdout=1&timestamps=1")).body)]
        assert [text for _, text in timed] == [text for _, text in lines]
        assert all(len(time) == 30 and time.endswith(b"Z") for time, _ in timed)
        past = "1500000000.000000001"
        assert frames_of((await log(s, f"stdout=1&since={past}&until=0")).body) == lines
        assert frames_of((await log(s, f"stdout=1&until={past}")).body) == []


async def test_a_terminal_s_log_is_raw_and_is_followed_to_the_end(template: Path) -> None:
    async with served(template) as s:
        await run(s, "cat", stdin=True, tty=True)
        following = asyncio.create_task(log(s, "stdout=1&follow=1"))
        async with hijack(s, f"/containers/a/attach?{ALL}") as client:
            client.writer.write(b"typed\n")
            await client.read(1)
            await s.stage.engine.containers.kill("a", "KILL")
        answer = await following
        assert answer.headers["content-type"] == "application/vnd.docker.raw-stream"
        assert answer.body.startswith(b"typed")


async def test_logs_that_are_refused(template: Path) -> None:
    async with served(template) as s:
        await create(s, "cat")
        for query, status in (("", 400), ("stdout=1&since=yesterday", 400), ("stdout=0&stderr=0", 400)):
            assert (await log(s, query)).status == status, query
        assert (await s.ask("GET", "/containers/none/logs?stdout=1", docker=True)).status == 404


def _check_details(used: dict[str, Any]) -> None:
    """As the fake guest counts."""
    memory = used["memory_stats"]
    assert memory["usage"] == (1 << 20) + 4096 and memory["limit"] > 0
    assert memory["stats"] == {"anon": 900000, "inactive_file": 4096} and "failcnt" not in memory
    cpu = used["cpu_stats"]
    assert cpu["cpu_usage"] == {"total_usage": 10**6, "usage_in_kernelmode": 400_000, "usage_in_usermode": 600_000}
    assert cpu["throttling_data"] == {"periods": 7, "throttled_periods": 2, "throttled_time": 0}
    device = {"major": 254, "minor": 0}
    blocks = used["blkio_stats"]
    assert blocks["io_service_bytes_recursive"] == [
        {**device, "op": "read", "value": 4096}, {**device, "op": "write", "value": 0},
    ]  # fmt: skip
    assert [e["value"] for e in blocks["io_serviced_recursive"]] == [1, 0] and blocks["io_queue_recursive"] is None
    assert used["networks"]["eth0"] == {
        "rx_bytes": 100, "rx_packets": 1, "rx_errors": 0, "rx_dropped": 0,
        "tx_bytes": 200, "tx_packets": 2, "tx_errors": 0, "tx_dropped": 0,
    }  # fmt: skip


async def test_what_is_used(template: Path) -> None:
    async with served(template) as s:
        await create(s, "sleep", "1000")
        idle = (await s.ask("GET", "/containers/a/stats?stream=0", docker=True)).json
        assert (idle["name"], idle["read"], idle["memory_stats"]) == ("/a", "0001-01-01T00:00:00Z", {})
        await s.stage.engine.containers.start("a")
        once = (await s.ask("GET", "/containers/a/stats?stream=0&one-shot=1", docker=True)).json
        assert once["preread"] == "0001-01-01T00:00:00Z" and once["precpu_stats"]["cpu_usage"]["total_usage"] == 0
        twice = (await s.ask("GET", "/containers/a/stats?stream=0", docker=True)).json
        assert twice["preread"] < twice["read"]
        passed = twice["cpu_stats"]["system_cpu_usage"] - twice["precpu_stats"]["system_cpu_usage"]
        assert 0.9e9 < passed / twice["cpu_stats"]["online_cpus"] < 10e9
        _check_details(twice)
        reader, writer = await s.open(docker=True)
        writer.write(b"GET /containers/a/stats HTTP/1.0\r\nHost: x\r\n\r\n")
        async with asyncio.timeout(20):
            await reader.readuntil(b"\r\n\r\n")
            samples = [json.loads(await reader.readline()) for _ in range(2)]
            assert samples[1]["preread"] == samples[0]["read"]
            await s.stage.engine.containers.remove("a", force=True)
            rest = await reader.read()
        assert rest.count(b"\n") <= 2
        writer.close()


async def test_a_start_that_fails_is_told_to_who_asked_for_it_alone(template: Path) -> None:
    """Docker's client shows what any of its three requests says."""
    async with served(template) as s:
        await create(s, "no-such-program", auto_remove=True)
        async with (
            hijack(s, f"/containers/a/attach?{ALL}") as client,
            hijack(s, "/containers/a/wait?condition=removed", headers={"Connection": "close"}) as waiting,
        ):
            answer = await s.ask("POST", "/containers/a/start", docker=True)
            assert answer.status == 400 and "executable file not found" in answer.json["message"]
            assert await client.frames() == []
            assert b'{"StatusCode":127}' in await waiting.rest()
