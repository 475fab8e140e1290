# SPDX-License-Identifier: Apache-2.0
"""Made of `sdk/process.py` by scripts/make_sync_sdk.py: change that, and run it."""

from __future__ import annotations

from collections.abc import Iterator
from types import TracebackType
from typing import Self

from ...model.status import ExecInfo
from ..limits import DEFAULT, LONG
from ..portal import call, iterate, run
from ..process import AsyncProcess
from ..results import CommandResult, Output


class Process:
    """A process and a connection to it. It is killed when the connection ends first, but for one in the background.

    Output that is not read holds the process back, as a pipe does.
    """

    def __init__(self, wrapped: AsyncProcess) -> None:
        self._wrapped = wrapped

    def __enter__(self) -> Self:
        return self

    def __exit__(self, kind: type[BaseException] | None, _: object, __: TracebackType | None) -> None:
        run(self._wrapped.__aexit__(kind, _, __))

    def close(self) -> None:
        """End the connection; a process that is not in the background ends with it."""
        call(self._wrapped.close)

    @property
    def id(self) -> str:
        """Of the exec, by which `processes.attach` finds it."""
        return self._wrapped.id

    @property
    def exit_code(self) -> int | None:
        """None while its end was not seen, by `output` or `wait`."""
        return self._wrapped.exit_code

    def __iter__(self) -> Iterator[Output]:
        return iterate(self._wrapped.__aiter__())

    def output(self, *, timeout: float = LONG) -> Iterator[Output]:
        """Pieces as they come, until it has ended. `timeout`: seconds in all.

        :raise StartFailed: the program could not be started. :raise DeadlineExceeded: it has not ended by then.
        """
        return iterate(self._wrapped.output(timeout=timeout))

    def wait(self, *, timeout: float = DEFAULT) -> CommandResult:
        """Until it has ended, with all of its output that was not read; after a timeout one may wait again.

        :raise StartFailed: the program could not be started. :raise DeadlineExceeded: it has not ended, and goes on.
        :raise NoSpace: its output is too much to be kept.
        """
        return run(self._wrapped.wait(timeout=timeout))

    def write(self, data: str | bytes, *, timeout: float = DEFAULT) -> None:
        """To its stdin, where it was given one; returns when there is room for more."""
        run(self._wrapped.write(data, timeout=timeout))

    def close_stdin(self, *, timeout: float = DEFAULT) -> None:
        """It reads the end of its input."""
        run(self._wrapped.close_stdin(timeout=timeout))

    def resize(self, rows: int, columns: int, *, timeout: float = DEFAULT) -> None:
        """Its terminal has another size, in characters."""
        run(self._wrapped.resize(rows, columns, timeout=timeout))

    def signal(self, signal: str | int, *, timeout: float = DEFAULT) -> None:
        """By name (`TERM`, `SIGTERM`) or number; to one that has ended nothing is sent."""
        run(self._wrapped.signal(signal, timeout=timeout))

    def kill(self, *, timeout: float = DEFAULT) -> None:
        """End it at once, with what it has started in its process group."""
        run(self._wrapped.kill(timeout=timeout))

    def info(self, *, timeout: float = DEFAULT) -> ExecInfo:
        """What hyperd says of it: whether it runs, its number in the sandbox."""
        return run(self._wrapped.info(timeout=timeout))
