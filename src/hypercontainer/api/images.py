# SPDX-License-Identifier: Apache-2.0
"""Images over REST."""

from __future__ import annotations

import asyncio
import contextlib

import msgspec
from aiohttp import web

from ..model.base import Model
from ..model.reference import parse_reference
from ..model.status import Image, RemovedImage
from .router import Context, Route, error_body


class Tagged(Model, frozen=True, kw_only=True):
    """The full new name."""

    name: str


async def pull(c: Context) -> web.StreamResponse:
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


async def list_(c: Context) -> list[Image]:
    return c.engine.images.describe_all()


async def inspect(c: Context) -> Image:
    return c.engine.images.describe(c.text("name"))


async def tag(c: Context) -> Tagged:
    name = c.engine.images.tag(c.text("name"), c.text("new"))
    c.engine.events.publish("image", "tag", c.engine.images.find(name).id, name=name)
    return Tagged(name=parse_reference(name).familiar)


async def remove(c: Context) -> RemovedImage:
    removed = c.engine.images.remove(c.text("name"), force=c.flag("force"))
    for id_ in removed.deleted:
        c.engine.events.publish("image", "delete", id_)
    return removed


async def prune(c: Context) -> RemovedImage:
    return c.engine.images.prune(everything=c.flag("all"))


ROUTES = [
    Route(
        "POST",
        "/images/pull",
        pull,
        "Pull an image; the answer tells its progress line by line",
        {"name": "reference, or transport:location", "platform": "os/architecture[/variant]"},
        stream="application/x-ndjson",
    ),
    Route("GET", "/images", list_, "List images, newest first", result=list[Image]),
    Route("GET", "/images/inspect", inspect, "Inspect an image", {"name": "name or id"}, result=Image),
    Route(
        "POST",
        "/images/tag",
        tag,
        "Give an image a further name",
        {"name": "name or id", "new": "the further name"},
        result=Tagged,
        status=201,
    ),
    Route(
        "DELETE",
        "/images",
        remove,
        "Remove a name, and with the last one the image",
        {"name": "name or id", "force": "remove all names"},
        result=RemovedImage,
    ),
    Route(
        "POST",
        "/images/prune",
        prune,
        "Remove images without a name",
        {"all": "also those that no container uses"},
        result=RemovedImage,
    ),
]
