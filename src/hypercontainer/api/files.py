# SPDX-License-Identifier: Apache-2.0
"""Files of containers that run, over REST. What is in them goes by `archives`."""

from __future__ import annotations

import contextlib

import msgspec
from aiohttp import web

from ..errors import HyperError
from ..model.files import FileEntry
from .router import Context, Routes, error_body

routes = Routes()
_ID = "/containers/{id}/files"


@routes.get(_ID, query={"path": "absolute path of a directory", "depth": "levels [1]"})
async def list_(c: Context) -> list[FileEntry]:
    """What is in a directory."""
    return await c.engine.trees.list(c.id, c.text("path"), c.number("depth", 1) or 0)


@routes.delete(_ID, query={"path": "absolute path", "recursive": "with what is below it"})
async def remove(c: Context) -> None:
    """Remove a file or a directory."""
    await c.engine.trees.remove(c.id, c.text("path"), recursive=c.flag("recursive"))


@routes.post(f"{_ID}/rename", query={"path": "absolute path", "to": "the new one"})
async def rename(c: Context) -> None:
    """Rename a file or a directory."""
    await c.engine.trees.rename(c.id, c.text("path"), c.text("to"))


@routes.get(
    f"{_ID}/watch",
    query={"path": "absolute path of a directory", "recursive": "and what is below it"},
    stream="application/x-ndjson",
    scope="operate",
)
async def watch(c: Context) -> web.StreamResponse:
    """What happens in a directory, a change per line; the answer begins when it is watched."""
    changes = c.engine.trees.watch(c.id, c.text("path"), recursive=c.flag("recursive"))
    async with contextlib.aclosing(changes):  # a client that leaves ends it
        await anext(changes)
        response = web.StreamResponse(headers={"Content-Type": "application/x-ndjson"})
        await response.prepare(c.request)
        with contextlib.suppress(ConnectionError):
            try:
                async for change in changes:
                    await response.write(msgspec.json.encode(change) + b"\n")
            except HyperError as error:
                await response.write(msgspec.json.encode({"error": error_body(error)}) + b"\n")
            await response.write_eof()
    return response
