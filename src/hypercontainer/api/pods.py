# SPDX-License-Identifier: Apache-2.0
"""Pods, their ports and services over REST."""

from __future__ import annotations

from typing import Any

import msgspec

from ..errors import InvalidArgument
from ..model.egress import EgressChange
from ..model.lifetimes import Lifetime, LifetimeInfo
from ..model.pods import PodPlan, Service
from ..model.specs import PortMapping
from ..model.statistics import ContainerStats
from ..model.status import Pod, PodDetails, PodInfo, ProcessInfo
from ..model.updates import PodUpdate
from ..podfile import strict
from ..podfile.document import Podfile
from .containers import Started
from .router import Context, Routes

routes = Routes()
_ID = "/pods/{id}"


@routes.post("/pods", body=Podfile, status=201)
async def create(c: Context) -> PodDetails:
    """Create a pod from a podfile; its images must be in the store."""
    raw = await c.body(dict[str, Any])
    return await c.engine.create_pod(strict.decode(raw))


@routes.post("/pods/plan", body=PodPlan, status=201)
async def create_planned(c: Context) -> Pod:
    """Create a pod from what a podfile becomes: for programs, which add its containers one by one."""
    return await c.engine.pods.create(await c.body(PodPlan))


@routes.get("/pods")
async def list_(c: Context) -> list[PodInfo]:
    """List pods, newest first."""
    return c.engine.pods.all()


@routes.get(_ID)
async def inspect(c: Context) -> PodDetails:
    """Inspect a pod."""
    return c.engine.pods.details(c.id)


@routes.post(f"{_ID}/start")
async def start(c: Context) -> Started:
    """Start a pod; answers when all containers have been started."""
    return Started(changed=await c.engine.pods.start(c.id))


@routes.post(f"{_ID}/stop", query={"timeout": "seconds until SIGKILL"})
async def stop(c: Context) -> Started:
    """Stop a pod."""
    return Started(changed=await c.engine.pods.stop(c.id, c.number("timeout")))


@routes.post(f"{_ID}/restart", query={"timeout": "seconds until SIGKILL"})
async def restart(c: Context) -> None:
    """Stop and start."""
    await c.engine.pods.stop(c.id, c.number("timeout"))
    await c.engine.pods.start(c.id)


@routes.post(f"{_ID}/kill", query={"signal": "name or number, KILL if none"})
async def kill(c: Context) -> None:
    """Signal all running containers."""
    await c.engine.pods.kill(c.id, c.text("signal", "KILL"))


@routes.post(f"{_ID}/pause")
async def pause(c: Context) -> None:
    """Stop the whole machine."""
    await c.engine.pods.pause(c.id)


@routes.post(f"{_ID}/unpause")
async def unpause(c: Context) -> None:
    """Let the machine go on."""
    await c.engine.pods.unpause(c.id)


@routes.post(f"{_ID}/suspend")
async def suspend(c: Context) -> PodDetails:
    """Put a pod that runs on the disk, and free its memory."""
    return c.engine.pods.details((await c.engine.suspensions.suspend(c.id)).id)


@routes.post(f"{_ID}/resume")
async def resume(c: Context) -> PodDetails:
    """Let a suspended pod go on."""
    return c.engine.pods.details((await c.engine.suspensions.resume(c.id)).id)


@routes.post(f"{_ID}/lifetime", body=Lifetime)
async def lifetime(c: Context) -> LifetimeInfo:
    """Change how long a pod lives, counted from now, and when it is suspended by itself."""
    return c.engine.lifetimes.change(c.id, await c.body(Lifetime))


@routes.delete(_ID, query={"force": "stop it first if it runs"})
async def remove(c: Context) -> Pod:
    """Remove a pod with its containers."""
    return await c.engine.pods.remove(c.id, force=c.flag("force"))


@routes.post(f"{_ID}/labels", query={"override": "change those that exist"}, body=dict[str, str])
async def labels(c: Context) -> dict[str, str]:
    """Add labels."""
    return c.engine.pods.set_labels(c.id, await c.body(dict[str, str]), override=c.flag("override"))


@routes.post(f"{_ID}/egress", body=EgressChange)
async def egress(c: Context) -> Pod:
    """Change which hosts it may reach by name, at once where it runs; also of a container, by its id or name."""
    return await c.engine.updates.egress.update(c.id, await c.body(EgressChange))


@routes.post(f"{_ID}/update", body=PodUpdate)
async def update(c: Context) -> Pod:
    """Change limits, egress and lifetime together: all of it, or nothing; also of a container, by its id or name."""
    return await c.engine.pod_updates.update(c.id, await c.body(PodUpdate))


@routes.get(f"{_ID}/top")
async def top(c: Context) -> list[ProcessInfo]:
    """Processes of all containers."""
    return await c.engine.monitor.pod_top(c.id)


@routes.get(f"{_ID}/stats")
async def stats(c: Context) -> list[ContainerStats]:
    """Use of resources by each container, now."""
    return await c.engine.monitor.pod_stats(c.id)


@routes.get(f"{_ID}/ports")
async def ports(c: Context) -> list[PortMapping]:
    """Published ports."""
    return c.engine.registry.pod(c.id).ports or c.engine.registry.pod(c.id).spec.ports


@routes.post(f"{_ID}/ports", body=list[PortMapping])
async def ports_add(c: Context) -> list[PortMapping]:
    """Publish further ports."""
    return await c.engine.pods.add_ports(c.id, await c.body(list[PortMapping]))


@routes.delete(f"{_ID}/ports", body=list[PortMapping])
async def ports_delete(c: Context) -> list[PortMapping]:
    """Publish ports no more."""
    return await c.engine.pods.remove_ports(c.id, await c.body(list[PortMapping]))


@routes.get(f"{_ID}/services")
async def services(c: Context) -> list[Service]:
    """Services."""
    return c.engine.services.of(c.id)


@routes.post(f"{_ID}/services", body=list[Service])
async def services_add(c: Context) -> list[Service]:
    """Add services."""
    return await c.engine.services.add(c.id, await c.body(list[Service]))


@routes.put(f"{_ID}/services", body=list[Service])
async def services_replace(c: Context) -> list[Service]:
    """Replace all services."""
    return await c.engine.services.replace(c.id, await c.body(list[Service]))


@routes.delete(f"{_ID}/services", query={"address": "its IP", "port": "its port", "protocol": "tcp or udp"})
async def services_remove(c: Context) -> list[Service]:
    """Remove a service."""
    port = c.number("port")
    if not c.text("address") or port is None:
        raise InvalidArgument("query parameters address and port are missing", hint="name the service")
    return await c.engine.services.remove(c.id, c.text("address"), port, c.text("protocol", "tcp"))


@routes.get("/podfile/schema")
async def schema(c: Context) -> dict[str, Any]:
    """The podfile as JSON Schema."""
    result: dict[str, Any] = msgspec.to_builtins(strict.schema())
    return result
