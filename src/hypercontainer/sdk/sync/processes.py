# SPDX-License-Identifier: Apache-2.0
"""Made of `sdk/processes.py` by scripts/make_sync_sdk.py: change that, and run it."""

from __future__ import annotations

import builtins

from ...model.status import ProcessInfo
from ..limits import DEFAULT
from ..portal import run
from ..processes import AsyncProcesses
from .process import Process


class Processes:
    """All of them, whoever started them."""

    def __init__(self, wrapped: AsyncProcesses) -> None:
        self._wrapped = wrapped

    def list(self, *, timeout: float = DEFAULT) -> builtins.list[ProcessInfo]:
        """Those that run, by their numbers in the sandbox."""
        return run(self._wrapped.list(timeout=timeout))

    def attach(self, id: str, *, timeout: float = DEFAULT) -> Process:
        """A process that was executed in the background, by the id that it had then: its output from now on.

        :raise NotFound: there is none, or it ended long ago.
        """
        return Process(run(self._wrapped.attach(id, timeout=timeout)))

    def kill(self, pid: int, signal: str | int = "KILL", *, timeout: float = DEFAULT) -> None:
        """Send a signal to a process by its number; the sandbox must have a shell.

        :raise NotFound: there is no such process. :raise InvalidState: it cannot be sent.
        :raise InvalidArgument: that is no process's number.
        """
        run(self._wrapped.kill(pid, signal, timeout=timeout))
