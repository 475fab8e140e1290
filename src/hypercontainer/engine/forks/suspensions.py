# SPDX-License-Identifier: Apache-2.0
"""Suspended pods: what their users can ask for."""

from __future__ import annotations

import asyncio
from functools import partial

from ...errors import InvalidState, Unavailable
from ...model.status import Pod, PodStatus
from ...model.usage import SuspendedUsage
from ...sys import tasks
from ..container_verbs import State
from ..containers import Containers
from ..registry import Registry
from ..runtime import Runtime
from ..sandbox_verbs import Resume, Suspend
from ..sandboxes import Sandboxes
from ..supervisor import Message
from .resuming import Resuming
from .suspending import Suspending

_USER = "resume"  # of a machine, until its containers have been looked at


class Suspensions:
    """Pods that are put on the disk, and go on from there."""

    def __init__(
        self, registry: Registry, containers: Containers, sandboxes: Sandboxes, suspending: Suspending,
        resuming: Resuming,
    ) -> None:  # fmt: skip
        self._registry = registry
        self._containers = containers
        self._sandboxes = sandboxes
        self._suspending = suspending
        self._resuming = resuming
        self._waking: dict[str, asyncio.Task[bool]] = {}  # by pod

    async def open(self) -> None:
        """What earlier daemons left half made goes."""
        await self._suspending.sweep(self._registry.pods())

    def usage(self) -> list[SuspendedUsage]:
        """Of those that who asks may see."""
        found = [p for p in self._registry.pods(seen=True) if p.status is PodStatus.SUSPENDED]
        return [SuspendedUsage(pod=p.name, size=self._suspending.size(p.id)) for p in found]

    def check_driver(self, pod: Pod) -> None:
        """:raise Unsupported: its driver suspends no pods."""
        self._suspending.check_driver(pod)

    async def suspend(self, key: str) -> Pod:
        """Put a pod that runs on the disk; its memory is free then. All that is its is kept.

        :raise Unsupported: the pod, or its driver, cannot be. :raise NoSpace: the disk is full; it runs on.
        """
        pod = self._registry.pod(key)
        self._suspending.check(pod, self._sandboxes.awake(pod))
        await self._ask(pod, Suspend(partial(self._suspending.suspend, pod.id)))
        return self._registry.pod(pod.id)

    async def resume(self, key: str) -> Pod:
        """Let a suspended pod go on.

        :raise InvalidState: it is not suspended, or does not fit this host any more.
        """
        pod = self._registry.pod(key)
        if not await self.wake(pod):
            raise InvalidState(f"pod {pod.name} is not suspended", hint="see `hyperctl ps -a`")
        return self._registry.pod(pod.id)

    async def wake(self, pod: Pod) -> bool:
        """Let it go on, if it is suspended, or about to be; whether it was. Raises what `resume` does.

        Who stops waiting for it does not end it: others may wait, too.
        """
        task = self._waking.get(pod.id)
        asleep = self._registry.pod(pod.id).status is PodStatus.SUSPENDED
        if task is None and not (asleep or self._sandboxes.is_suspending(pod.id)):
            return False
        if task is None:
            task = self._waking[pod.id] = asyncio.create_task(self._wake(pod))
            task.add_done_callback(lambda t: self._woken(pod.id, t))
        return await asyncio.shield(task)

    def _woken(self, pod_id: str, task: asyncio.Task[bool]) -> None:
        del self._waking[pod_id]
        if not task.cancelled():
            task.exception()  # who waits for it has it; nobody may

    async def close(self) -> None:
        """What is under way ends."""
        await tasks.end(list(self._waking.values()))

    async def _wake(self, pod: Pod) -> bool:
        runtime = await self._ask(pod, Resume(partial(self._resume, pod.id)))
        if runtime is False:
            return False
        assert isinstance(runtime, Runtime)
        if _USER in runtime.users:
            try:
                await self._reattach(pod, runtime)
            finally:
                await self._sandboxes.release(pod.id, _USER)
        return True

    async def _ask(self, pod: Pod, message: Message) -> object:
        try:
            return await self._sandboxes.sandbox(pod.id).ask(message)
        except asyncio.CancelledError as error:
            if tasks.cancelled():
                raise
            raise Unavailable(f"pod {pod.name} was ended meanwhile") from error

    async def _resume(self, pod_id: str, held: Runtime | None) -> Runtime:
        runtime = await self._resuming.resume(pod_id, held)
        if held is None:
            runtime.users.add(_USER)
        return runtime

    async def _reattach(self, pod: Pod, runtime: Runtime) -> None:
        """Of a pod that an earlier daemon suspended: its containers' programs are found again."""
        for container in self._registry.members(pod.id):
            if self._containers.supervisor(container).state is not State.REATTACHING:
                continue
            runtime.users.add(container.id)
            if not await self._containers.reattach(container, runtime, runtime.processes.get(container.id, 0)):
                runtime.users.discard(container.id)
                await self._containers.lose(container, "its program is not in what was suspended")
