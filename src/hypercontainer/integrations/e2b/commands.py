# SPDX-License-Identifier: Apache-2.0
"""Commands that clients have begun; they go on when nobody listens, and their output of that time is nobody's."""

from __future__ import annotations

import asyncio
import base64
import contextlib
import time
from collections.abc import AsyncIterator
from typing import Any

from ...errors import DeadlineExceeded, HyperError
from ...sdk import AsyncProcess, AsyncSandbox, Output
from .connect import Message

BASH = "/bin/bash"  # which their SDK takes for each command
_SHELL = "/bin/sh"
_AHEAD = 64  # pieces of output that wait for a slow listener; then the command waits for it
_PID = 10.0  # seconds in which a command has its number
_EVER = 366 * 86400.0  # seconds
_Queue = asyncio.Queue[Message | HyperError]


async def shell_of(sandbox: AsyncSandbox) -> str:
    """The image's own shell in the place of a bash that it does not have."""
    return BASH if await sandbox.files.exists(BASH) else _SHELL


class Running:
    """A command, and who listens to it."""

    pid = 0

    def __init__(self, process: AsyncProcess, config: dict[str, Any], tag: str, *, tty: bool) -> None:
        self.process = process
        self.config = config
        self.tag = tag
        self.tty = tty
        self.done = False
        self._listeners: set[_Queue] = set()
        self._task: asyncio.Task[None] | None = None

    def begin(self, timeout: float | None) -> None:
        """Read what it says. It is killed after that many seconds."""
        self._task = asyncio.create_task(self._run(timeout))

    async def number(self) -> int:
        """Its process number, once it has one; 0 of one that never had.

        :raise DeadlineExceeded: it has none for long.
        """
        end = time.monotonic() + _PID
        while not self.pid:
            over = self.done
            self.pid = (await self.process.info(timeout=_PID)).pid
            if over:
                break
            if time.monotonic() > end:
                raise DeadlineExceeded(f"the command has not begun within {_PID:g} s")
            await asyncio.sleep(0.01)
        return self.pid

    async def _run(self, timeout: float | None) -> None:
        last: Message | HyperError
        try:
            async with asyncio.timeout(timeout):
                async for piece in self.process.output(timeout=_EVER):
                    await self._tell({"data": self._data(piece)})
            last = {"end": _end(self.process.exit_code or 0)}
        except TimeoutError:
            last = DeadlineExceeded(f"the command was killed after {timeout:g} s")
            with contextlib.suppress(HyperError):
                await self.process.kill()
        except HyperError as error:
            last = error
        finally:
            self.done = True
            self.process.close()
        await self._tell(last)

    def _data(self, piece: Output) -> dict[str, str]:
        return {"pty" if self.tty else piece.stream: base64.b64encode(piece.data).decode()}

    async def _tell(self, event: Message | HyperError) -> None:
        for queue in tuple(self._listeners):
            if queue in self._listeners:
                await queue.put(event)

    def listen(self) -> _Queue:
        """From now on; `forget` it in the end."""
        queue: _Queue = asyncio.Queue(_AHEAD)
        self._listeners.add(queue)
        return queue

    def forget(self, queue: _Queue) -> None:
        """Nobody reads it any more; the command may wait for it just now."""
        self._listeners.discard(queue)
        while not queue.empty():
            queue.get_nowait()

    async def events(self, queue: _Queue) -> AsyncIterator[Message]:
        """What is told, until it has ended. :raise HyperError: it ended by one."""
        while True:
            event = await queue.get()
            if isinstance(event, HyperError):
                raise event
            yield event
            if "end" in event:
                return

    async def close(self) -> None:
        """Listen to it no more; what runs in a sandbox that stays goes on."""
        if self._task:
            self._task.cancel()
            await asyncio.gather(self._task, return_exceptions=True)
        self.process.close()


def _end(code: int) -> dict[str, Any]:
    found: dict[str, Any] = {"exitCode": code, "exited": code < 128, "status": f"exit status {code}"}
    if code:
        found["error"] = found["status"]
    return found
