# SPDX-License-Identifier: Apache-2.0
"""The daemon itself over REST."""

from __future__ import annotations

import contextlib
import time

import msgspec
from aiohttp import web

from ..model.status import Check, Info, Version
from .router import Context, Route


async def ping(c: Context) -> web.Response:
    return web.Response(text="OK")


async def version(c: Context) -> Version:
    return c.engine.version()


async def info(c: Context) -> Info:
    return await c.engine.info()


async def doctor(c: Context) -> list[Check]:
    return await c.engine.doctor(probe=c.flag("probe"))


async def forget(c: Context) -> None:
    await c.engine.forget(c.id)


async def events(c: Context) -> web.StreamResponse:
    since, until = c.moment("since"), c.moment("until")
    if (after := c.moment("after")) is not None:
        since = max(after + 1, since or 0)
    if c.flag("past"):
        since, until = since or 0, min(time.time_ns(), until) if until is not None else time.time_ns()
    response = web.StreamResponse(headers={"Content-Type": "application/x-ndjson"})
    await response.prepare(c.request)
    with contextlib.suppress(ConnectionError):
        async with contextlib.aclosing(c.engine.events.follow(since, until)) as found:
            async for event in found:
                await response.write(msgspec.json.encode(event) + b"\n")
        await response.write_eof()
    return response


ROUTES = [
    Route("GET", "/ping", ping, "Is the daemon there?", stream="text/plain"),
    Route("GET", "/version", version, "Versions of all parts", result=Version),
    Route("GET", "/info", info, "The daemon and its host", result=Info),
    Route(
        "GET",
        "/doctor",
        doctor,
        "What this host has of what is needed",
        {"probe": "try first whether a guest boots with KVM"},
        result=list[Check],
    ),
    Route("DELETE", "/set-aside/{id}", forget, "Give up a record that cannot be read, and its virtual machine"),
    Route(
        "GET",
        "/events",
        events,
        "What happens, as it happens",
        {
            "since": "begin with what happened then: RFC 3339 or seconds since the epoch, with up to nine decimals",
            "after": "begin with what happened after the event of this time",
            "until": "end at this time",
            "past": "end with the past",
        },
        stream="application/x-ndjson",
    ),
]
