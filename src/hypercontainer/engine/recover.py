# SPDX-License-Identifier: Apache-2.0
"""Finding running VMs again after the daemon was restarted, or had crashed.

A VM is found by its process and its directory; its guest says which processes
it knows, and the log says how many bytes of output are safe. Output and exit
status from the time between are delivered late, not lost.
"""

from __future__ import annotations

import asyncio
import contextlib
import logging
from collections.abc import Awaitable, Callable
from dataclasses import dataclass

from ..errors import HyperError
from ..guest.agent import Freeze, require
from ..hypervisor.facets import PortForwarding
from ..model.states import ALIVE
from ..model.status import Container, ContainerStatus, Pod, PodStatus
from ..sys import clock, deadlines
from .containers import Containers
from .pod import UP
from .pod_network import PodNetwork
from .pods import Pods
from .reattach import Reattacher
from .registry import Registry
from .runtime import Runtime
from .sandboxes import Sandboxes

log = logging.getLogger(__name__)
_USER = "recovery"  # of a machine, until all of its containers have been looked at
_LOST = "its virtual machine ended while hyperd was not running"


async def recover(
    registry: Registry, containers: Containers, sandboxes: Sandboxes, pods: Pods, network: PodNetwork,
    reattacher: Reattacher, is_saved: Callable[[str], bool],
) -> set[asyncio.Task[None]]:  # fmt: skip
    """Reattach what runs, record what has ended, remove what was half made, start what was to be started.

    What goes wrong with one pod is that pod's trouble. `is_saved` says whether a suspended pod can go on.

    :return: the tasks that go on waiting, for machines that do not answer.
    """
    unread = {aside.pod for aside in registry.set_aside}
    found = [p for p in registry.pods() if p.id not in unread]
    parts = Recovery(registry, containers, sandboxes, pods, network, reattacher)
    for pod in [p for p in found if p.status is PodStatus.SUSPENDED and is_saved(p.id)]:
        found.remove(pod)
        await guarded(f"pod {pod.name} is not recovered", parts.suspended(pod))
    for pod in found:
        sandboxes.expect(pod.id)
    work = {p.id: asyncio.create_task(guarded(f"pod {p.name} is not recovered", parts.pod(p))) for p in found}
    late: set[asyncio.Task[None]] = set()
    if work:
        _, late = await asyncio.wait(work.values(), timeout=deadlines.RECOVER)
    for pod in found:
        if work[pod.id] in late:
            log.warning("pod %s: its virtual machine does not answer yet", pod.name)
    for id_ in registry.unfinished:
        await guarded(f"what was half made as {id_} is not ended", pods.undo(id_))
    for pod in registry.pods():  # of a daemon that wrote the pod's record first
        if pod.implicit and pod.id not in unread and not registry.members(pod.id):
            await guarded(f"pod {pod.name} is not removed", pods.undo(pod.id))
    return late


async def guarded(what: str, work: Awaitable[None]) -> None:
    """Do the work; when it fails, log `what` and the reason, and go on."""
    try:
        await work
    except Exception as error:
        log.error("%s: %s", what, error, exc_info=not isinstance(error, HyperError))


