# SPDX-License-Identifier: Apache-2.0
"""A machine that runs is saved, and goes on.

QEMU can leave memory out of what it saves only where it lies in a file that is shared; that of a pod's machine is its
own, which is faster, and what KVM gives huge pages. So a twin of the machine takes all of it in, as a migration to
another host would, with its memory in the snapshot's file, and is saved then as a template is.
https://www.qemu.org/docs/master/devel/migration/main.html
"""

from __future__ import annotations

import asyncio
import contextlib
import fcntl
import os
from collections.abc import Awaitable, Callable
from dataclasses import replace

from ...errors import HyperError
from ...sys import tasks
from ..driver import MachineConfig, Snapshot
from ..facets import Instant
from .machine import QemuMachine

Launch = Callable[[MachineConfig], Awaitable[QemuMachine]]
_PIPE_SIZE = 1 << 20  # bytes; what root may have without asking


async def checkpoint(
    machine: QemuMachine, twin: MachineConfig, snapshot: Snapshot, instant: Instant, launch: Launch
) -> Snapshot:
    """What `facets.Checkpoints` says; `launch` starts the twin."""
    async with contextlib.AsyncExitStack() as undo:
        source, target = os.pipe2(os.O_CLOEXEC)
        undo.callback(os.close, source)
        writing = contextlib.ExitStack()
        writing.callback(os.close, target)
        undo.callback(writing.close)
        with contextlib.suppress(OSError):  # it works with less
            fcntl.fcntl(target, fcntl.F_SETPIPE_SZ, _PIPE_SIZE)
        other = await launch(replace(twin, memory_file=snapshot.memory, incoming=source))
        undo.push_async_callback(other.kill)
        async with instant.quiet():
            await _copy(machine, other, source, target, writing, instant)
        await other.save(snapshot.state)
    return replace(snapshot, stands_still=True)


async def _copy(
    machine: QemuMachine, other: QemuMachine, source: int, target: int, writing: contextlib.ExitStack,
    instant: Instant,
) -> None:  # fmt: skip
    """All of `machine` to `other`."""
    receiving = asyncio.create_task(other.receive(source))
    try:
        sending = asyncio.create_task(_send(machine, target, writing))
        try:
            await _both(sending, receiving)
            await instant.at_rest()
        finally:
            await tasks.end([sending])
            await tasks.to_the_end(machine.go_on())
    finally:
        await tasks.end([receiving])


async def _send(machine: QemuMachine, target: int, writing: contextlib.ExitStack) -> None:
    try:
        await machine.send(target)
    finally:
        writing.close()  # QEMU has its own: the end of that is the end of the stream


async def _both(sending: asyncio.Task[None], receiving: asyncio.Task[None]) -> None:
    """Where one fails, the other would wait."""
    done, _ = await asyncio.wait({sending, receiving}, return_when=asyncio.FIRST_EXCEPTION)
    for task in sorted(done, key=lambda t: t is receiving):
        if (error := task.exception()) and isinstance(error, HyperError | OSError):
            raise error
    await sending
    await receiving
