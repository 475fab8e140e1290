# SPDX-License-Identifier: Apache-2.0
"""Callers that send too much, too slowly, or nothing: none of them takes anything from the others."""

from __future__ import annotations

import asyncio
import contextlib
import gc
import gzip
import json
from asyncio.sslproto import SSLProtocol
from collections.abc import AsyncIterator
from pathlib import Path

import pytest

from hypercontainer.hyperd.config import Config
from hypercontainer.hyperd.server_tls import server_context
from hypercontainer.serving.bodies import BODIES, BODY_MAX
from hypercontainer.serving.listener import ListenLimits
from tests.certificates import Authority

from .served import Served, read_answer, served

SOON = 10.0  # seconds in which what has a limit of SHORT has come to its end
SHORT = 0.4
HEAD = b"GET /v1/version HTTP/1.1\r\nHost: x\r\n"


async def ends(reader: asyncio.StreamReader) -> bytes:
    """All that comes until the other side closes."""
    async with asyncio.timeout(SOON):
        try:
            return await reader.read()
        except ConnectionError:
            return b""


async def until_open(s: Served, count: int) -> None:
    async with asyncio.timeout(SOON):
        while (s.unix.connections, s.tcp.connections) != (0, count):
            await asyncio.sleep(0.01)


@contextlib.asynccontextmanager
async def short(template: Path, **limits: int | float) -> AsyncIterator[Served]:
    async with served(template, limits=ListenLimits(head_time=SHORT, **limits)) as s:  # type: ignore[arg-type]
        yield s


@pytest.mark.parametrize("begun", [b"", b"G", HEAD], ids=["nothing", "one byte", "half a head"])
@pytest.mark.parametrize("tcp", [True, False])
async def test_a_connection_on_which_no_request_comes_is_closed(template: Path, begun: bytes, tcp: bool) -> None:
    async with short(template) as s:
        reader, writer = await s.open(tcp=tcp)
        writer.write(begun)
        assert await ends(reader) == b""
        writer.close()


async def test_a_head_that_comes_byte_by_byte_gains_no_time(template: Path) -> None:
    async with short(template) as s:
        reader, writer = await s.open(tcp=True)

        async def drip() -> None:
            with contextlib.suppress(ConnectionError):
                writer.write(HEAD)
                while not writer.is_closing():
                    writer.write(b"X-A: b\r\n")
                    await writer.drain()
                    await asyncio.sleep(SHORT / 20)

        task = asyncio.create_task(drip())
        assert await ends(reader) == b""
        writer.close()
        task.cancel()
        await asyncio.gather(task, return_exceptions=True)


async def test_an_idle_connection_is_closed_after_its_answer(template: Path) -> None:
    async with short(template) as s:
        reader, writer = await s.open()
        writer.write(HEAD + b"\r\n")
        assert (await read_answer(reader)).status == 200
        assert await ends(reader) == b""
        writer.close()


async def test_two_hundred_half_open_connections_keep_nobody_out(template: Path) -> None:
    async with served(template, limits=ListenLimits(head_time=SOON)) as s:
        opened = [await s.open(tcp=True) for _ in range(200)]
        for _, writer in opened:
            writer.write(b"GET /v1/version HTTP/1.1\r\n")
        assert (await s.ask("GET", "/v1/version")).status == 200
        assert (await s.ask("GET", "/v1/version", token=s.token("read"), tcp=True)).status == 200
        for _, writer in opened:
            writer.close()
        await until_open(s, 0)


async def test_a_peer_has_so_many_connections(template: Path) -> None:
    async with served(template, limits=ListenLimits(connections=100, per_peer=4)) as s:
        held = [await s.open(tcp=True) for _ in range(4)]
        await until_open(s, 4)
        reader, writer = await s.open(tcp=True)
        refused = await read_answer(reader)
        assert refused.status == 503 and refused.json["code"] == "unavailable"
        writer.close()
        assert (await s.ask("GET", "/v1/version")).status == 200  # by the other listener
        held.pop()[1].close()
        await until_open(s, 3)
        assert (await s.ask("GET", "/v1/version", token=s.token("read"), tcp=True)).status == 200
        for _, writer in held:
            writer.close()
        await until_open(s, 0)
        assert s.tcp.refused == 1


async def test_others_cannot_take_the_connections_of_root(template: Path) -> None:
    async with served(template, limits=ListenLimits(connections=16, per_peer=8)) as s:
        s.unix._of_peer.update({"uid:1234": 8, "uid:1235": 8})
        assert not s.unix._admits("uid:1236") and not s.unix._admits("uid:1234")
        assert (await s.ask("GET", "/v1/version")).status == 200
        s.unix._of_peer.clear()


async def test_a_body_that_does_not_come_is_not_waited_for(template: Path) -> None:
    async with served(template) as s:
        s.app[BODIES]._time = SHORT
        for sent in (b"", b'{"image": "'):
            reader, writer = await s.open()
            writer.write(b"POST /v1/containers HTTP/1.1\r\nHost: x\r\nContent-Length: 100\r\n\r\n" + sent)
            async with asyncio.timeout(SOON):
                assert (await read_answer(reader)).status == 408
            writer.close()


