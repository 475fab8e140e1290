# SPDX-License-Identifier: Apache-2.0
"""Commands of Docker's client on two daemons, one after the other, and where what they print differs."""

from __future__ import annotations

import os
import re
import subprocess
from dataclasses import dataclass
from pathlib import Path

from tests.transcript import Step, matches

_DEADLINE = 120.0  # seconds for any one command
# What is another at each run, and what stands for it: the longest first.
_VARYING = (
    (r"\b[0-9a-f]{64}\b", "<ID>"),
    (r"\b[0-9a-f]{12}\b", "<id>"),
    (r"\d{4}-\d\d-\d\d[T ]\d\d:\d\d:\d\d(?:\.\d+)?(?:Z| \+0000 UTC)?", "<time>"),
    (r"\b(?:Less than a second|About an? \w+|\d+ (?:second|minute|hour|day|month|year)s?)\b", "<age>"),
    (r"\b\d+(?:\.\d+)?[kMGT]?i?B\b", "<size>"),
    (r"\b(?:0a|02|[0-9a-f]{2})(?::[0-9a-f]{2}){5}\b", "<mac>"),
)


@dataclass(frozen=True)
class Side:
    """A daemon, and a directory for what commands leave there."""

    socket: Path
    place: Path

    @property
    def environment(self) -> dict[str, str]:
        return {**os.environ, "DOCKER_HOST": f"unix://{self.socket}", "DOCKER_CONFIG": str(self.place / "config"),
                "DOCKER_CLI_HINTS": "false", "TERM": "dumb", "DOCKER_API_VERSION": "1.45"}  # fmt: skip

    def run(self, command: str) -> tuple[int, str]:
        """Its exit status, and both of its streams together."""
        done = subprocess.run(
            ["sh", "-c", command], stdin=subprocess.DEVNULL, stdout=subprocess.PIPE, stderr=subprocess.STDOUT,
            env=self.environment, cwd=self.place, timeout=_DEADLINE, check=False,
        )  # fmt: skip
        return done.returncode, done.stdout.decode(errors="replace")


@dataclass(frozen=True)
class Difference:
    """A thing that is not the same: of both daemons, what it is."""

    what: str
    docker: str
    here: str


def plain(printed: str, side: Side) -> str:
    """What was printed, without what is another at each run."""
    text = printed.replace(str(side.place), "<place>").replace(str(side.socket), "<socket>")
    for pattern, hole in _VARYING:
        text = re.sub(pattern, hole, text)
    return "\n".join(re.sub(r"[ \t]+", " ", line).strip() for line in text.splitlines() if line.strip())


def compared(steps: list[Step], docker: Side, here: Side) -> list[Difference]:
    """What differs; what agrees with an expectation that leaves no line open is the same."""
    found = []
    for step in steps:
        (status, printed), (own_status, own) = docker.run(step.command), here.run(step.command)
        texts = [f"{plain(p, side)}\n? {s}" for p, s, side in ((printed, status, docker), (own, own_status, here))]
        open_ended = any(line == "..." or "<...>" in line for line in step.expected)
        expected = step.expected and not open_ended and matches(step, printed) and matches(step, own)
        if texts[0] != texts[1] and not (expected and status == own_status):
            found.append(Difference(step.command, *texts))
    return found
