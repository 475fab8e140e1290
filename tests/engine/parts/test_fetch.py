# SPDX-License-Identifier: Apache-2.0
"""Files of podfiles that are given by a URI."""

from __future__ import annotations

import asyncio
import os
from collections.abc import AsyncIterator
from pathlib import Path

import pytest
from aiohttp import web

from hypercontainer.engine.fetch import SIZE_MAX, fetch_all
from hypercontainer.errors import InvalidArgument, NotFound, Unavailable


async def test_files_of_this_host(tmp_path: Path) -> None:
    (tmp_path / "a file").write_bytes(b"content")
    uri = f"file://{tmp_path}/a%20file"
    assert await fetch_all([uri, uri]) == {uri: b"content"}


async def test_what_is_no_file_is_refused_at_once(tmp_path: Path) -> None:
    """A FIFO without a writer used to stop the whole daemon."""
    os.mkfifo(tmp_path / "fifo")
    for path in (tmp_path / "fifo", Path("/dev/zero")):
        async with asyncio.timeout(30):
            with pytest.raises(InvalidArgument, match="is no regular file"):
                await fetch_all([f"file://{path}"])
    with pytest.raises(NotFound, match="Is a directory"):
        await fetch_all([f"file://{tmp_path}"])
    with pytest.raises(NotFound, match="No such file"):
        await fetch_all([f"file://{tmp_path}/none"])


async def test_too_large_a_file(tmp_path: Path) -> None:
    with open(tmp_path / "large", "wb") as f:
        f.truncate(SIZE_MAX + 1)
    with pytest.raises(InvalidArgument, match="is larger than 16 MiB: use a volume for it"):
        await fetch_all([f"file://{tmp_path}/large"])


@pytest.fixture
async def server() -> AsyncIterator[str]:
    """Files by their sizes, as a whole or in pieces."""

    async def answer(request: web.Request) -> web.StreamResponse:
        size = int(request.match_info["size"])
        if size < 0:
            raise web.HTTPNotFound
        response = web.StreamResponse()
        await response.prepare(request)
        for _ in range(0, size, 1 << 20):
            await response.write(b"x" * min(size, 1 << 20))
        return response

    app = web.Application()
    app.router.add_get("/{size}", answer)
    runner = web.AppRunner(app, shutdown_timeout=0.1)
    await runner.setup()
    await web.TCPSite(runner, "127.0.0.1", 0).start()
    yield f"http://127.0.0.1:{runner.addresses[0][1]}"
    await runner.cleanup()


async def test_files_of_a_server(server: str) -> None:
    uri = f"{server}/{3 << 20}"
    assert {u: len(data) for u, data in (await fetch_all([uri, uri, f"{server}/0"])).items()} == {
        uri: 3 << 20,
        f"{server}/0": 0,
    }
    with pytest.raises(NotFound, match="answers with status 404"):
        await fetch_all([f"{server}/-1"])
    with pytest.raises(InvalidArgument, match="is larger than 16 MiB"):
        await fetch_all([f"{server}/{20 << 20}"])
    with pytest.raises(Unavailable, match="cannot be fetched"):
        await fetch_all(["http://127.0.0.1:1/x"])
