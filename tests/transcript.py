# SPDX-License-Identifier: Apache-2.0
"""Transcripts: commands of a shell, and what each must print and end with.

    $ docker ps -a --format '{{.Names}} {{.Status}}'
    a Exited (0) <age> ago
    $ docker rm nope
    Error response from daemon: No such container: nope
    ? 1

A line with `$` is a command, one with `?` its exit status where that is not 0, and one with `#` says why. All else is
what it prints, both streams together: `<id>` is 12 hexadecimal digits and `<ID>` 64 of them, `<age>` a span of time as
Docker tells it, `<n>` a number, `<size>` an amount of bytes, `<...>` anything in the line, and a line of `...` any
number of lines. Spaces in a row are one, since columns are as wide as what stands in them.
"""

from __future__ import annotations

import os
import re
import subprocess
from collections.abc import Iterator, Sequence
from dataclasses import dataclass, field
from pathlib import Path

_DEADLINE = 120.0 * float(os.environ.get("HYPER_TEST_SLOWNESS", "1"))  # seconds for any one command
_HOLES = {
    "<id>": "[0-9a-f]{12}",
    "<ID>": "[0-9a-f]{64}",
    "<age>": r"(?:Less than a second|About an? \w+|\d+ \w+)",
    "<n>": r"\d+(?:\.\d+)?",
    "<size>": r"\d+(?:\.\d+)?[kMGT]?i?B",
    "<...>": ".*",
}


@dataclass
class Step:
    """A command, with the number of its line."""

    line: int
    command: str
    expected: list[str] = field(default_factory=list)
    status: int = 0


def read(path: Path) -> list[Step]:
    """The steps of a file."""
    steps: list[Step] = []
    for number, text in enumerate(path.read_text().splitlines(), 1):
        if text.startswith("$ "):
            steps.append(Step(number, text[2:]))
        elif text.startswith("? "):
            steps[-1].status = int(text[2:])
        elif text and not text.startswith("#"):
            steps[-1].expected.append(text)
    return steps


def matches(step: Step, printed: str) -> bool:
    """Whether that is what it must print."""
    lines = [_plain(line) + "\n" for line in printed.splitlines() if line.strip()]
    pattern = "".join("(?:.*\n)*?" if line == "..." else _pattern(_plain(line)) + "\n" for line in step.expected)
    return re.fullmatch(pattern, "".join(lines)) is not None


def _plain(line: str) -> str:
    return re.sub(r"\s+", " ", line).strip()


def _pattern(line: str) -> str:
    parts = re.split("(<id>|<ID>|<age>|<n>|<size>|<\\.\\.\\.>)", line)
    return "".join(_HOLES.get(part) or re.escape(part) for part in parts)


@dataclass
class Played:
    """What a step printed, and its exit status."""

    step: Step
    printed: str
    status: int

    @property
    def right(self) -> bool:
        return self.status == self.step.status and matches(self.step, self.printed)

    def difference(self) -> str:
        """A paragraph."""
        expected = "\n    ".join([*self.step.expected, f"? {self.step.status}"])
        found = "\n    ".join([*self.printed.splitlines(), f"? {self.status}"])
        return f"line {self.step.line}: {self.step.command}\n  must be\n    {expected}\n  is\n    {found}"


def each(
    steps: Sequence[Step], environment: dict[str, str], directory: Path, prefix: Sequence[str] = ()
) -> Iterator[Played]:
    """One step after the other; `prefix` is a command that runs the shell."""
    for step in steps:
        done = subprocess.run(
            [*prefix, "sh", "-c", step.command], stdin=subprocess.DEVNULL, stdout=subprocess.PIPE,
            stderr=subprocess.STDOUT, env=environment, cwd=directory, timeout=_DEADLINE, check=False,
        )  # fmt: skip
        yield Played(step, done.stdout.decode(errors="replace"), done.returncode)


def play(steps: Sequence[Step], environment: dict[str, str], directory: Path) -> list[str]:
    """What was otherwise, a paragraph for each step."""
    return [played.difference() for played in each(steps, environment, directory) if not played.right]
