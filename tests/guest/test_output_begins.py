# SPDX-License-Identifier: Apache-2.0
"""A host that does not know how much of the output was safe."""

from __future__ import annotations

import asyncio
from collections.abc import Callable
from contextlib import AbstractAsyncContextManager
from pathlib import Path

from hypercontainer.protocol.messages import GuestProcess

from .conftest import Guest, Sink

Start = Callable[[], AbstractAsyncContextManager[Guest]]


async def test_the_guest_says_where_its_output_begins(start: Start, tmp_path: Path) -> None:
    """600 KB are safe, more than a window; the next host asks from 0, and gets what follows instead of nothing."""
    script = f"head -c 600000 /dev/zero; echo err >&2; until test -e {tmp_path}/go; do sleep 0.05; done; echo after"
    process = GuestProcess(args=("/bin/sh", "-c", script), env=("PATH=/usr/bin:/bin",))
    async with start() as guest:
        try:
            await _asked_from_zero(guest, process, tmp_path / "go")
        finally:
            (tmp_path / "go").touch()


async def _asked_from_zero(guest: Guest, process: GuestProcess, go: Path) -> None:
    first, sink = await guest.session(), Sink()
    handle = await first.start(process, sink)
    async with asyncio.timeout(20):
        while len(sink.data[1]) < 600_000 or not sink.data[2]:
            await asyncio.sleep(0.01)
    # An answer to a later request: the guest has read the last acknowledgement before it.
    await first.stats()
    token = first.next_token
    first.close()
    second, sink = await guest.session(token), Sink()
    again = second.reattach(handle.id, sink, (0, 0))
    assert again is not None
    assert sink.missing[1] > 300_000
    go.touch()
    await asyncio.wait_for(again.exited, 20)
    assert await again.drain()
    assert sink.data[1].endswith(b"after\n") and sink.missing[1] + len(sink.data[1]) == 600_006
    second.close()
