# SPDX-License-Identifier: Apache-2.0
"""A guest that the lab's emulator hung: seen by its registers, and its machine ended."""

from __future__ import annotations

import asyncio
import contextlib
import itertools
import json
import subprocess
from collections.abc import AsyncIterator, Callable, Coroutine
from pathlib import Path

import pytest

from tests.lab import ending, lookout

Handler = Callable[[asyncio.StreamReader, asyncio.StreamWriter], Coroutine[None, None, None]]
LIMIT = 60.0  # seconds
WAITS = """
CPU#0
RAX=0000000000000001 RBX=ffff888003c29e00 RCX=0000000000000000 RDX=0000000000000001
R12=0000000000000000 R13=0000000000000000 R14=0000000000000000 R15=0000000000000000
RIP=ffffffff8106b0f4 RFL=00000046 [---Z-P-] CPL=0 II=0 A20=1 SMM=0 HLT=0
ES =0000 0000000000000000 ffffffff 00c00000
"""


@pytest.mark.parametrize(
    ("otherwise", "sign"),
    [
        (("RIP=ffffffff8106b0f4", "RIP=ffffffff8106b0f7"), True),  # of the same loop
        (("RIP=ffffffff8106b0f4", "RIP=ffffffff8106c0f4"), False),
        (("RFL=00000046", "RFL=00000246"), False),  # takes interrupts
        (("RAX=0000000000000001", "RAX=0000000000000002"), False),  # does something
        (("CPL=0", "CPL=3"), False),
        (("HLT=0", "HLT=1"), False),
        (("CPU#0", "no answer"), False),
    ],
)
def test_a_guest_that_hangs_does_nothing_in_all_looks(otherwise: tuple[str, str], sign: bool) -> None:
    """One look among them that shows something else is a guest at work."""
    looks = [WAITS] * (lookout.LOOKS - 2) + [WAITS.replace(*otherwise), WAITS]
    sought = lookout.Sign()
    assert [sought.seen(lookout.Look.of(text)) for text in looks] == [False] * (lookout.LOOKS - 1) + [sign]


def test_a_guest_of_real_mode_has_shorter_registers() -> None:
    look = lookout.Look.of("EAX=00000000\nEIP=0000fff1 EFL=00000002 [-------] CPL=0 II=0 A20=1 SMM=0 HLT=0\n")
    assert look == lookout.Look(0xFFF1, "EAX=00000000\n", waits=True)


@contextlib.asynccontextmanager
async def lab(work: Path, ended: str | None) -> AsyncIterator[None]:
    """QEMU's monitor, and the program in the lab; None does not answer."""
    running = []

    async def monitor(reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        writer.write(b'{"QMP": {}}\n')
        while line := await reader.readline():
            answer = WAITS if b"human-monitor-command" in line else {}
            writer.write(json.dumps({"return": answer}).encode() + b"\n")

    async def program(reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        while await reader.readline():
            if ended is not None:
                writer.write(f"{ended}\n".encode())

    def served(handler: Handler) -> Handler:
        async def until_it_ends(reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
            running.append(asyncio.current_task())
            with contextlib.closing(writer), contextlib.suppress(ConnectionError):
                await handler(reader, writer)

        return until_it_ends

    async with (
        await asyncio.start_unix_server(served(monitor), work / "qmp.sock"),
        await asyncio.start_unix_server(served(program), work / "ending.sock"),
    ):
        yield
        await asyncio.wait_for(asyncio.gather(*filter(None, running)), LIMIT)
        await asyncio.sleep(0)  # transports are closed in the loop's next turn


@pytest.mark.parametrize(
    ("ended", "words", "gave_up"),
    [
        ("hyper-1 (process 5)", "its machine was ended, hyper-1 (process 5)", False),
        ("", "finds no machine that has the processor; it is ended", True),
        (None, "the lab does not answer; it is ended", True),
    ],
)
async def test_the_lab_is_told_to_end_it(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, ended: str | None, words: str, gave_up: bool
) -> None:
    used = itertools.count(step=20)
    monkeypatch.setattr(lookout, "processor_time", lambda pid: float(next(used)))
    monkeypatch.setattr(lookout, "_PAUSE", 0.01)
    loop, found, said = asyncio.get_running_loop(), asyncio.Event(), []

    def say(text: str) -> None:
        said.append(text)
        if words in text:
            loop.call_soon_threadsafe(found.set)

    process = subprocess.Popen(["sleep", "300"])
    try:
        async with lab(tmp_path, ended):
            watched = lookout.Lookout(tmp_path, process, say)
            with watched.looking():
                await asyncio.wait_for(found.wait(), LIMIT)
                if gave_up:
                    assert await asyncio.to_thread(process.wait, LIMIT)
        assert "CPL=0" in said[0] and watched.gave_up == gave_up
    finally:
        process.kill()
        process.wait()


def test_the_machine_that_has_the_processor_is_ended(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """It is written down; where none has the processor none is ended."""
    idle, busy = (subprocess.Popen(["sleep", "300"]) for _ in range(2))
    monkeypatch.setattr(ending, "_RECORD", tmp_path / "record")
    monkeypatch.setattr(ending, "machines", lambda: [idle.pid, busy.pid])
    ran = {idle.pid: itertools.count(), busy.pid: itertools.count()}
    monkeypatch.setattr(ending, "ran", lambda pid: next(ran[pid]))
    try:
        assert ending.end_one() == "" and ending.ended() == 0
        ran[busy.pid] = itertools.count(step=10**12)
        assert ending.end_one() == f"sleep (process {busy.pid})" and ending.ended() == 1
        assert busy.wait(LIMIT) == -9 and idle.poll() is None
    finally:
        for process in (idle, busy):
            process.kill()
            process.wait()
