# SPDX-License-Identifier: Apache-2.0
"""Pods, their ports and services over REST."""

from __future__ import annotations

from typing import Any

import msgspec

from ..errors import InvalidArgument
from ..model.pods import Service
from ..model.specs import PortMapping
from ..model.status import ContainerStats, Pod, PodDetails, PodInfo, ProcessInfo
from ..podfile import strict
from ..podfile.document import Podfile
from .containers import Started
from .router import Context, Route


async def create(c: Context) -> PodDetails:
    raw = await c.body(dict[str, Any])
    return await c.engine.create_pod(strict.decode(raw))


async def list_(c: Context) -> list[PodInfo]:
    return c.engine.pods.all()


async def inspect(c: Context) -> PodDetails:
    return c.engine.pods.details(c.id)


async def start(c: Context) -> Started:
    return Started(changed=await c.engine.pods.start(c.id))


async def stop(c: Context) -> Started:
    return Started(changed=await c.engine.pods.stop(c.id, c.number("timeout")))


async def restart(c: Context) -> None:
    await c.engine.pods.stop(c.id, c.number("timeout"))
    await c.engine.pods.start(c.id)


async def kill(c: Context) -> None:
    await c.engine.pods.kill(c.id, c.text("signal", "KILL"))


async def pause(c: Context) -> None:
    await c.engine.pods.pause(c.id)


async def unpause(c: Context) -> None:
    await c.engine.pods.unpause(c.id)


async def remove(c: Context) -> Pod:
    return await c.engine.pods.remove(c.id, force=c.flag("force"))


async def labels(c: Context) -> dict[str, str]:
    return c.engine.pods.set_labels(c.id, await c.body(dict[str, str]), override=c.flag("override"))


async def top(c: Context) -> list[ProcessInfo]:
    return await c.engine.monitor.pod_top(c.id)


async def stats(c: Context) -> list[ContainerStats]:
    return await c.engine.monitor.pod_stats(c.id)


async def ports(c: Context) -> list[PortMapping]:
    return c.engine.registry.pod(c.id).ports or c.engine.registry.pod(c.id).spec.ports


async def ports_add(c: Context) -> list[PortMapping]:
    return await c.engine.pods.add_ports(c.id, await c.body(list[PortMapping]))


async def ports_delete(c: Context) -> list[PortMapping]:
    return await c.engine.pods.remove_ports(c.id, await c.body(list[PortMapping]))


async def services(c: Context) -> list[Service]:
    return c.engine.services.of(c.id)


async def services_add(c: Context) -> list[Service]:
    return await c.engine.services.add(c.id, await c.body(list[Service]))


async def services_replace(c: Context) -> list[Service]:
    return await c.engine.services.replace(c.id, await c.body(list[Service]))


async def services_remove(c: Context) -> list[Service]:
    port = c.number("port")
    if not c.text("address") or port is None:
        raise InvalidArgument("query parameters address and port are missing", hint="name the service")
    return await c.engine.services.remove(c.id, c.text("address"), port, c.text("protocol", "tcp"))


async def schema(c: Context) -> dict[str, Any]:
    result: dict[str, Any] = msgspec.to_builtins(strict.schema())
    return result


_ID = "/pods/{id}"
ROUTES = [
    Route(
        "POST",
        "/pods",
        create,
        "Create a pod from a podfile; its images must be in the store",
        body=Podfile,
        result=PodDetails,
        status=201,
    ),
    Route("GET", "/pods", list_, "List pods, newest first", result=list[PodInfo]),
    Route("GET", _ID, inspect, "Inspect a pod", result=PodDetails),
    Route("DELETE", _ID, remove, "Remove a pod with its containers", {"force": "stop it first if it runs"}, result=Pod),
    Route("POST", f"{_ID}/start", start, "Start a pod; answers when all containers have been started", result=Started),
    Route("POST", f"{_ID}/stop", stop, "Stop a pod", {"timeout": "seconds until SIGKILL"}, result=Started),
    Route("POST", f"{_ID}/restart", restart, "Stop and start", {"timeout": "seconds until SIGKILL"}),
    Route("POST", f"{_ID}/kill", kill, "Signal all running containers", {"signal": "name or number, KILL if none"}),
    Route("POST", f"{_ID}/pause", pause, "Stop the whole machine"),
    Route("POST", f"{_ID}/unpause", unpause, "Let the machine go on"),
    Route(
        "POST",
        f"{_ID}/labels",
        labels,
        "Add labels",
        {"override": "change those that exist"},
        body=dict[str, str],
        result=dict[str, str],
    ),
    Route("GET", f"{_ID}/top", top, "Processes of all containers", result=list[ProcessInfo]),
    Route("GET", f"{_ID}/stats", stats, "Use of resources by each container, now", result=list[ContainerStats]),
    Route("GET", f"{_ID}/ports", ports, "Published ports", result=list[PortMapping]),
    Route("POST", f"{_ID}/ports", ports_add, "Publish further ports", body=list[PortMapping], result=list[PortMapping]),
    Route(
        "DELETE",
        f"{_ID}/ports",
        ports_delete,
        "Publish ports no more",
        body=list[PortMapping],
        result=list[PortMapping],
    ),
    Route("GET", f"{_ID}/services", services, "Services", result=list[Service]),
    Route("POST", f"{_ID}/services", services_add, "Add services", body=list[Service], result=list[Service]),
    Route("PUT", f"{_ID}/services", services_replace, "Replace all services", body=list[Service], result=list[Service]),
    Route(
        "DELETE",
        f"{_ID}/services",
        services_remove,
        "Remove a service",
        {"address": "its IP", "port": "its port", "protocol": "tcp or udp"},
        result=list[Service],
    ),
    Route("GET", "/podfile/schema", schema, "The podfile as JSON Schema", result=dict[str, Any]),
]