@dataclass
class Recovery:
    """Of one pod after the other."""

    registry: Registry
    containers: Containers
    sandboxes: Sandboxes
    pods: Pods
    network: PodNetwork
    reattacher: Reattacher

    async def pod(self, pod: Pod) -> None:
        """Reattach it, or settle its record. One that cannot be reattached has ended."""
        runtime = await self._reattached(pod)
        if runtime is not None:
            runtime.users.add(_USER)  # until all members have been looked at
            await self._align_ports(pod, runtime)
            if pod.vm and pod.vm.saving:
                await guarded(f"not all of pod {pod.name} goes on", self._end_saving(pod, runtime))
            if pod.status is not PodStatus.PAUSED:  # its guest would not answer
                told = self.network.join_again(self.registry.pod(pod.id), runtime)
                await guarded(f"pod {pod.name} may not be in all of its networks", told)
        else:
            if pod.vm or pod.status in UP:
                self.sandboxes.update(pod.id, vm=None, status=PodStatus.EXITED, finished_at=clock.stamp())
            # Of a start that had only begun, the record says nothing.
            await guarded(f"the network of pod {pod.name} is not taken down", self.network.release(pod.id))
        await self.sandboxes.reattached(pod.id, runtime)
        members = self.registry.members(pod.id)
        wanted = [c for c in members if _starts_by_itself(c)]
        for container in members:
            await self._member(pod, container, runtime)
        await self._go_on(pod, runtime, wanted)

    async def suspended(self, pod: Pod) -> None:
        """It is let be."""
        self.sandboxes.expect_suspended(pod.id)
        await self.network.release(pod.id)

    async def _end_saving(self, pod: Pod, runtime: Runtime) -> None:
        """An earlier daemon died while it saved the pod, whose programs it had frozen."""
        for container in self.registry.members(pod.id):
            if container.state.status is ContainerStatus.RUNNING and container.id in runtime.built:
                await require(runtime.agent, Freeze).freeze_container(container.id[:12], False)

    async def _align_ports(self, pod: Pod, runtime: Runtime) -> None:
        """A machine that publishes ports itself may be ahead of the record, or behind it; rules are made anew."""
        machine = runtime.machine
        if pod.vm is None or pod.attachments or not isinstance(machine, PortForwarding):
            return
        for port in pod.vm.ports_in_change:
            with contextlib.suppress(HyperError):  # it is so already
                await (machine.add_port(port) if port in pod.ports else machine.remove_port(port))

    async def _reattached(self, pod: Pod) -> Runtime | None:
        try:
            return await self.reattacher.reattach(pod)
        except Exception as error:
            unexpected = not isinstance(error, HyperError)
            log.error(
                "pod %s: its virtual machine cannot be reattached and is ended: %s",
                pod.name,
                error,
                exc_info=unexpected,
            )
            await guarded(f"the virtual machine of pod {pod.name} does not end", self.reattacher.kill_machine(pod))
            return None

    async def _member(self, pod: Pod, container: Container, runtime: Runtime | None) -> None:
        try:
            await self._container(pod, container, runtime)
        except Exception as error:
            unexpected = not isinstance(error, HyperError)
            log.error("container %s cannot be reattached: %s", container.name, error, exc_info=unexpected)
            if runtime is not None:
                runtime.users.discard(container.id)
            await self.containers.lose(container, f"hyperd could not reattach it: {error}")

    async def _container(self, pod: Pod, container: Container, runtime: Runtime | None) -> None:
        number = pod.vm.processes.get(container.id, 0) if pod.vm else 0
        began = container.state.starting or container.state.status is ContainerStatus.RESTARTING
        if runtime and began and not self.containers.owns(container) and (pid := runtime.agent.pid_of(number)):
            container = self.containers.has_begun(container, pid)
        if container.state.status not in ALIVE:
            ended = container.state.status is ContainerStatus.EXITED
            if container.spec.auto_remove and (container.state.starting or ended):
                await self.containers.remove(container.id)
            elif container.state.starting and (runtime is None or pod.status is not PodStatus.STARTING):
                await self.containers.lose(container, "hyperd ended while it was started")
        elif runtime is None:
            await self.containers.lose(container, _LOST)
        elif container.state.status is ContainerStatus.RESTARTING:
            await self.containers.resume(container)
        else:
            runtime.users.add(container.id)
            if not await self.containers.reattach(container, runtime, number):
                runtime.users.discard(container.id)
                await self.containers.lose(container, _LOST)

    async def _go_on(self, pod: Pod, runtime: Runtime | None, wanted: list[Container]) -> None:
        if runtime is not None:
            if pod.status is PodStatus.STARTING:
                self.pods.resume(pod)
            await self.sandboxes.release(pod.id, _USER)
            return
        for container in wanted:
            self.containers.bring_back(container)


def _starts_by_itself(container: Container) -> bool:
    """As Docker's daemon does when it comes up."""
    policy = container.spec.restart.name
    state = container.state
    was_up = state.status in ALIVE or state.starting or state.ended_with_daemon
    return was_up and (policy == "always" or (policy == "unless-stopped" and not state.stopped_by_user))
