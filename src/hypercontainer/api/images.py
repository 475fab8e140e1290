# SPDX-License-Identifier: Apache-2.0
"""Images over REST."""

from __future__ import annotations

import asyncio
import contextlib

import msgspec
from aiohttp import web

from ..images.describe import FILTERS
from ..model.base import Model
from ..model.filters import decode_filters
from ..model.images import HistoryEntry, Image, RemovedImage
from ..model.reference import parse_reference
from .router import Context, Routes, error_body

routes = Routes()
_PRUNE = ("dangling", "until", "label")


class Tagged(Model, frozen=True, kw_only=True):
    """The full new name."""

    name: str


@routes.post(
    "/images/pull",
    query={"name": "reference, or transport:location", "platform": "os/architecture[/variant]"},
    stream="application/x-ndjson",
)
async def pull(c: Context) -> web.StreamResponse:
    """Pull an image; the answer tells its progress line by line."""
    progress, image = c.engine.pull(
        c.text("name"), platform=c.text("platform"), auth=c.request.headers.get("X-Registry-Auth", "")
    )
    task = asyncio.ensure_future(image)
    response = web.StreamResponse(headers={"Content-Type": "application/x-ndjson"})
    await response.prepare(c.request)

    async def line(document: object) -> None:
        with contextlib.suppress(ConnectionError):
            await response.write(msgspec.json.encode(document) + b"\n")

    try:
        async for update in progress.listen():
            await line(update)
        pulled = await task
    except asyncio.CancelledError:  # the client has gone
        task.cancel()
        raise
    except Exception as error:
        await line({"error": error_body(error)})
    else:
        await line({"image": pulled.id, "digest": pulled.digest, "name": progress.name})
    await response.write_eof()
    return response


@routes.get("/images", query={"filters": f"JSON object of lists, as Docker's: {', '.join(FILTERS)}"})
async def list_(c: Context) -> list[Image]:
    """List images, newest first."""
    return c.engine.images.describe_all(decode_filters(c.text("filters"), FILTERS))


@routes.get("/images/inspect", query={"name": "name or id"})
async def inspect(c: Context) -> Image:
    """Inspect an image."""
    return c.engine.images.describe(c.text("name"))


@routes.get("/images/history", query={"name": "name or id"})
async def history(c: Context) -> list[HistoryEntry]:
    """How an image was made, the last step first."""
    return c.engine.images.history(c.text("name"))


@routes.post("/images/tag", query={"name": "name or id", "new": "the further name"}, status=201)
async def tag(c: Context) -> Tagged:
    """Give an image a further name."""
    name = c.engine.images.tag(c.text("name"), c.text("new"))
    c.engine.events.publish("image", "tag", c.engine.images.find(name).id, name=name)
    return Tagged(name=parse_reference(name).familiar)


@routes.delete("/images", query={"name": "name or id", "force": "remove all names"})
async def remove(c: Context) -> RemovedImage:
    """Remove a name, and with the last one the image."""
    removed = c.engine.images.remove(c.text("name"), force=c.flag("force"))
    for id_ in removed.deleted:
        c.engine.events.publish("image", "delete", id_)
    return removed


@routes.post(
    "/images/prune",
    query={
        "all": "also those with a name that no container uses",
        "filters": f"JSON object of lists: {', '.join(_PRUNE)}",
    },
)
async def prune(c: Context) -> RemovedImage:
    """Remove images without a name."""
    filters = decode_filters(c.text("filters"), _PRUNE)
    removed = c.engine.images.prune(everything=c.flag("all"), filters=filters)
    for id_ in removed.deleted:
        c.engine.events.publish("image", "delete", id_)
    return removed
