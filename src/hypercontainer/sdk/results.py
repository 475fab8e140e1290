# SPDX-License-Identifier: Apache-2.0
"""What calls of the SDK give."""

from __future__ import annotations

from dataclasses import dataclass
from typing import Literal

from ..errors import HyperError


@dataclass(frozen=True)
class CommandResult:
    """A command that has ended; `exit_code` is 128 + n when signal n ended it."""

    exit_code: int
    stdout: str
    stderr: str

    @property
    def ok(self) -> bool:
        """Whether it ended well."""
        return self.exit_code == 0


@dataclass(frozen=True)
class Output:
    """A piece of a process's output, as it came; a terminal's is all `stdout`."""

    stream: Literal["stdout", "stderr"]
    data: bytes

    @property
    def text(self) -> str:
        """As UTF-8; a character that was cut in two by the border of two pieces is not whole in either."""
        return self.data.decode(errors="replace")


@dataclass(frozen=True)
class LogLine:
    """A line of the log of a sandbox's own program; the time is RFC 3339."""

    time: str
    stream: Literal["stdout", "stderr"]
    text: str


class CommandFailed(HyperError):
    """A command ended with another exit code than 0, and `check` was asked for."""

    code = "command_failed"

    def __init__(self, result: CommandResult) -> None:
        last = (result.stderr or result.stdout).strip().splitlines()[-1:]
        super().__init__(f"the command ended with exit code {result.exit_code}", hint=last[0] if last else None)
        self.result = result
