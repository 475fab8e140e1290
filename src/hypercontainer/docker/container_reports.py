# SPDX-License-Identifier: Apache-2.0
"""What is asked of a container that is there: its processes, its changes, all of its files; and other limits for it."""

from __future__ import annotations

from typing import Any

import msgspec
from aiohttp import web

from ..errors import Conflict, InvalidArgument, InvalidState
from ..model.specs import ContainerUpdate
from ..serving.streaming import send_tar
from . import container_fields as fields
from .container_bodies import Limits
from .container_processes import columns
from .container_request import converted, resources, restart_of, without_nulls
from .router import Call, Routes, json_response

routes = Routes()
_ID = "/containers/{name}"
_KINDS = {"C": 0, "A": 1, "D": 2}  # of a change, by Docker's numbers


@routes.get(f"{_ID}/top")
async def top(c: Call) -> dict[str, Any]:
    """Its processes, by the numbers that they have in the virtual machine."""
    container = c.container
    chosen = columns(c.text("ps_args"))
    try:
        found = await c.engine.monitor.top(container.id)
    except InvalidState as error:
        raise Conflict(f"container {container.id} is not running") from error
    rows = [[tell(p) for _, tell in chosen] for p in found]
    return {"Titles": [title for title, _ in chosen], "Processes": rows}


@routes.get(f"{_ID}/changes")
async def changes(c: Call) -> web.Response:
    """What its root has that its image has not, and the reverse; `null` where that is nothing."""
    found = await c.engine.archives.changes(c.container.id)
    return json_response([{"Path": x.path, "Kind": _KINDS[x.kind]} for x in found] or None)


@routes.get(f"{_ID}/export", scope="operate")
async def export(c: Call) -> web.StreamResponse:
    """All of its root as a tar archive."""
    return await send_tar(c.request, c.engine.archives.export(c.container.id), "application/octet-stream")


@routes.post(f"{_ID}/update")
async def update(c: Call) -> dict[str, Any]:
    """Other limits, and another restart policy; 0, nothing and "" leave things as they are."""
    raw = without_nulls(await c.body(dict[str, Any]))
    asked = converted(raw, Limits)
    fields.check("HostConfig", raw, fields.HOST_CONFIG)
    container = c.container
    if not asked.memory and asked.memory_swap > 0:
        asked = msgspec.structs.replace(asked, memory=container.spec.resources.memory)
    wanted = resources(asked)
    policy = restart_of(asked.restart_policy) if asked.restart_policy and asked.restart_policy.name else None
    if policy and policy.name != "no" and container.spec.auto_remove:
        raise InvalidArgument("Restart policy cannot be updated because AutoRemove is enabled for the container")
    change = ContainerUpdate(
        cpus=wanted.cpus or None,
        memory=wanted.memory or None,
        pids=None if asked.pids_limit is None else wanted.pids,
        restart=policy,
    )
    await c.engine.updates.update(container.id, change)
    return {"Warnings": None}
