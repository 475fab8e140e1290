# SPDX-License-Identifier: Apache-2.0
"""The processes of a sandbox."""

from __future__ import annotations

import builtins

from ..client.base import container_route, exec_route
from ..errors import InvalidArgument, InvalidState, NotFound
from ..model.status import ProcessInfo
from .exchange import Exchange
from .frames import Frames
from .limits import DEFAULT, Bounded
from .process import AsyncProcess, signal_number


class AsyncProcesses(Bounded):
    """All of them, whoever started them."""

    async def list(self, *, timeout: float = DEFAULT) -> builtins.list[ProcessInfo]:
        """Those that run, by their numbers in the sandbox."""
        call = self._api.call(list[ProcessInfo], "GET", container_route(self._container_id, "/top"))
        return await self._within(timeout, "the list of processes", call)

    async def attach(self, id: str, *, timeout: float = DEFAULT) -> AsyncProcess:
        """A process that was executed in the background, by the id that it had then: its output from now on.

        :raise NotFound: there is none, or it ended long ago.
        """
        call = self._api.upgrade(exec_route(id, "/attach"))
        exchange = await self._within(timeout, "attaching to the process", call, Exchange.close)
        return AsyncProcess(self._api, self._container_id, id, Frames(exchange))

    async def kill(self, pid: int, signal: str | int = "KILL", *, timeout: float = DEFAULT) -> None:
        """Send a signal to a process by its number; the sandbox must have a shell.

        :raise NotFound: there is no such process. :raise InvalidState: it cannot be sent.
        :raise InvalidArgument: that is no process's number.
        """
        if pid < 1:  # to the shell it would be a group, or all
            raise InvalidArgument(f"{pid} is no number of a process", hint="see `processes.list()`")
        number = signal_number(signal)
        await self._within(timeout, "the signal", self._kill(pid, number))

    async def _kill(self, pid: int, number: int) -> None:
        spec = {"command": ["sh", "-c", f"kill -{number} {int(pid)}"]}
        exchange = await self._api.upgrade(
            container_route(self._container_id, "/exec"), {"start": True, "bound": True}, spec
        )
        process = AsyncProcess(self._api, self._container_id, exchange.headers.get("hyper-id", ""), Frames(exchange))
        try:
            done = await process.wait()
        finally:
            process.close()
        if "no such process" in done.stderr.lower():
            raise NotFound(f"no such process: {pid}")
        if not done.ok:
            raise InvalidState(f"the signal cannot be sent to {pid}: {done.stderr.strip()}")
