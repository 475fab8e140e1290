# SPDX-License-Identifier: Apache-2.0
"""Processes of others: whether they live, and their end."""

from __future__ import annotations

import ast
import asyncio
import errno
import os
import signal
import subprocess
import sys
from collections.abc import Iterator
from pathlib import Path

import pytest

import hypercontainer
from hypercontainer.hypervisor.qemu.machine import CONSOLE_FILE, QemuMachine
from hypercontainer.sys import process

# Its first thread ends; another one goes on, and says so when it sees that.
_LEADERLESS = """
import ctypes, threading, time
def stay():
    while open("/proc/self/stat").read().rpartition(")")[2].split()[0] != "Z":
        time.sleep(0.01)
    print("leaderless", flush=True)
    time.sleep(1000)
threading.Thread(target=stay, daemon=True).start()
ctypes.CDLL(None).pthread_exit(None)
"""


@pytest.fixture
def leaderless() -> Iterator[subprocess.Popen[str]]:
    child = subprocess.Popen([sys.executable, "-c", _LEADERLESS], stdout=subprocess.PIPE, text=True)
    assert child.stdout and child.stdout.readline() == "leaderless\n"
    try:
        yield child
    finally:
        child.kill()
        child.wait(10)
        child.stdout.close()


def test_without_a_first_thread_it_lives(leaderless: subprocess.Popen[str]) -> None:
    assert process.start_time(leaderless.pid) != 0


async def test_without_a_first_thread_it_is_killed(leaderless: subprocess.Popen[str], tmp_path: Path) -> None:
    machine = QemuMachine(tmp_path, leaderless.pid, process.start_time(leaderless.pid), "tcg")
    assert machine.alive
    await asyncio.wait_for(machine.kill(), 30)
    assert not machine.alive
    leaderless.returncode = -9  # the machine has reaped it


def test_ended_but_not_reaped_it_is_gone() -> None:
    child = subprocess.Popen(["true"])
    os.waitid(os.P_PID, child.pid, os.WEXITED | os.WNOWAIT)
    assert process.start_time(child.pid) == 0
    child.wait()


def test_last_words_of_a_long_console(tmp_path: Path) -> None:
    with open(tmp_path / CONSOLE_FILE, "wb") as f:
        f.truncate(1 << 40)  # sparse
        f.seek(0, os.SEEK_END)
        f.write(b"\nKernel panic\n")
    assert "Kernel panic" in QemuMachine(tmp_path, 0, 1, "tcg").last_words()


def test_last_words_of_a_kernel_that_panics(tmp_path: Path) -> None:
    """Its reason, which a hundred lines of registers and calls follow; not the last of these."""
    reason = "Kernel panic - not syncing: Attempted to kill init! exitcode=0x00000100"
    trace = "\n".join(f" R{n}: 0000000000000000 R{n + 1}: 0000000000000000" for n in range(100))
    (tmp_path / CONSOLE_FILE).write_text(f"before\n{reason}\nCPU: 0 PID: 1\n{trace}\n---[ end {reason} ]---\n")
    assert QemuMachine(tmp_path, 0, 1, "tcg").last_words() == reason


async def test_a_child_whose_output_nobody_reads_any_more_ends() -> None:
    """A reader that has seen enough leaves while the pipe is full: asyncio reads on no more, and sees no end of it."""
    with pytest.raises(LookupError):
        async with asyncio.timeout(20), process.child("yes", stdout=asyncio.subprocess.PIPE) as child:
            while child._transport.get_pipe_transport(1).is_reading():  # type: ignore[attr-defined]
                await asyncio.sleep(0)
            raise LookupError("enough")


async def test_a_machine_is_killed_where_its_end_cannot_be_waited_for(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    def refuses(pid: int, flags: int = 0) -> int:
        raise OSError(errno.EMFILE, os.strerror(errno.EMFILE))

    child = subprocess.Popen(["sleep", "100"])
    monkeypatch.setattr(os, "pidfd_open", refuses)
    await QemuMachine(tmp_path, child.pid, process.start_time(child.pid), "tcg").kill()
    assert child.wait(10) == -signal.SIGKILL


async def test_who_is_cancelled_twice_leaves_no_child_that_nobody_waits_for() -> None:
    """As a task is that has not ended within a second."""
    seen: list[asyncio.subprocess.Process] = []

    async def hold() -> None:
        async with process.child("sleep", "100") as child:
            seen.append(child)
            await asyncio.Event().wait()

    task = asyncio.create_task(hold())
    while not seen:
        await asyncio.sleep(0)
    task.cancel()
    await asyncio.sleep(0)
    task.cancel()
    with pytest.raises(asyncio.CancelledError):
        await task
    assert seen[0].returncode == -signal.SIGKILL


async def test_a_command_has_all_of_its_input_from_the_beginning(tmp_path: Path) -> None:
    """Else the death of hyperd would let `nft -f -` take half of a ruleset for the whole."""
    stdin = b"x" * (1 << 20)
    script = "import os; print(os.fstat(0).st_size)"
    assert (await process.run(sys.executable, "-c", script, stdin=stdin)).stdout == f"{1 << 20}\n"
    assert (await process.run("cat")).stdout == ""


def test_no_python_runs_between_fork_and_exec() -> None:
    """Threads of hyperd and of its libraries may hold any lock at that moment; without these words it is a vfork.

    hyper-runtime (oci/) is a process of one thread.
    """
    top = Path(hypercontainer.__file__).parent
    words = {"preexec_fn", "user", "group", "extra_groups"}
    found = [
        f"{path}:{node.lineno}"
        for path in top.rglob("*.py")
        for node in ast.walk(ast.parse(path.read_text()))
        if path.parent != top / "oci"
        and isinstance(node, ast.Call)
        and _starts_a_program(node.func)
        and words & {k.arg for k in node.keywords}
    ]
    assert found == []


def _starts_a_program(called: ast.expr) -> bool:
    return isinstance(called, ast.Attribute) and (
        called.attr in {"Popen", "create_subprocess_exec"} or ast.unparse(called) == "subprocess.run"
    )
