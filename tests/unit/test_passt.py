# SPDX-License-Identifier: Apache-2.0
"""passt's process: what it says when it does not start, and that nobody waits for it."""

from __future__ import annotations

import asyncio
import os
import socket
import time
from collections.abc import Callable
from dataclasses import replace
from pathlib import Path

import pytest

from hypercontainer.errors import Conflict, HyperError, Unavailable
from hypercontainer.jail import helpers
from hypercontainer.jail.fake import FakeJail
from hypercontainer.jail.hyperjail import HyperJail
from hypercontainer.jail.jail import Born, Order, Started, ignore
from hypercontainer.model.specs import PortMapping
from hypercontainer.network import passt

from ..contract.test_jail import children

PORTS = (PortMapping(container_port=80, host_port=8080),)
Pretend = Callable[[str], Path]


class Recorder(FakeJail):
    """The pretended program lies where only root gets to."""

    async def spawn(self, order: Order, born: Born = ignore) -> Started:
        started = await super().spawn(replace(order, user=os.geteuid()), born)
        self.orders[-1] = order
        return started


@pytest.fixture
def jail(monkeypatch: pytest.MonkeyPatch) -> Recorder:
    made = Recorder()
    monkeypatch.setattr(helpers, "_jail", made)
    return made


@pytest.fixture
def pretend(tmp_path: Path, monkeypatch: pytest.MonkeyPatch, jail: Recorder) -> Pretend:
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


@pytest.mark.parametrize(("host_loopback", "user"), [(False, 0x70000001), (True, 0x71000001)])
async def test_who_it_runs_as(pretend: Pretend, jail: Recorder, host_loopback: bool, user: int) -> None:
    """By its user the firewall tells whether it may connect to the host's loopback."""
    told = pretend("echo $$; exit 0")
    ours: socket.socket = await passt.start(PORTS, passt.RunsAs(user), host_loopback=host_loopback)
    ours.close()
    (order,) = jail.orders
    assert order.user == user and not order.capabilities
    assert ("--no-map-gw" in told.read_text().split()) is not host_loopback


async def test_it_runs_in_the_jail_and_ends_with_its_socket(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    jail = HyperJail(tmp_path / "jail")
    if not passt.find_passt() or jail.hindrance() or not passt.way_out():
        pytest.skip("it needs passt, a jail, and a network")
    monkeypatch.setattr(helpers, "_jail", jail)
    before = children()
    ours = await passt.start((), passt.RunsAs(), host_loopback=False)
    (pid,) = children() - before
    namespaces = {n: os.readlink(f"/proc/{pid}/ns/{n}") for n in ("mnt", "pid", "ipc", "uts", "user")}
    assert not {f"{n}:{s}" for n, s in namespaces.items()} & {
        f"{n}:{os.readlink(f'/proc/self/ns/{n}')}" for n in namespaces
    }
    assert os.listdir(f"/proc/{pid}/root") == []
    ours.close()
    async with asyncio.timeout(20):
        while children() - before:
            await asyncio.sleep(0.01)
