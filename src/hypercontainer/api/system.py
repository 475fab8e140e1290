# SPDX-License-Identifier: Apache-2.0
"""The daemon itself over REST."""

from __future__ import annotations

import contextlib

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
    return await c.engine.doctor()


async def events(c: Context) -> web.StreamResponse:
    response = web.StreamResponse(headers={"Content-Type": "application/x-ndjson"})
    await response.prepare(c.request)
    listener = c.engine.events.listen()
    with contextlib.suppress(ConnectionError):
        if since := c.text("since"):
            for event in c.engine.events.past(since):
                await response.write(msgspec.json.encode(event) + b"\n")
        if not c.flag("past"):
            async with contextlib.aclosing(listener):
                async for event in listener:
                    await response.write(msgspec.json.encode(event) + b"\n")
        await response.write_eof()
    return response


ROUTES = [
    Route("GET", "/ping", ping, "Is the daemon there?", stream="text/plain"),
    Route("GET", "/version", version, "Versions of all parts", result=Version),
    Route("GET", "/info", info, "The daemon and its host", result=Info),
    Route("GET", "/doctor", doctor, "What this host has of what is needed", result=list[Check]),
    Route(
        "GET",
        "/events",
        events,
        "What happens, as it happens",
        {"since": "RFC 3339: begin with the past", "past": "end with the past"},
        stream="application/x-ndjson",
    ),
]
