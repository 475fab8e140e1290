# SPDX-License-Identifier: Apache-2.0
"""RuntimeService: what happens to containers and sandboxes, as it happens."""

from __future__ import annotations

from collections.abc import AsyncGenerator
from typing import Any

from ..errors import NotFound, Unavailable
from ..model.status import Event
from . import api, records, views
from .call import Call

_ACTIONS = {
    "create": "CONTAINER_CREATED_EVENT",
    "start": "CONTAINER_STARTED_EVENT",
    "die": "CONTAINER_STOPPED_EVENT",
    "start_failed": "CONTAINER_STOPPED_EVENT",
    "destroy": "CONTAINER_DELETED_EVENT",
    "stop": "CONTAINER_STOPPED_EVENT",  # of pods alone: of a container it comes beside `die`
}


async def follow(c: Call) -> AsyncGenerator[Any, None]:
    """From now on, until the client goes; a sandbox has events as its containers have.

    :raise Unavailable: the client was thousands of events behind.
    """
    pod_of: dict[str, str] = {m.id: m.pod for m, _ in records.containers(c.engine)}
    pod_of |= {pod.id: pod.id for pod, _ in records.sandboxes(c.engine)}
    async for event in c.engine.events.follow():
        if event.type not in ("container", "pod") or event.action not in _ACTIONS:
            continue
        if event.type == "container" and event.action == "stop":
            continue
        _learn(c, event, pod_of)
        if event.id in pod_of:
            yield _told(c, event, pod_of[event.id])
        if event.action == "destroy":
            pod_of.pop(event.id, None)
    raise Unavailable("events were lost: this client did not read them", hint="list what there is, and follow again")


def _learn(c: Call, event: Event, pod_of: dict[str, str]) -> None:
    """Whether it is of CRI: asked while the record is there."""
    try:
        if event.type == "pod":
            pod_of[event.id] = records.sandbox(c.engine, event.id)[0].id
        else:
            pod_of[event.id] = records.container(c.engine, event.id)[0].pod
    except NotFound:
        pass  # somebody else's, or gone


def _told(c: Call, event: Event, pod_id: str) -> Any:
    """With the state of the whole sandbox, as far as it is there."""
    answer = api.ContainerEventResponse(
        container_id=event.id, container_event_type=getattr(api, _ACTIONS[event.action]), created_at=event.time_nano
    )
    if c.engine.registry.has_pod(pod_id):
        pod, record = records.sandbox(c.engine, pod_id)
        answer.pod_sandbox_status.CopyFrom(views.sandbox_status(pod, record))
        answer.containers_statuses.extend(views.container_statuses(c.engine.registry.members(pod_id)))
    return answer


STREAMS = {"GetContainerEvents": follow}
