# SPDX-License-Identifier: Apache-2.0
"""Docker's Engine API: clients of streams that do not behave; and the attachment by a websocket."""

from __future__ import annotations

import asyncio
import contextlib
from pathlib import Path
from typing import Any

import aiohttp
import pytest

from .served import Served, served
from .test_docker_streams import ALL, create, hijack, made_exec, run


def connector(s: Served) -> aiohttp.ClientSession:
    return aiohttp.ClientSession(connector=aiohttp.UnixConnector(path=str(s.docker)))


def readers(s: Served) -> int:
    container = s.stage.engine.registry.container("a")
    return len(s.stage.engine.containers.supervisor(container).fan_out._readers)


async def nobody_reads(s: Served) -> None:
    async with asyncio.timeout(20):
        while readers(s):
            await asyncio.sleep(0.01)


async def test_a_websocket(template: Path) -> None:
    async with served(template) as s, connector(s) as session:
        await create(s, "cat", stdin=True)
        async with session.ws_connect(f"http://x/v1.51/containers/a/attach/ws?{ALL}") as socket:
            await s.stage.engine.containers.start("a")
            await socket.send_bytes(b"bytes\n")
            assert await socket.receive_bytes(timeout=20) == b"bytes\n"
            await socket.send_str("text\n")
            assert await socket.receive_bytes(timeout=20) == b"text\n"
            await s.stage.engine.containers.kill("a", "KILL")
            assert (await socket.receive(timeout=20)).type is aiohttp.WSMsgType.CLOSE
        assert (await s.ask("GET", f"/containers/a/attach/ws?{ALL}", docker=True)).status == 400
        assert (await s.ask("GET", f"/containers/none/attach/ws?{ALL}", docker=True)).status == 404


@pytest.mark.parametrize("how", ["closes", "too much", "cut off"])
async def test_a_websocket_that_ends_by_its_client(template: Path, how: str) -> None:
    async with served(template) as s, connector(s) as session:
        await run(s, "cat", stdin=True)
        async with session.ws_connect(f"http://x/containers/a/attach/ws?{ALL}", max_msg_size=0) as socket:
            if how == "too much":
                with contextlib.suppress(ConnectionError):  # it need not take it all
                    await socket.send_bytes(bytes(2 << 20))
            elif how == "cut off":
                transport = socket.get_extra_info("socket")
                assert transport is not None
                socket._response.connection.transport.abort()  # type: ignore[union-attr]
        await nobody_reads(s)
        assert s.stage.status("a") == "running"


@pytest.mark.parametrize("cut", [10, 60, 110])
async def test_a_request_that_is_cut_off(template: Path, cut: int) -> None:
    """Nothing was begun for it, and nothing is left of it."""
    async with served(template) as s:
        await run(s, "cat", stdin=True)
        whole = (
            f"POST /v1.51/containers/a/attach?{ALL} HTTP/1.1\r\nHost: x\r\n"
            "Connection: Upgrade\r\nUpgrade: tcp\r\nContent-Length: 4\r\n\r\n1"
        )
        _, writer = await s.open(docker=True)
        writer.write(whole.encode()[:cut])
        await writer.drain()
        writer.close()
        await nobody_reads(s)
        assert (await s.ask("GET", "/_ping", docker=True)).status == 200


async def test_who_upgrades_what_is_no_stream_gets_its_answer(template: Path) -> None:
    async with served(template) as s:
        upgrade = {"Connection": "Upgrade", "Upgrade": "tcp"}
        answer = await s.ask("GET", "/_ping", docker=True, headers=upgrade)
        assert (answer.status, answer.body) == (200, b"OK")
        answer = await s.ask("POST", "/containers/none/kill", docker=True, headers=upgrade)
        assert answer.status == 404


async def test_a_client_that_does_not_read_holds_up_nobody_else(template: Path) -> None:
    async with served(template) as s:
        await create(s, "flood", str(8 << 20))
        async with hijack(s, f"/containers/a/attach?{ALL}") as deaf:
            await s.stage.engine.containers.start("a")
            await deaf.read(8)
            async with asyncio.timeout(20):  # it waits for its reader, and all else goes on
                while deaf.reader._transport.is_reading():  # type: ignore[attr-defined]
                    await asyncio.sleep(0.01)
            assert (await s.ask("GET", "/containers/a/json", docker=True)).json["State"]["Running"]
            id_ = await made_exec(s, Cmd=["echo", "x"])
            async with hijack(s, f"/exec/{id_}/start", {}) as client:
                assert await client.frames() == [(1, b"x\n")]
            await s.stage.engine.containers.kill("a", "KILL")
            async with asyncio.timeout(20):
                assert await s.stage.engine.containers.wait("a") == 137


