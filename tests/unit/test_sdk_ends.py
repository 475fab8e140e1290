# SPDX-License-Identifier: Apache-2.0
"""The SDK where something ends in the wrong moment, or never: connections, Python itself, what a sandbox says."""

from __future__ import annotations

import asyncio
import io
import os
import socket
import subprocess
import sys
import tarfile
import textwrap
import threading
from collections.abc import AsyncIterator, Iterator
from pathlib import Path
from typing import Any, cast

import pytest

from hypercontainer.errors import InvalidArgument, NoSpace, Unavailable
from hypercontainer.model.frames import STDOUT
from hypercontainer.sdk import AsyncSandbox, Process, Sandbox, archives, interpreter
from hypercontainer.sdk.api import Api
from hypercontainer.sdk.limits import Deadline, within

from .test_sdk import CONTAINER

TIMEOUT = 60  # seconds


@pytest.fixture
def listener(tmp_path: Path) -> Iterator[socket.socket]:
    """In the place of hyperd's."""
    with socket.socket(socket.AF_UNIX) as found:
        found.bind(str(tmp_path / "s"))
        found.listen(1)
        found.settimeout(TIMEOUT)
        yield found


def process_of(listener: socket.socket) -> tuple[Process, socket.socket]:
    """A process in a sandbox, and hyperd's end of its connection."""
    sandbox = Sandbox(AsyncSandbox(Api(listener.getsockname()), CONTAINER))
    theirs: list[socket.socket] = []

    def upgrade() -> None:
        connection, _ = listener.accept()
        connection.settimeout(TIMEOUT)
        connection.recv(65536)
        connection.sendall(b"HTTP/1.1 101 Switching Protocols\r\n\r\n")
        theirs.append(connection)

    thread = threading.Thread(target=upgrade)
    thread.start()
    process = sandbox.exec("true", timeout=TIMEOUT)
    thread.join()
    return process, theirs[0]


def test_a_synchronous_close_is_at_once(listener: socket.socket) -> None:
    """And not when the next call wakes the loop."""
    process, theirs = process_of(listener)
    with theirs:
        process.close()
        assert theirs.recv(1) == b""


def test_a_connection_ends_though_a_forked_process_has_it(listener: socket.socket) -> None:
    process, theirs = process_of(listener)
    number = os.dup(process._wrapped._frames._exchange.writer.get_extra_info("socket").fileno())
    with theirs:
        process.close()
        assert theirs.recv(1) == b""
    os.close(number)


def test_a_forked_process_ends_no_connection_of_its_parent(listener: socket.socket) -> None:
    process, theirs = process_of(listener)
    if not (child := os.fork()):
        process._wrapped.close()
        os._exit(0)
    assert os.waitpid(child, 0)[1] == 0
    with theirs:
        theirs.sendall(b"\3\0\0\0\0\0\0\x0e" + b'{"exitCode":3}')
        assert process.wait(timeout=TIMEOUT).exit_code == 3


_BEGINNING = """
import asyncio, gc, socket, sys, threading
from hypercontainer.sdk import AsyncSandbox, Sandbox, portal
from hypercontainer.sdk.api import Api
from tests.unit.test_sdk import CONTAINER

listener = socket.socket(socket.AF_UNIX)
listener.bind(sys.argv[1])
listener.listen(1)

def upgrade():
    global connection
    connection, _ = listener.accept()
    connection.recv(65536)
    connection.sendall(b"HTTP/1.1 101 Switching Protocols\\r\\n\\r\\n" + b"\\1\\0\\0\\0\\0\\0\\0\\2hi")

threading.Thread(target=upgrade).start()
pieces = iter(Sandbox(AsyncSandbox(Api(sys.argv[1]), CONTAINER)).exec("true"))
assert next(pieces).data == b"hi"
"""
_COLLECTED = """
gc.disable()
cycle = [pieces]
cycle.append(cycle)
del pieces, cycle

async def collect():
    gc.collect()

portal.run(collect())
portal.run(asyncio.sleep(0))
"""
_LATE = """
class Late:
    def __del__(self):
        try:
            run(sleep(0))
        except InvalidState:
            write(1, b"refused")

import os
from hypercontainer.errors import InvalidState
Late.run, Late.sleep = portal.run, asyncio.sleep
Late.__del__.__globals__.update(run=portal.run, sleep=asyncio.sleep, write=os.write, InvalidState=InvalidState)
sys.late = Late()
"""


def python(code: str, path: Path, repository: Path) -> str:
    source = textwrap.dedent(_BEGINNING + code)
    command = [sys.executable, "-c", source, str(path / "s")]
    return subprocess.run(
        command, cwd=repository, timeout=TIMEOUT, check=True, stdout=subprocess.PIPE, text=True
    ).stdout


