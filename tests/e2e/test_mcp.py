# SPDX-License-Identifier: Apache-2.0
"""Tools for language models, by the protocol's own client."""

from __future__ import annotations

import contextlib
import json
import subprocess
from collections.abc import AsyncIterator
from typing import Any

import pytest
from mcp import Client, StdioServerParameters

from .conftest import BIN, Daemon, wait_for


@contextlib.asynccontextmanager
async def session(hyper: Daemon, *options: str) -> AsyncIterator[Client]:
    command = StdioServerParameters(
        command=str(BIN / "hyperctl"), args=["mcp", "--image", "busybox", *options], env=hyper.environment
    )
    async with Client(command, read_timeout_seconds=120) as client:
        yield client


async def call(client: Client, tool: str, **given: Any) -> Any:
    """What it says. Lists are in an object of their own, as the protocol has it."""
    done = await client.call_tool(tool, given)
    assert not done.is_error, done.content
    found = done.structured_content
    return found["result"] if found and set(found) == {"result"} else found


async def refusal(client: Client, tool: str, **given: Any) -> str:
    done = await client.call_tool(tool, given)
    assert done.is_error
    return " ".join(part.text for part in done.content if hasattr(part, "text"))


async def test_a_session(hyper: Daemon) -> None:
    async with session(hyper) as client:
        assert {"sandbox_create", "run", "file_write", "sandbox_fork"} <= {
            t.name for t in (await client.list_tools()).tools
        }
        sandbox = (await call(client, "sandbox_create", env={"A": "1"}))["sandbox"]
        done = await call(client, "run", sandbox=sandbox, command="echo $A; cat; echo err >&2; exit 3", stdin="in")
        assert done == {"exit_code": 3, "stdout": "1\nin", "stderr": "err\n"}
        await call(client, "file_write", sandbox=sandbox, path="/d/x", content="text")
        found = await call(client, "file_read", sandbox=sandbox, path="/d/x", offset=1, limit=2)
        assert found == {"content": "ex", "encoding": "utf-8", "size": 4, "offset": 1, "more": True}
        assert await call(client, "file_list", sandbox=sandbox, path="/d") == [
            {"path": "/d/x", "kind": "file", "size": 4}
        ]
        late = await call(client, "run", sandbox=sandbox, command="echo begun; sleep 1000", timeout=1)
        assert late["exit_code"] is None and late["stdout"] == "begun\n" and "killed" in late["stderr"]
        long = (await call(client, "run", sandbox=sandbox, command="yes | head -c 1000000; echo end"))["stdout"]
        assert len(long) < 40_000 and "bytes are left out" in long and long.endswith("end\n")
        assert "no such path" in await refusal(client, "file_read", sandbox=sandbox, path="/none")
        assert "sandbox_list lists them" in await refusal(client, "run", sandbox="other", command="true")
        assert await call(client, "sandbox_list") == [{"sandbox": sandbox, "image": "busybox", "running": True}]
    wait_for(lambda: hyper.out("ps", "-aq") == "", "the end of what the session made")


async def test_a_sandbox_that_nobody_asks_ends(hyper: Daemon) -> None:
    async with session(hyper, "--ttl", "1") as client:
        sandbox = (await call(client, "sandbox_create"))["sandbox"]
        wait_for(lambda: hyper.out("ps", "-aq") == "", "the end of the sandbox")
        assert "no sandbox" in await refusal(client, "sandbox_end", sandbox=sandbox)


async def test_a_session_that_is_killed_leaves_nothing(hyper: Daemon) -> None:
    command = [BIN / "hyperctl", "mcp", "--image", "busybox", "--ttl", "1"]
    calls = [
        {"method": "initialize", "id": 1, "params": {"protocolVersion": "2025-06-18", "capabilities": {},
                                                     "clientInfo": {"name": "t", "version": "1"}}},
        {"method": "notifications/initialized"},
        {"method": "tools/call", "id": 2, "params": {"name": "sandbox_create", "arguments": {}}},
    ]  # fmt: skip
    with subprocess.Popen(command, env=hyper.environment, stdin=subprocess.PIPE, stdout=subprocess.PIPE) as server:
        assert server.stdin and server.stdout
        try:
            for each in calls:
                server.stdin.write(json.dumps({"jsonrpc": "2.0", **each}).encode() + b"\n")
            server.stdin.flush()
            made = next(a for a in map(json.loads, server.stdout) if a.get("id") == 2)
            assert not made["result"].get("isError"), made
        finally:
            server.kill()
    wait_for(lambda: hyper.out("ps", "-aq") == "", "the end of the sandbox")


@pytest.mark.slow
async def test_forks_and_snapshots(hyper: Daemon) -> None:
    async with session(hyper) as client:
        sandbox = (await call(client, "sandbox_create"))["sandbox"]
        await call(client, "file_write", sandbox=sandbox, path="/x", content="kept")
        snapshot = await call(client, "snapshot_create", sandbox=sandbox)
        made = [*await call(client, "sandbox_fork", sandbox=sandbox, count=2)]
        made.append(await call(client, "sandbox_restore", snapshot=snapshot))
        for each in made:
            assert (await call(client, "file_read", sandbox=each["sandbox"], path="/x"))["content"] == "kept"
        assert "no snapshot" in await refusal(client, "sandbox_restore", snapshot="another")
        assert "ended" in await call(client, "sandbox_end", sandbox=sandbox)
    wait_for(lambda: hyper.out("ps", "-aq") == "", "the end of what the session made")
    hyper.ctl("snapshot", "rm", snapshot)
