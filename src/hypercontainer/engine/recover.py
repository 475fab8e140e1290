# SPDX-License-Identifier: Apache-2.0
"""Finding running VMs again after the daemon was restarted, or had crashed.

A VM is found by its process and its directory; its guest says which processes
it knows, and the log says how many bytes of output are safe. Output and exit
status from the time between are delivered late, not lost.
"""

from __future__ import annotations

import asyncio

import msgspec

from ..model import ids
from ..model.status import Container, ContainerStatus, Pod, PodStatus
from .containers import ALIVE, Containers
from .machines import Machines
from .networks import Networks
from .pods import Pods
from .provision import Provisioner
from .registry import Registry
from .runtime import Runtime

_LOST = "its virtual machine ended while hyperd was not running"


async def recover(
    registry: Registry, containers: Containers, machines: Machines, pods: Pods, networks: Networks, provisioner: Provisioner
) -> None:
    """Take up what runs; settle the records of what has ended; go on with what was to be started."""
    found = registry.pods()
    runtimes = await asyncio.gather(*(provisioner.reattach(pod) for pod in found))
    for pod, runtime in zip(found, runtimes, strict=True):
        if runtime is not None:
            machines.adopt(pod, runtime)
        elif pod.vm or pod.status in (PodStatus.RUNNING, PodStatus.STARTING, PodStatus.STOPPING):
            await networks.take_down(pod.id)
            pod = registry.pod(pod.id)
            registry.put_pod(msgspec.structs.replace(pod, vm=None, status=PodStatus.EXITED, finished_at=ids.now()))
        members = registry.members(pod.id)
        for container in members:
            await _recover(pod, container, runtime, containers)
        if runtime is not None and pod.status is PodStatus.STARTING:
            pods.go_on(pod.id)
        elif runtime is not None:
            await machines.release(pod.id, runtime, "recovery")
        elif any(_starts_by_itself(c) for c in members):
            pods.bring_back(pod.id, [c for c in members if _starts_by_itself(c)])


def _starts_by_itself(container: Container) -> bool:
    """As Docker's daemon does when it comes up."""
    policy = container.spec.restart.name
    was_up = container.state.status in ALIVE
    return was_up and (policy == "always" or (policy == "unless-stopped" and not container.state.stopped_by_user))


async def _recover(pod: Pod, container: Container, runtime: Runtime | None, containers: Containers) -> None:
    if container.state.status not in ALIVE:
        if container.spec.auto_remove and container.state.status is ContainerStatus.EXITED:
            await containers.remove(container.id)
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
