# SPDX-License-Identifier: Apache-2.0
"""A channel that is the connections of a listening socket, one after another, as a vsock has them."""

from __future__ import annotations

import asyncio
import os
import socket
from collections.abc import AsyncIterator
from pathlib import Path

import pytest

from hypercontainer.errors import HyperError
from hypercontainer.guest.session import GuestSession
from hypercontainer.protocol.constants import FIRST_TOKEN

SOON = 20.0  # seconds


@pytest.fixture
async def channel(binary: Path, tmp_path: Path) -> AsyncIterator[Path]:
    """Where it can be connected."""
    with socket.socket(socket.AF_UNIX) as listening:
        listening.bind(str(tmp_path / "guest.sock"))
        listening.listen(2)
        env = {**os.environ, "ASAN_OPTIONS": "detect_leaks=0:abort_on_error=1"}
        fd = listening.fileno()
        process = await asyncio.create_subprocess_exec(
            binary, "--listen", str(fd), pass_fds=[fd], env=env, stderr=asyncio.subprocess.PIPE
        )
    yield tmp_path / "guest.sock"
    process.kill()
    _, stderr = await process.communicate()
    assert b"Sanitizer" not in stderr and b"runtime error" not in stderr, stderr.decode()


def connected(path: Path) -> socket.socket:
    sock = socket.socket(socket.AF_UNIX)
    sock.connect(str(path))
    sock.setblocking(False)
    return sock


async def test_one_connection_follows_another(channel: Path) -> None:
    token = FIRST_TOKEN
    for _ in range(3):
        session = await GuestSession.open(connected(channel), token, timeout=SOON)
        assert (await session.stats()).memory_total >= 0
        token = session.next_token
        session.close()


async def test_the_next_waits_until_the_one_in_use_has_ended(channel: Path) -> None:
    first = await GuestSession.open(connected(channel), FIRST_TOKEN, timeout=SOON)
    waiting = asyncio.create_task(GuestSession.open(connected(channel), first.next_token, timeout=SOON))
    assert (await first.stats()).memory_total >= 0 and not waiting.done()
    first.close()
    second = await waiting
    assert (await second.stats()).memory_total >= 0
    second.close()


async def test_who_comes_without_the_token_is_passed_by(channel: Path) -> None:
    stranger = connected(channel)
    with pytest.raises(HyperError):
        await GuestSession.open(stranger, bytes(16), timeout=0.2)
    session = await GuestSession.open(connected(channel), FIRST_TOKEN, timeout=SOON)
    session.close()


async def test_text_before_the_token_is_passed_over(channel: Path) -> None:
    """A hypervisor may answer on the stream itself that it is connected."""
    sock = connected(channel)
    sock.send(b"OK 1073741824\n")
    (await GuestSession.open(sock, FIRST_TOKEN, timeout=SOON)).close()
