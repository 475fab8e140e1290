# SPDX-License-Identifier: Apache-2.0
"""How a machine's process ended is told, unless we ended it."""

from __future__ import annotations

import os
import subprocess
import sys

import pytest

from hypercontainer.hypervisor.process_machine import ProcessMachine
from hypercontainer.sys import process


class Program(ProcessMachine):
    program = "a program"


def begin(code: str) -> Program:
    """A program that waits for us, and then does that; nobody else waits for its end."""
    reads, writes = os.pipe()
    command = [sys.executable, "-S", "-c", f"import os, signal; os.read({reads}, 1); {code}"]
    child = subprocess.Popen(command, pass_fds=[reads])
    child.returncode = 0  # it is not this object's any more
    made = Program(child.pid, process.start_time(child.pid) or 0)
    os.close(reads)
    os.close(writes)
    return made


@pytest.mark.parametrize(
    ("code", "told"),
    [("os._exit(3)", "with status 3"), ("os.kill(os.getpid(), 6)", "by SIGABRT"), ("os._exit(0)", "with status 0")],
)
async def test_by_itself(code: str, told: str) -> None:
    machine = begin(code)
    await machine.wait()
    assert machine.ending() == told
    await machine.kill()
    assert machine.ending() == told


async def test_by_us() -> None:
    machine = begin("signal.pause()")
    assert machine.ending() == ""
    await machine.kill()
    await machine.kill()
    assert not machine.alive and machine.ending() == ""
