# SPDX-License-Identifier: Apache-2.0
"""The console over a real virtual machine: output and figures as they come, and a shell that ends with its page."""

from __future__ import annotations

import asyncio
import json
import re
from pathlib import Path
from typing import Any

import aiohttp

from .conftest import Daemon, launched, wait_for

LIMIT = 60.0  # seconds


async def first_events(http: aiohttp.ClientSession, url: str, count: int) -> list[Any]:
    """Of a stream of server-sent events."""
    found: list[Any] = []
    async with asyncio.timeout(LIMIT), http.get(url) as answer:
        assert answer.headers["Content-Type"] == "text/event-stream"
        async for line in answer.content:
            if line.startswith(b"data: "):
                found.append(json.loads(line[6:]))
            if len(found) >= count:
                break
    return found


async def shell(http: aiohttp.ClientSession, url: str) -> None:
    """What is typed is done; and then the page is closed."""
    async with asyncio.timeout(LIMIT), http.ws_connect(url) as socket:
        await socket.send_str(json.dumps({"rows": 33, "columns": 101}))
        await socket.send_bytes(b"stty size; echo to-$((40 + 2))\n")
        said = b""
        while b"to-42" not in said:
            said += await socket.receive_bytes()
        assert b"33 101" in said


async def drive(hyper: Daemon, address: str) -> None:
    token = hyper.out("token", "create", "console")
    async with aiohttp.ClientSession(cookie_jar=aiohttp.CookieJar(unsafe=True)) as http:
        async with http.post(f"{address}/login", data={"token": token}) as answer:
            page = await answer.text()
        csrf = re.search(r'name="csrf" value="([^"]+)"', page)
        assert csrf, page
        command = "sh -c 'while :; do echo ho; sleep 0.2; done'"
        form = {"csrf": csrf[1], "image": "busybox", "name": "web", "command": command}
        async with http.post(f"{address}/p/-/containers", data=form) as answer:
            assert answer.status == 200 and ">web" in await answer.text()
        one = f"{address}/p/-/containers/web"
        lines = await first_events(http, f"{one}/logs", 3)
        assert {text for batch in lines for _, text in batch} == {"ho\n"}
        figures = await first_events(http, f"{one}/stats", 2)
        assert figures[1]["cpuUsec"] >= figures[0]["cpuUsec"] > 0
        await shell(http, f"{one}/terminal/socket")


def has_shell(hyper: Daemon) -> bool:
    """Beside the main process, which is a shell with a command."""
    return any(line.split()[-1] == "sh" for line in hyper.out("top", "web").splitlines())


def test_a_container_from_a_browser(tmp_path: Path) -> None:
    with launched(tmp_path / "root", "--console-listen", "tcp://127.0.0.1:0") as hyper:
        hyper.ctl("pull", "-q", "builtin:busybox")
        log = (tmp_path / "root-hyperd.log").read_text()
        found = re.search(r"http://127\.0\.0\.1:\d+", log)
        assert found, log
        asyncio.run(drive(hyper, found[0]))
        wait_for(lambda: not has_shell(hyper), "the end of a shell whose page was closed")
        hyper.ctl("rm", "-f", "web")
