# SPDX-License-Identifier: Apache-2.0
"""A machine that runs is saved, and goes on.

QEMU's own way to save memory takes it to pieces, pushes them through a stream, and puts them together in a second
QEMU: most of a second for what is a copy of some megabytes. So it is asked for the state of its devices only, and what
its guest has written is copied out of its process, into the file that others will map.
https://www.qemu.org/docs/master/interop/qemu-qmp-ref.html (xen-save-devices-state, which has nothing of Xen in it)
"""

from __future__ import annotations

import contextlib
import os
from collections.abc import Iterator
from dataclasses import replace
from pathlib import Path

from ...errors import Unavailable
from ...jail.binaries import binary
from ...sys import process, tasks
from ..driver import Snapshot
from ..facets import Instant
from .machine import QemuMachine

_SLOWEST = 20 << 20  # bytes per second that memory is copied with at least; some of it may be swapped out
_LEAST = 10.0  # seconds that are given for it, however little it is
_ENDED = "the virtual machine has ended"


async def checkpoint(machine: QemuMachine, snapshot: Snapshot, instant: Instant) -> Snapshot:
    """What `facets.Checkpoints` says."""
    async with instant.quiet():
        try:
            await machine.save_devices(snapshot.state)
            await _copy_memory(machine, snapshot.memory)
            await instant.at_rest()
        finally:
            await tasks.to_the_end(machine.resume())
    return replace(snapshot, live=True)


async def _copy_memory(machine: QemuMachine, target: int) -> None:
    """Into an empty file, as long as the memory. By a process: whoever has taken QEMU over may make reads of it wait.

    :raise Unavailable: it cannot be read, or not in time.
    """
    size = os.fstat(target).st_size
    address = await machine.address_of_memory()
    with _memory_of(machine) as (mem, pagemap, base):
        numbers = (mem, pagemap, base, target)
        try:
            done = await tasks.within(
                process.run(
                    binary("hyperjail-memory"), *map(str, (*numbers, address, size)),
                    descriptors=[fd for fd in numbers if fd >= 0],
                ), _LEAST + size / _SLOWEST,
            )  # fmt: skip
        except TimeoutError:
            raise Unavailable("the memory of the virtual machine could not be copied in time") from None
    if done.status:
        raise Unavailable(f"the memory of the virtual machine could not be copied: {done.stderr.strip() or _ENDED}")


@contextlib.contextmanager
def _memory_of(machine: QemuMachine) -> Iterator[tuple[int, int, int]]:
    """Descriptors of its process's memory and page map, and of the file below, which is -1 where there is none.

    :raise Unavailable: hyperd may not.
    """
    place = Path(f"/proc/{machine.pid}")
    with contextlib.ExitStack() as stack:

        def opened(path: Path) -> int:
            fd = os.open(path, os.O_RDONLY | os.O_CLOEXEC)
            stack.callback(os.close, fd)
            return fd

        try:
            mem, pagemap, base = opened(place / "mem"), opened(place / "pagemap"), -1
            if file := machine.memory_file:
                base = file.open(machine.pid)
                stack.callback(os.close, base)
        except (FileNotFoundError, ProcessLookupError) as error:
            raise Unavailable(_ENDED) from error
        except PermissionError as error:
            raise Unavailable(
                "hyperd may not read the memory of a virtual machine", hint="it needs the capability CAP_SYS_PTRACE"
            ) from error
        if not machine.alive:  # the number may be another process's
            raise Unavailable(_ENDED)
        yield mem, pagemap, base