@pytest.mark.parametrize(
    ("path", "body"),
    [
        ("/containers/a/attach?stream=1&detachKeys=ctrl-%F0", None),
        ("/exec/{exec}/start", [1]),
        ("/exec/{exec}/start", {"ConsoleSize": [1]}),
        ("/exec/{exec}/start", {"Detach": "maybe"}),
        ("/containers/a/wait?condition=%00", None),
    ],
)
async def test_what_is_wrong_is_told_before_a_connection_is_taken(template: Path, path: str, body: Any) -> None:
    async with served(template) as s:
        await run(s, "sleep", "1000")
        id_ = await made_exec(s, Cmd=["cat"])
        async with hijack(s, path.replace("{exec}", id_), body) as client:
            assert client.answer.status == 400 and "message" in client.answer.json
        assert not readers(s)


_BODY = b'{"Image":"box"}'
_POST = b"POST /containers/create HTTP/1.1\r\nHost: x\r\n"
_CHUNKED = _POST + b"Transfer-Encoding: chunked\r\n\r\n"
BROKEN = {
    "a length and chunks": _POST + b"Content-Length: 5\r\nTransfer-Encoding: chunked\r\n\r\n0\r\n\r\nGET",
    "two lengths": _POST + b"Content-Length: 5\r\nContent-Length: 15\r\n\r\n" + _BODY,
    "a length below nothing": _POST + b"Content-Length: -5\r\n\r\n" + _BODY,
    "a length with a sign": _POST + b"Content-Length: +15\r\n\r\n" + _BODY,
    "a length of twenty digits": _POST + b"Content-Length: 99999999999999999999\r\n\r\n" + _BODY,
    "a chunk without a size": _CHUNKED + b"ZZ\r\n" + _BODY,
    "a chunk below nothing": _CHUNKED + b"-1\r\n" + _BODY,
    "a chunk's long remark": _CHUNKED + b"5;" + b"a" * 200_000 + b"\r\n" + _BODY,
    "an unknown encoding": _POST + b"Transfer-Encoding: xchunked\r\n\r\n0\r\n\r\n",
    "5000 trailers": _CHUNKED + b"f\r\n" + _BODY + b"\r\n0\r\n" + b"A: b\r\n" * 5000 + b"\r\n",
    "5000 fields": _POST + b"A: b\r\n" * 5000 + b"\r\n",
    "a field that goes on": _POST + b"A: b\r\n c\r\n\r\n",
    "a NUL in a field": _POST + b"A: b\x00c\r\n\r\n",
    "a blank before a colon": b"GET /_ping HTTP/1.1\r\nHost : x\r\n\r\n",
    "lines without returns": b"GET /_ping HTTP/1.1\nHost: x\n\n",
    "no host": b"GET /_ping HTTP/1.1\r\n\r\n",
    "a line of 200 kB": b"GET /" + b"a" * 200_000 + b" HTTP/1.1\r\nHost: x\r\n\r\n",
    "another protocol": b"PRI * HTTP/2.0\r\n\r\nSM\r\n\r\n",
}  # fmt: skip


async def test_what_is_no_request_ends_its_connection(template: Path) -> None:
    """With one answer: nothing that follows is taken for a request of its own."""
    async with served(template) as s:
        for what, sent in BROKEN.items():
            reader, writer = await s.open(docker=True)
            with contextlib.suppress(ConnectionError):  # it need not take it all
                writer.write(sent)
                await writer.drain()
            got = b""
            with contextlib.suppress(ConnectionError):
                async with asyncio.timeout(20):
                    got = await reader.read()
            writer.close()
            assert not got or (b" 400 " in got[:20] and b"\nHTTP/1." not in got), (what, got[:300])
        assert s.stage.engine.registry.containers() == []
        assert (await s.ask("GET", "/_ping", docker=True)).status == 200
