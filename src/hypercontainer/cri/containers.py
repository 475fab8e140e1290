# SPDX-License-Identifier: Apache-2.0
"""RuntimeService: containers in sandboxes. Each is started once: for a second run a kubelet makes another one."""

from __future__ import annotations

import contextlib
from typing import Any

from ..errors import InvalidState, NotFound, Unsupported
from ..model.specs import ContainerUpdate
from ..model.status import ContainerStatus
from . import api, records, views
from .call import Call
from .container_request import resources_of, spec_of

_STOP_MAX = 1 << 31  # seconds


async def create(c: Call) -> Any:
    """In a sandbox that is ready; the image must be there."""
    pod, of = records.sandbox(c.engine, c.request.pod_sandbox_id)
    _check_ready(c, pod.id)
    container = await c.engine.containers.create(spec_of(pod, of, c.request.config))
    return api.CreateContainerResponse(container_id=container.id)


def _check_ready(c: Call, pod_id: str) -> None:
    """:raise InvalidState: its machine does not run, and nobody but RunPodSandbox boots one."""
    if not views.is_ready(pod := c.engine.registry.pod(pod_id)):
        raise InvalidState(f"the sandbox is not ready: it is {pod.status}", hint="make another one")


async def start(c: Call) -> Any:
    """:raise InvalidState: it was started before. :raise StartFailed: its program cannot be executed."""
    container, _ = records.container(c.engine, c.request.container_id)
    _check_ready(c, container.pod)
    if container.state.status is not ContainerStatus.CREATED:
        raise InvalidState(f"container {container.name} is {container.state.status}, and was started before")
    await c.engine.containers.start(container.id)
    return api.StartContainerResponse()


async def stop(c: Call) -> Any:
    """Its stop signal, and SIGKILL after the timeout. What is gone, or does not run, has stopped."""
    with contextlib.suppress(NotFound):
        container, _ = records.container(c.engine, c.request.container_id)
        await c.engine.containers.stop(container.id, min(max(c.request.timeout, 0), _STOP_MAX))
    return api.StopContainerResponse()


async def remove(c: Call) -> Any:
    """Whatever it does. What is gone has been removed."""
    with contextlib.suppress(NotFound):
        container, _ = records.container(c.engine, c.request.container_id)
        await c.engine.containers.remove(container.id, force=True, volumes=True)
    return api.RemoveContainerResponse()


async def list_(c: Call) -> Any:
    """Newest first."""
    wanted = c.request.filter
    found = [
        views.container(each, record)
        for each, record in records.containers(c.engine, wanted)
        if not wanted.HasField("state") or wanted.state.state == views.container_state(each)
    ]
    return api.ListContainersResponse(containers=found)


async def status(c: Call) -> Any:
    """:raise NotFound: there is none."""
    container, record = records.container(c.engine, c.request.container_id)
    answer = api.ContainerStatusResponse(status=views.container_status(container, record))
    if c.request.verbose:
        answer.info["container"] = views.as_json(container)
    return answer


async def update_resources(c: Call) -> Any:
    """At once; what is 0 stays, and -1 is no limit."""
    container, _ = records.container(c.engine, c.request.container_id)
    wanted = c.request.linux
    limits = resources_of(c.engine.registry.pod(container.pod), wanted)
    change = ContainerUpdate(
        cpus=min(limits.cpus, c.engine.registry.pod(container.pod).vcpus) if wanted.cpu_quota else None,
        memory=limits.memory if wanted.memory_limit_in_bytes else None,
    )
    if change != ContainerUpdate():
        await c.engine.updates.update(container.id, change)
    return api.UpdateContainerResourcesResponse()


async def reopen_log(c: Call) -> Any:
    """:raise InvalidState: it does not run."""
    container, _ = records.container(c.engine, c.request.container_id)
    c.engine.containers.reopen_log(container.id)
    return api.ReopenContainerLogResponse()


async def checkpoint(c: Call) -> Any:
    """:raise Unsupported: always."""
    raise Unsupported("a container cannot be checkpointed: its memory is part of its virtual machine's")


METHODS = {
    "CreateContainer": create,
    "StartContainer": start,
    "StopContainer": stop,
    "RemoveContainer": remove,
    "ListContainers": list_,
    "ContainerStatus": status,
    "UpdateContainerResources": update_resources,
    "ReopenContainerLog": reopen_log,
    "CheckpointContainer": checkpoint,
}
