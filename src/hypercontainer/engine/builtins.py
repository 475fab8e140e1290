# SPDX-License-Identifier: Apache-2.0
"""What hyperstart does itself, run to its end."""

from __future__ import annotations

import asyncio
import contextlib
import signal
from collections.abc import AsyncIterator
from dataclasses import dataclass

from ..errors import GuestError, HyperError
from ..guest.agent import Agent, Process
from ..protocol.constants import Builtin
from ..protocol.messages import GuestProcess
from ..sys import deadlines, tasks
from .streams import FanOut, Reader

_TIMEOUT = 120.0  # seconds
_OUTPUT_MAX = 16 << 20  # bytes
_KILL_TIMEOUT = 2.0  # seconds for the end of a process that is killed


@dataclass(frozen=True)
class Done:
    """How a builtin ended."""

    status: int
    output: bytes
    error_output: bytes

    @property
    def errors(self) -> str:
        """For people."""
        return self.error_output.decode(errors="replace").strip()


@contextlib.asynccontextmanager
async def running(agent: Agent, process: GuestProcess) -> AsyncIterator[tuple[Process, Reader]]:
    """A short process of the guest with its output; it is killed if it has not ended by then, and forgotten."""
    fan_out = FanOut()
    fan_out.begin()
    reader = fan_out.attach()
    handle = await agent.start(process, fan_out)
    fan_out.attach_process(handle)
    guard = asyncio.create_task(_guard(agent, handle, fan_out))
    try:
        yield handle, reader
    finally:
        await tasks.end([guard])
        reader.close()
        try:
            async with asyncio.timeout(_KILL_TIMEOUT):
                if not handle.exited.done():
                    await handle.signal(signal.SIGKILL)
                await handle.exited
                await handle.release()
        except (HyperError, TimeoutError):
            handle.abandon()


async def _guard(agent: Agent, handle: Process, fan_out: FanOut) -> None:
    """A guest that stands still is no reason to wait for ever: whoever waits for the process hears of it."""
    try:
        while True:
            await asyncio.sleep(deadlines.SILENCE)
            await agent.stats()
    except HyperError as error:
        handle.fail(error)
        fan_out.finish()


async def run_process(
    agent: Agent,
    process: GuestProcess,
    *,
    stdin: bytes = b"",
    timeout: float | None = _TIMEOUT,
    keep: int = _OUTPUT_MAX,
) -> Done:
    """Run a short process of the guest; of each output the first `keep` bytes are kept. None is no limit of time.

    :raise TimeoutError: when it does not end; it is killed.
    """
    out = {1: bytearray(), 2: bytearray()}
    async with running(agent, process) as (handle, reader), asyncio.timeout(timeout):
        if process.stdin:
            await handle.write_stdin(stdin)
            handle.close_stdin()
        async for stream, data in reader:
            out[stream] += data[: keep - len(out[stream])]
        status = await handle.exited
    return Done(status.shell_code, bytes(out[1]), bytes(out[2]))


async def run_builtin(agent: Agent, builtin: Builtin, *args: str, stdin: bytes = b"", what: str = "") -> bytes:
    """Its output.

    :raise GuestError: when it fails; the message begins with `what`.
    """
    try:
        done = await run_process(
            agent, GuestProcess(args=args or ("-",), builtin=builtin, stdin=bool(stdin)), stdin=stdin
        )
    except TimeoutError:
        raise GuestError(f"{what or builtin.name}: no answer within {_TIMEOUT:g} s") from None
    if done.status:
        raise GuestError(f"{what or builtin.name}: {done.errors or f'status {done.status}'}")
    return done.output