async def test_bodies_are_bounded_each_and_together(template: Path) -> None:
    async with served(template) as s:
        got = await s.ask("POST", "/v1/containers", b"x" * (BODY_MAX + 1))
        assert got.status == 413
        s.app[BODIES]._held_max = 1 << 20
        _, writer = await s.open()
        writer.write(b"POST /v1/containers HTTP/1.1\r\nHost: x\r\nContent-Length: 9000000\r\n\r\n" + b" " * 900_000)
        async with asyncio.timeout(SOON):
            while s.app[BODIES]._held < 800_000:
                await asyncio.sleep(0.01)
        large = await s.ask("POST", "/v1/containers", b" " * 300_000)
        assert (large.status, large.json["code"]) == (503, "unavailable")
        small = await s.ask("POST", "/v1/containers", {"image": "none"})
        assert small.status == 404
        writer.close()
        async with asyncio.timeout(SOON):
            while s.app[BODIES]._held:
                await asyncio.sleep(0.01)


async def test_a_compressed_body_is_not_uncompressed(template: Path) -> None:
    async with served(template) as s:
        body = gzip.compress(json.dumps({"image": "none"}).encode())
        got = await s.ask("POST", "/v1/containers", body, headers={"Content-Encoding": "gzip"})
        assert got.status == 400


@pytest.mark.parametrize(
    "head",
    [
        b"GET /" + b"a" * 40_000 + b" HTTP/1.1\r\nHost: x\r\n\r\n",
        b"GET / HTTP/1.1\r\nHost: x\r\nX: " + b"a" * 40_000 + b"\r\n\r\n",
        b"GET / HTTP/1.1\r\nHost: x\r\n" + b"".join(b"X-%d: a\r\n" % i for i in range(100)) + b"\r\n",
        b"GET / HTTP/1.1\r\nHost: x\r\nContent-Length: 1\r\nTransfer-Encoding: chunked\r\n\r\n0\r\n\r\n",
        b"GET / HTTP/1.1\r\nHost: x\r\nContent-Length: +1\r\n\r\na",
        b"\x16\x03\x01\x00\xa5\x01\x00\x00\xa1\x03\x03\r\n\r\n",
    ],
    ids=["line", "field", "fields", "two lengths", "signed length", "TLS"],
)
async def test_heads_that_are_none_or_too_large_are_refused(
    template: Path, head: bytes, caplog: pytest.LogCaptureFixture
) -> None:
    async with served(template) as s:
        reader, writer = await s.open()
        writer.write(head)
        async with asyncio.timeout(SOON):
            with contextlib.suppress(ConnectionError):  # the end may overtake the answer where more was sent
                assert (await read_answer(reader)).status == 400
        writer.close()
        assert (await s.ask("GET", "/v1/version")).status == 200
    assert [r.message for r in caplog.records if r.levelname == "ERROR"] == []  # they fill no log


def contexts(directory: Path) -> tuple[Authority, Config]:
    ca = Authority(directory)
    pair = ca.sign("server", server=True)
    return ca, Config(tlscert=str(pair.cert), tlskey=str(pair.key), tlscacert=str(ca.cert))


async def test_a_handshake_that_does_not_come_is_not_waited_for(template: Path, tmp_path: Path) -> None:
    ca, config = contexts(tmp_path)
    limits = ListenLimits(handshake_time=SHORT, per_peer=4)
    async with served(template, tls=server_context(config), client=ca.client(), limits=limits) as s:
        opened = [await asyncio.open_connection("127.0.0.1", s.port) for _ in range(4)]
        await until_open(s, 4)  # they count from the moment they are accepted on
        for reader, writer in opened:
            assert await ends(reader) == b""
            writer.close()
        await until_open(s, 0)
        assert (await s.ask("GET", "/v1/version", token=s.token("read"), tcp=True)).status == 200


async def test_a_failed_handshake_leaves_nothing_in_memory(template: Path, tmp_path: Path) -> None:
    """Its buffers of 256 KiB are freed with it, and not when the collector comes by."""
    ca, config = contexts(tmp_path)

    def left() -> int:
        return sum(isinstance(x, SSLProtocol) for x in gc.get_objects())

    async with served(template, tls=server_context(config), client=ca.client()) as s:
        gc.collect()
        gc.disable()
        try:
            for begun in (b"", b"no TLS at all\r\n\r\n"):
                for _ in range(10):
                    reader, writer = await asyncio.open_connection("127.0.0.1", s.port)
                    writer.write(begun)
                    if begun:
                        await ends(reader)
                    writer.close()
            await until_open(s, 0)
            async with asyncio.timeout(SOON):
                while s.tcp._greeting:
                    await asyncio.sleep(0.01)
            assert left() == 0
        finally:
            gc.enable()
