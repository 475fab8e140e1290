# SPDX-License-Identifier: Apache-2.0
"""What calls of the SDK give."""

from __future__ import annotations

import base64
from dataclasses import dataclass
from typing import Any, Literal

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


@dataclass(frozen=True)
class CodeError:
    """What code has raised; `TimeoutError` when its time was over."""

    name: str
    value: str
    traceback: str


@dataclass(frozen=True)
class Table:
    """A data frame: the first ten thousand of its `count` rows."""

    columns: list[str]
    rows: list[list[Any]]
    count: int


@dataclass(frozen=True)
class CodeResult:
    """A value that code has shown, by media types; `main`: that of its last expression."""

    data: dict[str, Any]
    main: bool

    @property
    def text(self) -> str:
        """As Python writes it."""
        return str(self.data.get("text/plain", ""))

    @property
    def html(self) -> str | None:
        """For browsers."""
        return self.data.get("text/html")

    @property
    def png(self) -> bytes | None:
        """A picture."""
        return base64.b64decode(found) if (found := self.data.get("image/png")) else None

    @property
    def table(self) -> Table | None:
        """Of a data frame."""
        return Table(**found) if (found := self.data.get("application/vnd.hypercontainer.table+json")) else None


@dataclass(frozen=True)
class Execution:
    """What a piece of code gave: what it has shown, what it has written, what it has raised."""

    results: list[CodeResult]
    stdout: str
    stderr: str
    error: CodeError | None

    @property
    def text(self) -> str:
        """Of the last expression's value; "" where there is none."""
        return next((result.text for result in self.results if result.main), "")


class CommandFailed(HyperError):
    """A command ended with another exit code than 0, and `check` was asked for."""

    code = "command_failed"

    def __init__(self, result: CommandResult) -> None:
        last = (result.stderr or result.stdout).strip().splitlines()[-1:]
        super().__init__(f"the command ended with exit code {result.exit_code}", hint=last[0] if last else None)
        self.result = result
