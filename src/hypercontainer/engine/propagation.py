# SPDX-License-Identifier: Apache-2.0
"""Mounts of this host that come to containers while they run: of directories that are mounted with `rslave`."""

from __future__ import annotations

import asyncio
import contextlib
import logging
from collections.abc import Callable, Iterable

from ..errors import HyperError
from ..guest.agent import Agent
from ..model.status import Pod
from ..protocol.constants import Builtin
from ..sys import deadlines, tasks
from ..sys.mount_table import MountWatch
from .builtins import run_builtin
from .registry import Registry
from .runtime import Runtime
from .shares import SHARE, Shares

log = logging.getLogger(__name__)
_AGAIN = 60.0  # seconds until all is looked at without a change: for machines that were not there at the last one
_REMEMBERED = 1.5  # seconds, somewhat more than a guest takes for true what the server once said of a name

Running = Callable[[], Iterable[tuple[Pod, Runtime]]]


class Propagation:
    """Looks when the host's mounts have changed."""

    def __init__(self, registry: Registry, running: Running, shares: Shares) -> None:
        """`running` are the pods that have a machine."""
        self._registry = registry
        self._running = running
        self._shares = shares
        self._forgetting: set[asyncio.Task[None]] = set()

    async def run(self) -> None:
        """Until it is cancelled."""
        try:
            with MountWatch() as watch:
                while True:
                    watch.changed.clear()
                    await self.look()
                    with contextlib.suppress(TimeoutError):
                        await tasks.within(watch.changed.wait(), _AGAIN)
        finally:
            await tasks.end(self._forgetting)

    async def look(self) -> None:
        """Make what running containers have equal to the host; what fails of one is tried again with the next change,
        and the others have theirs.
        """
        running = list(self._running())
        self._shares.forget_servers({r.server.pid for _, r in running if r.server})
        for pod, runtime in running:
            try:
                await self._follow(pod, runtime)
            except Exception:
                log.exception("the host's mounts could not be brought to pod %s", pod.name)
            await asyncio.sleep(0)  # others of the daemon have their turn: long tables of mounts are read

    async def _follow(self, pod: Pod, runtime: Runtime) -> None:
        built = [c for c in self._registry.members(pod.id) if c.id in runtime.built]
        if gone := await self._shares.follow(runtime, pod, built):
            task = asyncio.create_task(_forget(runtime.agent, pod, gone))
            self._forgetting.add(task)
            task.add_done_callback(self._forgetting.discard)


async def _forget(agent: Agent, pod: Pod, places: list[str]) -> None:
    """Let the guest's kernel, and so the server, let go of files where nothing is mounted any more."""
    await asyncio.sleep(_REMEMBERED)
    for place in places:
        with contextlib.suppress(HyperError, TimeoutError):
            await tasks.within(
                run_builtin(agent, Builtin.UNMOUNT, f"{SHARE}/{place}", what=f"a mount of {pod.name}"),
                deadlines.ANSWER,
            )
