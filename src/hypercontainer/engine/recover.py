# SPDX-License-Identifier: Apache-2.0
"""Finding running VMs again after the daemon was restarted, or had crashed.

A VM is found by its process and its directory; its guest says which processes
it knows, and the log says how many bytes of output are safe. Output and exit
status from the time between are delivered late, not lost.
"""

from __future__ import annotations

import asyncio
import logging
from collections.abc import Awaitable
from dataclasses import dataclass

from ..errors import HyperError
from ..model import ids
from ..model.status import Container, ContainerStatus, Pod, PodStatus
from ..sys import deadlines
from .containers import ALIVE, Containers
from .machines import Machines
from .networks import Networks
from .pods import Pods
from .provision import Provisioner
from .registry import Registry
from .runtime import Runtime

log = logging.getLogger(__name__)
_LOST = "its virtual machine ended while hyperd was not running"


async def recover(
    registry: Registry,
    containers: Containers,
    machines: Machines,
    pods: Pods,
    networks: Networks,
    provisioner: Provisioner,
) -> None:
    """Take up what runs; settle the records of what has ended; end what was half made; go on with what was to be started.

    What goes wrong with one pod is that pod's trouble.
    """
    unread = {aside.pod for aside in registry.set_aside}
    found = [p for p in registry.pods() if p.id not in unread]
    parts = Recovery(registry, containers, machines, pods, networks, provisioner)
    work = {p.id: asyncio.create_task(guarded(f"pod {p.name} is not recovered", parts.pod(p))) for p in found}
    if work:
        await asyncio.wait(work.values(), timeout=deadlines.RECOVER)
    for pod in found:
        if not work[pod.id].done():
            log.warning("pod %s: its virtual machine does not answer yet", pod.name)
            machines.expect(pod.id, work[pod.id])
    for id_ in registry.unfinished:
        await guarded(f"what was half made as {id_} is not ended", pods.undo(id_))
    for pod in registry.pods():
        if (
            pod.implicit and pod.id not in unread and not registry.members(pod.id)
        ):  # of a daemon that wrote its record first
            await guarded(f"pod {pod.name} is not removed", pods.undo(pod.id))


async def guarded(what: str, work: Awaitable[None]) -> None:
    try:
        await work
    except Exception as error:
        log.error("%s: %s", what, error, exc_info=not isinstance(error, HyperError))


@dataclass
class Recovery:
    """Of one pod after the other."""

    registry: Registry
    containers: Containers
    machines: Machines
    pods: Pods
    networks: Networks
    provisioner: Provisioner

    async def pod(self, pod: Pod) -> None:
        """Take it up, or settle its record. One that cannot be taken up has ended."""
        try:
            runtime = await self.provisioner.reattach(pod)
        except Exception as error:
            log.error(
                "pod %s: its virtual machine cannot be taken up and is ended: %s",
                pod.name,
                error,
                exc_info=not isinstance(error, HyperError),
            )
            runtime = None
            await guarded(f"the virtual machine of pod {pod.name} does not end", self.provisioner.abandon(pod))
        if runtime is not None:
            self.machines.adopt(pod, runtime)
        elif pod.vm or pod.status in (PodStatus.RUNNING, PodStatus.STARTING, PodStatus.STOPPING, PodStatus.PAUSED):
            self.machines.update(pod.id, vm=None, status=PodStatus.EXITED, finished_at=ids.now())
            await guarded(f"the network of pod {pod.name} is not taken down", self.networks.take_down(pod.id))
        members = self.registry.members(pod.id)
        for container in members:
            await self._member(pod, container, runtime)
        await self._go_on(pod, runtime, members)

    async def _member(self, pod: Pod, container: Container, runtime: Runtime | None) -> None:
        try:
            await _recover(pod, container, runtime, self.containers)
        except Exception as error:
            log.error(
                "container %s cannot be taken up: %s", container.name, error, exc_info=not isinstance(error, HyperError)
            )
            if runtime is not None:
                runtime.users.discard(container.id)
            self.containers.settle_lost(container, f"hyperd could not take it up again: {error}")

    async def _go_on(self, pod: Pod, runtime: Runtime | None, members: list[Container]) -> None:
        if runtime is not None and pod.status is PodStatus.STARTING:
            self.pods.go_on(pod.id)
        elif runtime is not None:
            self.machines.save(pod.id, runtime)
            await self.machines.release(pod.id, runtime, "recovery")
        elif back := [
            c for c in members if _starts_by_itself(c) and not self.containers.life(c).stop_requested.is_set()
        ]:
            self.pods.bring_back(pod.id, back)


def _starts_by_itself(container: Container) -> bool:
    """As Docker's daemon does when it comes up."""
    policy = container.spec.restart.name
    was_up = container.state.status in ALIVE or container.state.starting
    return was_up and (policy == "always" or (policy == "unless-stopped" and not container.state.stopped_by_user))


async def _recover(pod: Pod, container: Container, runtime: Runtime | None, containers: Containers) -> None:
    if container.state.status not in ALIVE:
        if container.spec.auto_remove and (
            container.state.starting or container.state.status is ContainerStatus.EXITED
        ):
            await containers.remove(container.id)
        elif container.state.starting and pod.status is not PodStatus.STARTING:
            containers.settle_lost(container, "hyperd ended while it was started")
        return
    life = containers.life(container)
    number = pod.vm.processes.get(container.id, 0) if pod.vm else 0
    if runtime is None:
        containers.settle_lost(container, _LOST)
    elif container.state.status is ContainerStatus.RESTARTING:
        containers.runs.take_up_waiting(container)
    elif handle := runtime.session.adopt(number, life.hub, life.hub.begin(resume=True)):
        containers.runs.take_up(container, life, runtime, handle)
    else:
        life.hub.finish()
        containers.settle_lost(container, _LOST)
