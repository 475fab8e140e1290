# SPDX-License-Identifier: Apache-2.0
"""RuntimeService: sandboxes. One is a pod that runs, with containers in it or none."""

from __future__ import annotations

import contextlib
from typing import Any

from ..errors import NotFound, Unsupported
from ..sys import clock, tasks
from . import api, records, views
from .call import Call
from .sandbox_request import plan_of


async def run(c: Call) -> Any:
    """Its machine has booted when this is answered; else nothing of it is left."""
    pod = await c.engine.pods.create(plan_of(c.request.config, c.request.runtime_handler, c.settings))
    try:
        await c.engine.pods.start(pod.id)
    except BaseException:
        await tasks.to_the_end(c.engine.pods.remove(pod.id, force=True))
        raise
    return api.RunPodSandboxResponse(pod_sandbox_id=pod.id)


async def stop(c: Call) -> Any:
    """With its containers, at once: who wants to be kind to these stops them first. What is gone has stopped."""
    with contextlib.suppress(NotFound):
        pod, _ = records.sandbox(c.engine, c.request.pod_sandbox_id)
        await c.engine.pods.stop(pod.id, 0)
    return api.StopPodSandboxResponse()


async def remove(c: Call) -> Any:
    """With its containers, whatever they do. What is gone has been removed."""
    with contextlib.suppress(NotFound):
        pod, _ = records.sandbox(c.engine, c.request.pod_sandbox_id)
        await c.engine.pods.remove(pod.id, force=True)
    return api.RemovePodSandboxResponse()


async def status(c: Call) -> Any:
    """:raise NotFound: there is none."""
    pod, record = records.sandbox(c.engine, c.request.pod_sandbox_id)
    statuses = views.container_statuses(c.engine.registry.members(pod.id))
    answer = api.PodSandboxStatusResponse(
        status=views.sandbox_status(pod, record), containers_statuses=statuses, timestamp=clock.now_ns()
    )
    if c.request.verbose:
        answer.info["pod"] = views.as_json(pod)
    return answer


async def list_(c: Call) -> Any:
    """Newest first."""
    wanted = c.request.filter
    items = [
        views.sandbox(pod, record)
        for pod, record in records.sandboxes(c.engine, wanted)
        if not wanted.HasField("state") or wanted.state.state == views.sandbox_state(pod)
    ]
    return api.ListPodSandboxResponse(items=items)


async def update_resources(c: Call) -> Any:
    """:raise Unsupported: always: a kubelet takes that for what it may be told."""
    records.sandbox(c.engine, c.request.pod_sandbox_id)
    raise Unsupported("the virtual machine of a pod keeps its size")


METHODS = {
    "RunPodSandbox": run,
    "StopPodSandbox": stop,
    "RemovePodSandbox": remove,
    "PodSandboxStatus": status,
    "ListPodSandbox": list_,
    "UpdatePodSandboxResources": update_resources,
}
