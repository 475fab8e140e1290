# SPDX-License-Identifier: Apache-2.0
"""Copies of disks of one instant, also of a pod that runs: its machine stands still while they are made.

What its guest had not written by then is not in them, as after a power cut: their file systems have a journal.
"""

from __future__ import annotations

import asyncio
import contextlib
from collections.abc import Awaitable, Callable, Mapping
from functools import partial
from pathlib import Path

from ..errors import HyperError, NoSpace, Unavailable
from ..hypervisor import facets
from ..hypervisor.facets import require
from ..model.status import Pod, PodStatus
from ..sys import tasks
from ..sys.files import copy_sparse, no_space_as_error
from .registry import Registry
from .runtime import Runtime, record
from .sandbox_verbs import Work
from .sandboxes import Sandboxes

WAIT = 60.0  # seconds for a pod that begins, ends, or is saved
Copies = Mapping[Path, Path]  # a disk -> its copy, which is not there yet
Copying = Callable[[], Awaitable[None]]
# What has a pod that runs, or a part of it, stand still until it is undone.
Stop = Callable[[Pod, Runtime, contextlib.AsyncExitStack], Awaitable[None]]


async def stop(pod: Pod, runtime: Runtime, undo: contextlib.AsyncExitStack) -> None:
    """All of its machine. :raise Unsupported: its driver cannot."""
    machine = require(runtime.machine, facets.Pause)

    async def go_on() -> None:
        with contextlib.suppress(HyperError):  # its end: whoever watches over it tells
            await tasks.to_the_end(machine.resume())

    undo.push_async_callback(go_on)
    await machine.pause()


class StillDisks:
    """Makes them."""

    def __init__(self, registry: Registry, sandboxes: Sandboxes) -> None:
        self._registry = registry
        self._sandboxes = sandboxes

    async def copy(self, pod_id: str, copies: Copies) -> None:
        """Of disks that are this pod's, or of its volumes; those that are not there are left out.

        :raise NoSpace: the disk is full. :raise Unavailable: the pod does not come to rest in time.
        """
        try:
            await tasks.within(self._copy(pod_id, partial(_copy_all, copies)), WAIT + max(0.0, _seconds(copies)))
        except TimeoutError:
            name = self._registry.known_pod(pod_id).name if self._registry.has_pod(pod_id) else pod_id
            raise Unavailable(f"the disks of pod {name} cannot be copied: it begins, ends or is saved all the time",
                              hint="try again later, or stop it") from None  # fmt: skip

    async def _copy(self, pod_id: str, copying: Copying) -> None:
        while True:
            changed = self._registry.changed
            if await self.copied(pod_id, copying):
                return
            await changed.wait()

    async def copied(self, pod_id: str, copying: Copying, stop: Stop = stop) -> bool:
        """False while it is neither up nor down; raises what `stop`, what it undoes, and `copying` do."""
        runtime = self._sandboxes.runtime(pod_id)
        if runtime and self._sandboxes.is_up(pod_id):
            return await self._copied_running(pod_id, copying, stop)
        if runtime and self._is_paused(pod_id):
            async with runtime.saving:  # nobody lets it go on
                if not self._is_paused(pod_id):
                    return False
                await copying()
                return True
        if not self._is_down(pod_id):
            return False
        await copying()
        return self._is_down(pod_id)

    def has_machine(self, pod_id: str) -> bool:
        """Whether its disks may be written to, or are about to be."""
        return not self._is_down(pod_id)

    def _is_paused(self, pod_id: str) -> bool:
        return self._registry.has_pod(pod_id) and self._registry.known_pod(pod_id).status is PodStatus.PAUSED

    def _is_down(self, pod_id: str) -> bool:
        return not self._sandboxes.has_machine(pod_id) or self._sandboxes.is_suspended(pod_id)

    async def _copied_running(self, pod_id: str, copying: Copying, stop: Stop) -> bool:
        done = False

        async def work(runtime: Runtime) -> None:
            nonlocal done
            async with runtime.saving:
                pod = self._registry.known_pod(pod_id)
                # Should the daemon die meanwhile, the next one lets it go on.
                self._registry.put_pod(record(pod, runtime))
                async with contextlib.AsyncExitStack() as undo:
                    await stop(pod, runtime, undo)
                    await copying()
                done = True

        try:
            await self._sandboxes.sandbox(pod_id).ask(Work(work))
        except asyncio.CancelledError:
            if tasks.cancelled():
                raise  # else the machine is ended, whoever uses it
        except NoSpace:
            raise
        except HyperError:
            if not done and self._sandboxes.is_up(pod_id):
                raise  # else it has come to its end, or is being suspended, and is looked at anew
        return done


async def _copy_all(copies: Copies) -> None:
    for source, target in copies.items():
        target.unlink(missing_ok=True)
        with contextlib.suppress(FileNotFoundError), no_space_as_error(target.parent):
            await tasks.in_thread(partial(copy_sparse, source, target))


def _seconds(copies: Copies) -> float:
    """That copying may take: of a slow disk."""
    found = [path.stat().st_blocks * 512 for path in copies if path.exists()]
    return sum(found) / (5 << 20)
