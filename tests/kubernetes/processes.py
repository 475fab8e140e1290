# SPDX-License-Identifier: Apache-2.0
"""Programs of a cluster, each with a log of its own, and network namespaces for them."""

from __future__ import annotations

import contextlib
import signal
import subprocess
from collections.abc import Iterator, Sequence
from pathlib import Path

_ENDING = 20.0  # seconds that a program has for its end


class Program:
    """One that runs until the test ends, however it does."""

    def __init__(self, name: str, log: Path, command: Sequence[str | Path]) -> None:
        self.name, self.log = name, log
        with open(log, "ab") as output:
            self.process = subprocess.Popen(
                ["setpriv", "--pdeathsig", "KILL", *command],
                stdin=subprocess.DEVNULL, stdout=output, stderr=output, start_new_session=True,
            )  # fmt: skip

    @property
    def runs(self) -> bool:
        return self.process.poll() is None

    def words(self) -> str:
        """The last ones that it said."""
        return f"{self.name}:\n" + "\n".join(self.log.read_text(errors="replace").splitlines()[-30:])

    def end(self, sig: int = signal.SIGTERM) -> None:
        if self.runs:
            self.process.send_signal(sig)
        with contextlib.suppress(subprocess.TimeoutExpired):
            self.process.wait(_ENDING)
            return
        self.process.kill()
        self.process.wait(_ENDING)


@contextlib.contextmanager
def running(name: str, log: Path, command: Sequence[str | Path]) -> Iterator[Program]:
    """A program that has ended afterwards."""
    program = Program(name, log, command)
    try:
        yield program
    finally:
        program.end()


def ip(*words: str) -> None:
    subprocess.run(["ip", *words], check=True)


@contextlib.contextmanager
def namespace(name: str) -> Iterator[str]:
    """A network namespace that has its loopback."""
    ip("netns", "add", name)
    try:
        ip("-n", name, "link", "set", "lo", "up")
        yield name
    finally:
        ip("netns", "del", name)
