# SPDX-License-Identifier: Apache-2.0
"""A volume's file system, in a guest that runs, takes no writes for a while, and is whole on its disk.

The guest lets it go on by itself when it hears nothing of this daemon, and after a time that it is told at the start.
"""

from __future__ import annotations

import asyncio
import contextlib
from collections.abc import AsyncIterator

from ..errors import GuestError, HyperError, Unavailable
from ..guest.agent import HoldVolumes, Process, require
from ..sys import deadlines, tasks
from .builtins import running
from .runtime import Runtime
from .streams import Reader

_FREEZE = 60.0  # seconds in which what the guest has not written yet is on the disk
_SILENCE = 30.0  # seconds without a word of ours, after which it goes on; a busy host passes it on late
_BEAT = 2.0  # seconds between two words


@contextlib.asynccontextmanager
async def held(runtime: Runtime, guest_name: str, what: str, limit: float) -> AsyncIterator[None]:
    """Within it stands still, for `limit` seconds at most; `what` is the volume for people.

    :raise Unsupported: the guest's hyperstart is older. :raise GuestError: it cannot be frozen.
    :raise Unavailable: at the end: it was written to meanwhile.
    """
    process = require(runtime.agent, HoldVolumes).hold_process(guest_name, _SILENCE, limit)
    async with running(runtime.agent, process) as (handle, reader):
        try:
            await tasks.within(_frozen(handle, reader, what), _FREEZE)
        except TimeoutError:
            raise GuestError(f"{what} is not written to its disk within {_FREEZE:g} s") from None
        beat = asyncio.create_task(_beat(handle))
        try:
            yield
        finally:
            await tasks.end([beat])
        handle.close_stdin()
        try:
            status = await tasks.within(handle.exited, deadlines.ANSWER)
        except TimeoutError:
            raise Unavailable(f"the guest does not say what has become of {what}") from None
        if status.shell_code:
            raise Unavailable(f"{what} was written to before all of it was copied: that took too long",
                              hint="stop or pause the pod meanwhile")  # fmt: skip


async def _frozen(handle: Process, reader: Reader, what: str) -> None:
    """Until it stands still."""
    out = {1: bytearray(), 2: bytearray()}
    async for stream, data in reader:
        out[stream] += data
        if b"\n" in out[1]:
            return
    await handle.exited
    raise GuestError(f"{what} cannot be frozen: {out[2].decode(errors='replace').strip() or 'the guest says nothing'}")


async def _beat(handle: Process) -> None:
    """A guest that takes no word any more goes on by itself, and says so at the end."""
    with contextlib.suppress(HyperError):
        while True:
            await asyncio.sleep(_BEAT)
            await handle.write_stdin(b".")
