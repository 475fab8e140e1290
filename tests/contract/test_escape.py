# SPDX-License-Identifier: Apache-2.0
"""A program in QEMU's place tries to get out of the jail: nothing works, without the filter of system calls neither."""

from __future__ import annotations

import asyncio
import os
import signal
import socket
import subprocess
import sys
from collections.abc import Iterator
from dataclasses import dataclass
from pathlib import Path

import pytest

from hypercontainer.hypervisor.qemu.confinement import CALLS
from hypercontainer.jail import seccomp
from hypercontainer.jail.hyperjail import HyperJail
from hypercontainer.jail.jail import Entry, Order
from hypercontainer.jail.libraries import libraries
from hypercontainer.sys import users

SOURCE = Path(__file__).with_name("escape.c")
FORBIDDEN = ("open", "connect", "ptrace", "bpf", "io_uring", "keyctl", "mount", "execve", "fork", "socket", "kill")
GRANTED = 80
pytestmark = pytest.mark.skipif(os.geteuid() != 0, reason="as root each hypervisor has a user of its own")


@pytest.fixture(scope="module")
def program(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """Linked with the host's libc, as QEMU: the filter is loaded by the dynamic loader."""
    built = tmp_path_factory.mktemp("escape") / "escape"
    zig = (sys.executable, "-m", "ziglang", "cc", "-target", "native-native-gnu", "-D_GNU_SOURCE", "-O1")
    subprocess.run([*zig, "-o", built, SOURCE], check=True)
    built.chmod(0o755)
    return built


@dataclass
class Host:
    """What there is to be reached."""

    jail: HyperJail
    values: dict[str, str]
    program: Path
    output: Path

    async def attempt(self, number: int, value: str, *, filtered: bool) -> tuple[str, int]:
        """What it prints, and how it ends."""
        rules = seccomp.program(seccomp.read(CALLS)) if filtered else b""
        with open(self.output, "w+") as output:
            order = Order(
                args=("/escape", str(number), value),
                user=users.pick(),
                output=output.fileno(),
                files=(Entry(self.program, "/escape"), *map(Entry, libraries(self.program))),
                devices=(Path("/dev/null"), Path("/dev/urandom")),
                filter=rules,
            )
            started = await self.jail.spawn(order)
            _, status = await asyncio.to_thread(os.waitpid, started.pid, 0)
            output.seek(0)
            return output.read().strip(), os.waitstatus_to_exitcode(status)


@pytest.fixture
def host(tmp_path: Path, program: Path) -> Iterator[Host]:
    secret = tmp_path / "secret"
    secret.write_text("of another pod")
    with socket.socket() as tcp, socket.socket(socket.AF_UNIX) as unix, socket.socket(socket.AF_UNIX) as abstract:
        tcp.bind(("127.0.0.1", 0))
        path = f"/tmp/escape-{os.getpid()}.sock"
        unix.bind(path)
        os.chmod(path, 0o777)
        abstract.bind(f"\0hyper-test-{os.getpid()}")
        for sock in (tcp, unix, abstract):
            sock.listen()
        values = {"path": str(secret), "pid": str(os.getpid()), "socket": path, "abstract": str(os.getpid()),
                  "port": str(tcp.getsockname()[1]), "none": ""}  # fmt: skip
        try:
            yield Host(HyperJail(tmp_path / "jail"), values, program, tmp_path / "output")
        finally:
            os.unlink(path)


@pytest.mark.parametrize("filtered", [False, True], ids=["by namespaces and users alone", "with the filter too"])
async def test_nothing_works(host: Host, filtered: bool) -> None:
    """Without the filter each attempt is made, and refused; with it most end the process where they begin."""
    outcomes: dict[str, str] = {}
    for number, (name, kind) in enumerate(attempts(host.program)):
        printed, status = await host.attempt(number, host.values[kind], filtered=filtered)
        outcomes[name] = "killed" if status == -signal.SIGSYS else printed
    print("\n".join(f"{name}: {outcome}" for name, outcome in outcomes.items()))
    assert len(outcomes) >= 40
    assert [name for name, outcome in outcomes.items() if outcome == "worked" or not outcome] == []
    assert not filtered or list(outcomes.values()).count("killed") >= 40


def attempts(program: Path) -> list[list[str]]:
    done = subprocess.run([program], capture_output=True, text=True, check=True)
    return [line.split("|") for line in done.stdout.splitlines()]


def test_the_list_of_calls() -> None:
    rules = seccomp.read(CALLS)
    granted = [r.name for r in rules if not r.missing]
    assert len(granted) <= GRANTED and len(set(granted)) == len(granted)
    assert [name for name in granted if name.startswith(FORBIDDEN)] == []
