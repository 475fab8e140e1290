# SPDX-License-Identifier: Apache-2.0
"""Finding running VMs again after the daemon was restarted, or had crashed.

A VM is found by its process and its directory; its guest says which processes
it knows, and the log says how many bytes of output are safe. Output and exit
status from the time between are delivered late, not lost.
"""

from __future__ import annotations

from ..model.status import Container, ContainerStatus, Pod
from .containers import Containers
from .provision import Provisioner
from .registry import Registry

_ALIVE = (ContainerStatus.RUNNING, ContainerStatus.PAUSED)


async def recover(registry: Registry, containers: Containers, provisioner: Provisioner) -> None:
    """Take up what runs; settle the records of what has ended."""
    for pod in registry.pods():
        for container in registry.members(pod.id):
            if container.state.status in _ALIVE:
                await _recover(pod, container, containers, provisioner)
            elif container.spec.auto_remove and container.state.status is ContainerStatus.EXITED:
                await containers.remove(container.id)


async def _recover(pod: Pod, container: Container, containers: Containers, provisioner: Provisioner) -> None:
    life = containers.life(container)
    runtime = await provisioner.reattach(pod)
    number = pod.vm.processes.get(container.id, 0) if pod.vm else 0
    if runtime is not None:
        handle = runtime.session.adopt(number, life.hub, life.hub.begin(resume=True))
        if handle is not None:
            containers.take_up(container, life, runtime, handle)
            return
        life.hub.finish()
        await runtime.stop(clean=False)
    containers.settle_lost(container, "its virtual machine ended while hyperd was not running")
