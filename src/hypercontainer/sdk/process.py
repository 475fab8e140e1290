# SPDX-License-Identifier: Apache-2.0
"""A process in a sandbox that was executed there: its output, its input, its end."""

from __future__ import annotations

import asyncio
import contextlib
import json
from collections.abc import AsyncIterator, Coroutine
from types import TracebackType
from typing import Any, Self, TypeVar

from ..client.base import exec_route
from ..errors import HyperError, NoSpace
from ..model.frames import RESIZE, STDERR, STDIN, STDOUT
from ..model.signals import parse_signal
from ..model.status import ExecInfo
from .api import Api
from .frames import Frames
from .limits import BUSY, DEFAULT, LONG, Bounded, Deadline
from .results import CommandResult, Output

T = TypeVar("T")
OUTPUT_MAX = 64 << 20  # bytes of output that `wait` keeps


class AsyncProcess(Bounded):
    """A process and a connection to it. It is killed when the connection ends first, but for one in the background.

    Output that is not read holds the process back, as a pipe does.
    """

    def __init__(self, api: Api, container: str, id_: str, frames: Frames) -> None:
        super().__init__(api, container)
        self._id = id_
        self._frames = frames
        self._exit_code: int | None = None
        self._kept = {STDOUT: bytearray(), STDERR: bytearray()}

    async def __aenter__(self) -> Self:
        return self

    async def __aexit__(self, kind: type[BaseException] | None, _: object, __: TracebackType | None) -> None:
        self.close()

    def close(self) -> None:
        """End the connection; a process that is not in the background ends with it."""
        self._frames.close()

    @property
    def id(self) -> str:
        """Of the exec, by which `processes.attach` finds it."""
        return self._id

    @property
    def exit_code(self) -> int | None:
        """None while its end was not seen, by `output` or `wait`."""
        return self._exit_code

    def __aiter__(self) -> AsyncIterator[Output]:
        return self.output()

    async def output(self, *, timeout: float = LONG) -> AsyncIterator[Output]:
        """Pieces as they come, until it has ended. `timeout`: seconds in all.

        :raise StartFailed: the program could not be started. :raise DeadlineExceeded: it has not ended by then.
        """
        deadline = Deadline(timeout)
        while found := await self._within(deadline, "the process", self._next()):
            stream, data = found
            yield Output("stdout" if stream == STDOUT else "stderr", data)

    async def wait(self, *, timeout: float = DEFAULT) -> CommandResult:
        """Until it has ended, with all of its output that was not read; after a timeout one may wait again.

        :raise StartFailed: the program could not be started. :raise DeadlineExceeded: it has not ended, and goes on.
        :raise NoSpace: its output is too much to be kept.
        """
        return await finish(self, Deadline(timeout), "the process")

    def _result(self) -> CommandResult:
        assert self._exit_code is not None
        out, err = (bytes(self._kept[s]).decode(errors="replace") for s in (STDOUT, STDERR))
        return CommandResult(self._exit_code, out, err)

    async def _collect(self) -> None:
        while found := await self._next():
            self._kept[found[0]] += found[1]
            if sum(map(len, self._kept.values())) > OUTPUT_MAX:
                self.close()
                raise NoSpace(f"the process has written more than {OUTPUT_MAX >> 20} MiB, and was ended",
                              hint="read its output piece by piece")  # fmt: skip

    async def _next(self) -> tuple[int, bytes] | None:
        try:
            if found := await self._frames.next():
                return found
            assert self._frames.ended is not None
            self._exit_code = int(self._frames.ended.get("exitCode", 126))
        except HyperError:
            if self._frames.ended is not None:
                self._exit_code = int(self._frames.ended["error"].get("exitStatus") or 126)
            raise
        return None

    async def write(self, data: str | bytes, *, timeout: float = DEFAULT) -> None:
        """To its stdin, where it was given one; returns when there is room for more."""
        raw = data.encode() if isinstance(data, str) else data
        await self._within(timeout, "the input", self._frames.send_input(raw))

    async def close_stdin(self, *, timeout: float = DEFAULT) -> None:
        """It reads the end of its input."""
        await self._within(timeout, "the input's end", self._frames.send(STDIN, b""))

    async def resize(self, rows: int, columns: int, *, timeout: float = DEFAULT) -> None:
        """Its terminal has another size, in characters."""
        size = json.dumps({"rows": rows, "columns": columns}).encode()
        await self._within(timeout, "the resizing", self._frames.send(RESIZE, size))

    async def signal(self, signal: str | int, *, timeout: float = DEFAULT) -> None:
        """By name (`TERM`, `SIGTERM`) or number; to one that has ended nothing is sent."""
        call = self._api.do("POST", exec_route(self.id, "/kill"), {"signal": signal_number(signal)})
        await self._within(timeout, "the signal", call)

    async def kill(self, *, timeout: float = DEFAULT) -> None:
        """End it at once, with what it has started in its process group."""
        call = self._api.do("POST", exec_route(self.id, "/kill"), {"signal": "KILL", "group": True})
        await self._within(timeout, "the signal", call)

    async def info(self, *, timeout: float = DEFAULT) -> ExecInfo:
        """What hyperd says of it: whether it runs, its number in the sandbox."""
        call = self._api.call(ExecInfo, "GET", exec_route(self.id))
        return await self._within(timeout, "the question", call)


async def finish(process: AsyncProcess, deadline: Deadline, what: str, *, busy: str = BUSY) -> CommandResult:
    """`wait`, as one step of a call that has several; `busy` is said of one that is at work when its time is over."""
    await process._within(deadline, what, process._collect(), busy=busy)
    return process._result()


async def limited(process: AsyncProcess, deadline: Deadline, what: str, work: Coroutine[Any, Any, T]) -> T:
    """Something with it, of several steps, in its time."""
    return await process._within(deadline, what, work)


async def next_piece(process: AsyncProcess) -> tuple[int, bytes] | None:
    """Of its output, by the stream's number; None at the end."""
    return await process._next()


async def send(process: AsyncProcess, data: bytes) -> None:
    """To its stdin."""
    await process._frames.send_input(data)


@contextlib.asynccontextmanager
async def fed(process: AsyncProcess, data: str | bytes | None, timeout: float) -> AsyncIterator[None]:
    """All of its stdin is written meanwhile; None: it was given none."""

    async def write(data: str | bytes) -> None:
        await process.write(data, timeout=timeout)
        await process.close_stdin(timeout=timeout)

    sending = asyncio.create_task(write(data)) if data is not None else None
    try:
        yield
    finally:
        if sending:
            sending.cancel()
            await asyncio.gather(sending, return_exceptions=True)


def signal_number(signal: str | int) -> int:
    """:raise InvalidArgument: there is no such signal."""
    return parse_signal(str(int(signal)) if isinstance(signal, int) else signal)