def test_what_the_collector_finds_in_the_loops_thread_holds_it_not(tmp_path: Path, repository: Path) -> None:
    python(_COLLECTED, tmp_path, repository)


def test_python_ends_with_output_that_nobody_reads(tmp_path: Path, repository: Path) -> None:
    python("", tmp_path, repository)


def test_nothing_is_asked_when_python_has_ended(tmp_path: Path, repository: Path) -> None:
    assert python(_LATE, tmp_path, repository) in ("", "refused")


async def test_what_is_made_for_a_caller_who_is_cancelled_then_is_not_lost() -> None:
    found: list[str] = []

    async def work() -> str:
        await asyncio.sleep(0)
        caller.cancel()
        return "a connection"

    call = within(Api("/none"), "", Deadline(TIMEOUT), "it", work(), found.append)
    caller = asyncio.create_task(call)
    with pytest.raises(asyncio.CancelledError):
        await caller
    assert found == ["a connection"]


class Says:
    """A process that says this, over and over."""

    def __init__(self, data: bytes) -> None:
        self.data = data
        self.closed = False

    async def _next(self) -> tuple[int, bytes]:
        return STDOUT, self.data

    def close(self) -> None:
        self.closed = True


async def test_a_line_without_end(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(interpreter, "OUTPUT_MAX", 1 << 20)
    process = Says(b"x" * 65536)
    with pytest.raises(NoSpace, match="more than 1 MiB, and was ended"):
        await interpreter.AsyncInterpreter(cast(Any, process))._told()
    assert process.closed


@pytest.mark.parametrize(
    "line",
    [b"[]", b"{", b'{"id": 0, "stdout": 1}', b'{"id": 0, "error": {}}', b'{"id": 0, "result": []}', b"[" * 100_000],
)
async def test_what_an_interpreter_cannot_have_said(line: bytes) -> None:
    with pytest.raises(Unavailable, match="the interpreter's answer is not understood"):
        await interpreter.AsyncInterpreter(cast(Any, Says(line + b"\n")))._told()


async def test_numbers_that_are_none() -> None:
    told = await interpreter.AsyncInterpreter(cast(Any, Says(b'{"result": {"x": [NaN]}, "main": true}\n')))._told()
    assert told.main and str(told.result) == "{'x': [nan]}"


async def sent(archive: bytes, size: int) -> AsyncIterator[bytes]:
    for at in range(0, len(archive), size):
        yield archive[at : at + size]


@pytest.mark.parametrize("size", [1, 512, 1 << 20])
async def test_parts_of_a_file(size: int) -> None:
    archive = archives.one_file("/d/" + "long" * 50, b"0123456789" * 60, 0o644)

    async def part(offset: int, limit: int | None) -> bytes:
        found = archives.Contents(sent(archive, size), "/x")
        await found.begin()
        assert found.size == 600
        return b"".join([piece async for piece in found.pieces(offset, limit)])

    assert await part(0, None) == b"0123456789" * 60
    assert await part(595, None) == b"56789" and await part(3, 4) == b"3456"
    assert await part(700, 5) == b"" and await part(0, 0) == b""


async def test_of_a_large_file_no_more_comes_than_is_asked_for() -> None:
    came = 0

    async def endless() -> AsyncIterator[bytes]:
        nonlocal came
        info = tarfile.TarInfo("x")
        info.size = 1 << 40
        yield info.tobuf(tarfile.GNU_FORMAT)
        while True:
            came += 1 << 16
            yield bytes(1 << 16)

    found = archives.Contents(endless(), "/x")
    await found.begin()
    assert b"".join([p async for p in found.pieces(5 << 20, 10)]) == bytes(10) and found.size == 1 << 40
    assert came < 8 << 20


async def test_what_is_no_file() -> None:
    directory = io.BytesIO()
    archives.pack(Path(__file__).parent, "/x", directory)
    for archive in (directory.getvalue(), b"", b"nonsense" * 1000):
        with pytest.raises(InvalidArgument, match="/x is no file"):
            await archives.Contents(sent(archive, 1 << 20), "/x").begin()
    whole = archives.one_file("/x", bytes(3 << 20), 0o644)
    found = archives.Contents(sent(whole[: 2 << 20], 65536), "/x")
    await found.begin()
    with pytest.raises(Unavailable, match="/x did not come whole"):
        async for _ in found.pieces():
            pass


@pytest.mark.parametrize("path", ["", "a\0b", "\udcff"])
async def test_what_is_no_path(path: str) -> None:
    with pytest.raises(InvalidArgument, match="is no path"):
        await AsyncSandbox(Api("/none"), CONTAINER).files.read(path)


async def test_what_is_no_process() -> None:
    with pytest.raises(InvalidArgument, match="-1 is no number of a process"):
        await AsyncSandbox(Api("/none"), CONTAINER).processes.kill(-1)
