# SPDX-License-Identifier: Apache-2.0
"""The daemon itself over REST."""

from __future__ import annotations

import contextlib

import msgspec
from aiohttp import web

from ..engine.principal import current
from ..model.host import Check, Info, Version
from ..model.usage import DiskUsage
from ..serving.identity import require, require_of_host
from ..sys import clock
from .router import Context, Routes

routes = Routes()


@routes.get("/ping", stream="text/plain")
async def ping(c: Context) -> web.Response:
    """Is the daemon there?"""
    return web.Response(text="OK")


@routes.get("/version")
async def version(c: Context) -> Version:
    """Versions of all parts."""
    return c.engine.version()


@routes.get("/info")
async def info(c: Context) -> Info:
    """The daemon and its host."""
    return await c.engine.info()


@routes.get("/system/df")
async def disk_usage(c: Context) -> DiskUsage:
    """What takes disk space."""
    cache = await c.engine.builds.cache.measure()
    return msgspec.structs.replace(
        await c.engine.usage.measure(), build_cache=cache, snapshots=c.engine.snapshots.all(),
        volume_snapshots=c.engine.volume_snapshots.all(), suspended=c.engine.suspensions.usage(),
    )  # fmt: skip


@routes.get(
    "/doctor",
    query={
        "probe": "try first whether a guest boots with KVM",
        "jail": "instead, what holds for the hypervisor of this pod or container, seen from outside",
    },
)
async def doctor(c: Context) -> list[Check]:
    """What this host has of what is needed."""
    if c.flag("probe"):
        require("admin")
    if pod := c.text("jail"):
        return await c.engine.monitor.jail(pod)
    require_of_host()
    return await c.engine.doctor(probe=c.flag("probe"))


@routes.delete("/set-aside/{id}", scope="admin")
async def forget(c: Context) -> None:
    """Give up a record that cannot be read, and its virtual machine."""
    await c.engine.forget(c.id)


@routes.get(
    "/events",
    query={
        "since": "begin with what happened then: RFC 3339 or seconds since the epoch, with up to nine decimals",
        "after": "begin with what happened after the event of this time",
        "until": "end at this time",
        "past": "end with the past",
    },
    stream="application/x-ndjson",
    also=("audit",),
)
async def events(c: Context) -> web.StreamResponse:
    """What happens, as it happens."""
    since, until = c.moment("since"), c.moment("until")
    if (after := c.moment("after")) is not None:
        since = max(after + 1, since or 0)
    if c.flag("past"):
        since, until = since or 0, min(clock.now_ns(), until) if until is not None else clock.now_ns()
    whole = "read" in current().scopes
    response = web.StreamResponse(headers={"Content-Type": "application/x-ndjson"})
    await response.prepare(c.request)
    with contextlib.suppress(ConnectionError):
        async with contextlib.aclosing(c.engine.events.follow(since, until)) as found:
            async for event in found:
                await response.write(msgspec.json.encode(event.told(whole=whole)) + b"\n")
        await response.write_eof()
    return response
