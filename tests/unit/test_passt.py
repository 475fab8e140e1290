# SPDX-License-Identifier: Apache-2.0
"""passt's process: what it says when it does not start, and that nobody waits for it."""

from __future__ import annotations

import asyncio
import os
import socket
import time
from collections.abc import Callable
from pathlib import Path

import pytest

from hypercontainer.errors import Conflict, HyperError, Unavailable
from hypercontainer.model.specs import PortMapping
from hypercontainer.network import passt

PORTS = (PortMapping(container_port=80, host_port=8080),)
Pretend = Callable[[str], Path]


@pytest.fixture
def pretend(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Pretend:
    """A program of that name which does this."""

    def make(script: str) -> Path:
        program = tmp_path / "passt"
        program.write_text(f'#!/bin/sh\necho "$@" > {tmp_path}/arguments\n{script}\n')
        program.chmod(0o755)
        monkeypatch.setenv("PATH", f"{tmp_path}:{os.environ['PATH']}")
        return tmp_path / "arguments"

    return make


@pytest.mark.parametrize(
    ("says", "error", "hint"),
    [
        ("External interface not usable", Unavailable, "set user_network to slirp, or use --network none"),
        ("Failed to bind any port for '-t 8080:80', exiting", Conflict, "choose another host port with -p"),
    ],
)
async def test_why_it_does_not_start(pretend: Pretend, says: str, error: type[HyperError], hint: str) -> None:
    pretend(f'echo "{says}" >&2; echo "Failed to send 30 bytes to syslog" >&2; exit 1')
    with pytest.raises(error) as refused:
        await passt.start(PORTS, passt.RunsAs(), host_loopback=False)
    assert says in refused.value.message and refused.value.hint == hint


async def test_nobody_waits_for_it(pretend: Pretend, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(passt, "_TIMEOUT", 2)
    pretend("exec sleep 1000")
    starting = asyncio.create_task(passt.start(PORTS, passt.RunsAs(), host_loopback=False))
    ticks, longest, last = 0, 0.0, time.monotonic()
    while not starting.done():
        await asyncio.sleep(0.01)
        ticks, longest, last = ticks + 1, max(longest, time.monotonic() - last), time.monotonic()
    assert ticks > 3 and longest < 1.5
    with pytest.raises(Unavailable, match="passt did not start within"):
        await starting


@pytest.mark.skipif(os.geteuid() != 0, reason="only root runs it as somebody else")
@pytest.mark.parametrize(("host_loopback", "user"), [(False, 0x70000001), (True, 0x71000001)])
async def test_who_it_runs_as(pretend: Pretend, host_loopback: bool, user: int) -> None:
    """By its user the firewall tells whether it may connect to the host's loopback."""
    told = pretend("exit 0")
    ours: socket.socket = await passt.start(PORTS, passt.RunsAs(user), host_loopback=host_loopback)
    ours.close()
    words = told.read_text().split()
    assert words[words.index("--runas") + 1] == f"{user}:{user}"
    assert ("--no-map-gw" in words) is not host_loopback
