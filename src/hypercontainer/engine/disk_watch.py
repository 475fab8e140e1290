# SPDX-License-Identifier: Apache-2.0
"""Machines that the hypervisor stopped because the host's disk was full: they go on when there is space again.

A guest's disks are sparse files. When one cannot grow, QEMU stops the machine
rather than tell its guest of an I/O error, which would cost the guest its file
system. Somebody must wake it: hyperd, once the file systems of its disks have
room. While they have, nothing is asked of any hypervisor.
"""

from __future__ import annotations

import asyncio
import contextlib
import logging
import os
from collections.abc import Awaitable, Callable, Iterable
from pathlib import Path

from ..errors import HyperError
from ..hypervisor.facets import DiskStall
from ..model.status import Pod
from .events import Events
from .runtime import Runtime

log = logging.getLogger(__name__)
LOW = 32 << 20  # bytes that are free: below, machines may stand still
_INTERVAL = 1.0  # seconds between two looks

Running = Callable[[], Iterable[tuple[Pod, Runtime]]]


class DiskWatch:
    """Looks at the space, and wakes who slept for want of it."""

    def __init__(
        self,
        root: Path,
        running: Running,
        events: Events,
        *,
        free: Callable[[Path], int] | None = None,
        interval: float = _INTERVAL,
        drain: Callable[[], Awaitable[object]] | None = None,
    ) -> None:
        """`running` are the pods that have a machine; `free` gives a file system's free bytes; `interval` is seconds.

        `drain` ends machines that wait for a pod: on a full disk they stand still too, and take space.
        """
        self._drain = drain
        self._free = free or free_bytes
        self._root = root
        self._running = running
        self._events = events
        self._interval = interval
        self._suspects: set[str] | None = None  # None: whoever an earlier daemon left

    async def run(self) -> None:
        """Until it is cancelled."""
        while True:
            try:
                await self.look()
            except Exception:  # whoever sleeps must be woken all the same
                log.exception("the space of the host's disks could not be looked at")
            await asyncio.sleep(self._interval)

    async def look(self) -> None:
        """Once; no failure of one machine keeps it from the others."""
        if self._drain and self._free(self._root) < LOW:
            await self._drain()
        pods = list(self._running())
        suspects = {p.id for p, _ in pods} if self._suspects is None else self._suspects
        low = {p.id for p, _ in pods if any(self._free(place) < LOW for place in self._places(p))}
        self._suspects = low
        for pod, runtime in pods:
            if pod.id in suspects | low:
                with contextlib.suppress(HyperError):
                    await self._attend(pod, runtime, low=pod.id in low)

    async def _attend(self, pod: Pod, runtime: Runtime, *, low: bool) -> None:
        if not isinstance(runtime.machine, DiskStall) or not await runtime.machine.stalled():
            runtime.stalled = False
        elif low:
            if not runtime.stalled:
                log.warning("pod %s: its virtual machine stands still, for the host's disk is full", pod.name)
                self._events.publish("pod", "disk_full", pod.id, name=pod.name)
            runtime.stalled = True
        else:
            log.info("pod %s: there is space again, its virtual machine goes on", pod.name)
            await runtime.machine.resume()
            runtime.stalled = False
            assert self._suspects is not None
            self._suspects.add(pod.id)  # it may have stopped at once, or another one with it

    def _places(self, pod: Pod) -> list[Path]:
        return [self._root, *(Path(v.source) for v in pod.volumes if v.kind == "disk" and v.source and not v.read_only)]


def free_bytes(path: Path) -> int:
    """Of the path's file system; where it cannot be told, more than enough."""
    try:
        found = os.statvfs(path)
    except OSError:
        return LOW
    return found.f_bavail * found.f_frsize
