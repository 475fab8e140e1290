# SPDX-License-Identifier: Apache-2.0
"""hyperstart as a process of this host, on a socket pair.

Each test runs twice: with the shipped static binary, and with one compiled
here under AddressSanitizer and UndefinedBehaviorSanitizer.
"""

from __future__ import annotations

import asyncio
import contextlib
import os
import shutil
import socket
import subprocess
from collections.abc import AsyncIterator, Callable
from contextlib import AbstractAsyncContextManager
from pathlib import Path

import pytest

from hypercontainer.guest.initramfs import hyperstart_path
from hypercontainer.guest.session import GuestSession
from hypercontainer.protocol.constants import FIRST_TOKEN

SANITIZE = ["-fsanitize=address,undefined", "-fno-sanitize-recover=all", "-g", "-O1"]


class Sink:
    """Keeps a process's output; may stop acknowledging."""

    def __init__(self) -> None:
        self.data = {1: bytearray(), 2: bytearray()}
        self.ended: set[int] = set()
        self.accept = True
        self.missing = {1: 0, 2: 0}

    def write(self, stream: int, data: bytes) -> int:
        self.data[stream] += data
        return len(data) if self.accept else 0

    def end(self, stream: int) -> None:
        self.ended.add(stream)

    def exited(self) -> None: ...

    def lost(self, stream: int, count: int) -> None:
        self.missing[stream] += count


class Guest:
    """A hyperstart process and our end of its channel."""

    def __init__(self, process: asyncio.subprocess.Process, sock: socket.socket) -> None:
        self.process = process
        self.sock = sock

    async def session(self, token: bytes = FIRST_TOKEN) -> GuestSession:
        return await GuestSession.open(self.sock.dup(), token, timeout=20)


@pytest.fixture(scope="session")
def sanitized(tmp_path_factory: pytest.TempPathFactory, repository: Path) -> Path:
    """hyperstart with sanitizers."""
    binary = tmp_path_factory.mktemp("asan") / "hyperstart"
    tree = repository / "hyperstart"
    flags = ["-D_GNU_SOURCE", "-std=c11", "-Wall", "-Wextra", "-Werror", *SANITIZE, f"-I{tree / 'include'}"]
    subprocess.run(["gcc", *flags, "-o", binary, *map(str, sorted((tree / "src").glob("*.c")))], check=True)
    return binary


@pytest.fixture(params=["shipped", "sanitized"])
def binary(request: pytest.FixtureRequest) -> Path:
    if request.param == "shipped":
        return hyperstart_path()
    path: Path = request.getfixturevalue("sanitized")
    return path


@pytest.fixture
def start(binary: Path) -> Callable[[], AbstractAsyncContextManager[Guest]]:
    @contextlib.asynccontextmanager
    async def run() -> AsyncIterator[Guest]:
        ours, theirs = socket.socketpair()
        ours.setblocking(False)
        fd = theirs.fileno()
        env = {**os.environ, "ASAN_OPTIONS": "detect_leaks=0:abort_on_error=1"}
        process = await asyncio.create_subprocess_exec(
            binary, "--fd", str(fd), pass_fds=[fd], env=env, stderr=asyncio.subprocess.PIPE
        )
        theirs.close()
        try:
            yield Guest(process, ours)
        finally:
            ours.close()
            if process.returncode is None:
                with contextlib.suppress(ProcessLookupError):
                    process.kill()
            _, stderr = await process.communicate()
            assert b"Sanitizer" not in stderr and b"runtime error" not in stderr, stderr.decode()

    return run


@pytest.fixture(scope="session", autouse=True)
def need_gcc() -> None:
    assert shutil.which("gcc"), "the sanitized run needs gcc: `make test` installs it"
