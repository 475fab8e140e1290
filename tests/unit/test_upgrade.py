# SPDX-License-Identifier: Apache-2.0
"""REST's attached client: frames over a connection that aiohttp has upgraded."""

from __future__ import annotations

import asyncio
import contextlib
import json
import tempfile
from collections.abc import AsyncIterator
from pathlib import Path

import pytest
from aiohttp import web

from hypercontainer.api import upgrade
from hypercontainer.api.upgrade import UpgradedPeer
from hypercontainer.engine.attach.peer import End, frame
from hypercontainer.engine.attach.session import Attached, AttachOptions, AttachSession
from hypercontainer.model.frames import HEADER, RESIZE, STATUS, STDERR, STDIN, STDOUT
from hypercontainer.protocol.constants import STDIN_RING
from tests.engine.parts.test_attach import Program


class Client:
    """Frames, as `hyperctl` sends and reads them."""

    def __init__(self, reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        self.reader, self.writer = reader, writer
        self.sent = 0  # bytes of payload

    def say(self, kind: int, payload: bytes = b"") -> None:
        self.writer.write(frame(kind, payload))
        self.sent += len(payload)

    async def hear(self) -> tuple[int, bytes]:
        kind, size = HEADER.unpack(await self.reader.readexactly(HEADER.size))
        return kind, await self.reader.readexactly(size)

    async def status(self) -> dict[str, object]:
        kind, payload = await self.hear()
        assert kind == STATUS
        assert await self.reader.read() == b""  # it is the last word
        self.writer.close()
        found: dict[str, object] = json.loads(payload)
        return found


@contextlib.asynccontextmanager
async def attached(program: Program, *, tty: bool = False) -> AsyncIterator[tuple[Client, asyncio.Future[None]]]:
    """A client, and how its session ended."""
    ended: asyncio.Future[None] = asyncio.get_running_loop().create_future()

    async def finish() -> End:
        return End(exit_code=(await program.handle.exited).shell_code, message="why")

    async def handle(request: web.Request) -> web.StreamResponse:
        peer = UpgradedPeer(request, {"Hyper-Id": "7"})
        what = Attached(fan_out=program.fan_out, tty=tty, closes_stdin=not tty, begin=None, finish=finish)
        try:
            await AttachSession(what, AttachOptions()).run(peer)
        finally:
            ended.set_result(None)
        return peer.response

    app = web.Application()
    app.router.add_post("/attach", handle)
    runner = web.AppRunner(app, handler_cancellation=True, access_log=None)
    await runner.setup()
    with tempfile.TemporaryDirectory(prefix="hc") as short:
        await web.UnixSite(runner, str(Path(short) / "s")).start()
        reader, writer = await asyncio.open_unix_connection(str(Path(short) / "s"))
        writer.write(
            b"POST /attach HTTP/1.1\r\nHost: x\r\nConnection: Upgrade\r\nUpgrade: tcp\r\nContent-Length: 0\r\n\r\n"
        )
        head = await reader.readuntil(b"\r\n\r\n")
        assert head.startswith(b"HTTP/1.1 101 ") and b"Hyper-Id: 7\r\n" in head
        try:
            async with asyncio.timeout(20):
                yield Client(reader, writer), ended
                await ended
        finally:
            writer.close()
            await runner.cleanup()
    assert not program.readers


async def test_frames_both_ways() -> None:
    program = Program()
    program.start()
    async with attached(program) as (client, _):
        client.say(STDIN, b"in")
        client.say(RESIZE, b'{"rows": 3, "columns": 4}')
        client.say(77, b"from the future")
        client.say(STDIN)
        await program.until_got(b"in")
        while not (program.eof and program.sizes):
            await asyncio.sleep(0.01)
        assert program.sizes == [(3, 4)]
        program.print(b"out")
        assert await client.hear() == (STDOUT, b"out")
        program.print(b"err", 2)
        assert await client.hear() == (STDERR, b"err")
        program.exit(5)
        assert await client.status() == {"exitCode": 5, "message": "why", "detached": False, "trace": []}


async def test_a_frame_in_single_bytes() -> None:
    program = Program()
    program.start()
    async with attached(program) as (client, _):
        for byte in frame(STDIN, b"slow") + frame(STDIN, b"ly"):
            client.writer.write(bytes([byte]))
            await client.writer.drain()
            await asyncio.sleep(0)
        await program.until_got(b"slowly")
        program.exit()
        assert (await client.status())["exitCode"] == 0


async def test_the_keys_detach() -> None:
    program = Program()
    program.start()
    async with attached(program, tty=True) as (client, _):
        client.say(STDIN, b"x\x10")
        client.say(STDIN, b"\x11")
        assert (await client.status())["detached"] is True
    assert not program.handle.exited.done()


@pytest.mark.parametrize("payload", [b"{", b"[]", b'{"rows": "many", "columns": 1}', b"\xff"])
async def test_a_size_that_is_none(payload: bytes) -> None:
    program = Program()
    program.start()
    async with attached(program) as (client, _):
        client.say(RESIZE, payload)
        error = (await client.status())["error"]
        assert isinstance(error, dict) and error["code"] == "invalid_argument", error


async def test_a_frame_that_is_too_large_ends_the_connection() -> None:
    program = Program()
    program.start()
    async with attached(program) as (client, _):
        client.writer.write(HEADER.pack(STDIN, 2 << 20))
        with contextlib.suppress(ConnectionError):
            assert await client.reader.read() == b""


@pytest.mark.parametrize("abrupt", [False, True])
async def test_a_client_that_goes(abrupt: bool) -> None:
    program = Program()
    program.start()
    async with attached(program) as (client, ended):
        program.print(b"text")
        assert await client.hear() == (STDOUT, b"text")
        if abrupt:
            client.writer.transport.abort()
        else:
            client.writer.close()
        await ended
    assert not program.handle.exited.done()


async def test_much_input_waits_with_the_client() -> None:
    program = Program()
    program.start()
    async with attached(program) as (client, _):
        for _ in range(100):
            client.say(STDIN, bytes(64 << 10))
        await program.until_got(bytes(STDIN_RING))
        transport = client.writer.transport
        assert transport.get_write_buffer_size() > 3 << 20
        while len(program.got) < 100 * (64 << 10):
            program.take()
            await asyncio.sleep(0)
        program.exit()
        assert (await client.status())["exitCode"] == 0


async def test_who_still_sends_has_all_that_was_said(monkeypatch: pytest.MonkeyPatch) -> None:
    """Whatever of its input is under way when the program ends."""
    monkeypatch.setattr(upgrade, "_LINGER", 20.0)
    program = Program()
    program.start()
    async with attached(program) as (client, _):
        for _ in range(40):
            client.say(STDIN, bytes(64 << 10))
        await program.until_got(bytes(STDIN_RING))
        program.print(b"last")
        program.exit(3)
        await asyncio.sleep(0)
        while not client.writer.transport.is_closing() and client.sent < 5 << 20:
            client.say(STDIN, bytes(64 << 10))
            await client.writer.drain()
        assert await client.hear() == (STDOUT, b"last")
        assert (await client.status())["exitCode"] == 3


async def test_who_sends_for_ever_is_left(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(upgrade, "_DROPPED_MAX", 1 << 20)
    program = Program()
    program.start()
    async with attached(program) as (client, ended):
        program.exit()
        with pytest.raises(ConnectionError):
            while not ended.done() or client.sent < 1 << 30:
                client.say(STDIN, bytes(64 << 10))
                await client.writer.drain()


async def test_who_does_not_close_is_left(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(upgrade, "_LINGER", 0.01)
    program = Program()
    program.start()
    async with attached(program) as (client, ended):
        program.exit()
        assert (await client.hear())[0] == STATUS
        await ended
