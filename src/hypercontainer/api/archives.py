# SPDX-License-Identifier: Apache-2.0
"""Containers' files over REST: tar streams, and what there is to know of a path."""

from __future__ import annotations

from aiohttp import web

from ..errors import InvalidArgument
from ..model.status import Change, PathStat
from ..serving.streaming import send_tar
from .router import Context, Routes

routes = Routes()
_ID = "/containers/{id}"


@routes.get(f"{_ID}/archive/stat", query={"path": "absolute path"})
async def archive_stat(c: Context) -> PathStat:
    """A path of the container."""
    return await c.engine.archives.stat(c.id, c.text("path"))


@routes.get(
    f"{_ID}/archive",
    query={"path": "absolute path", "follow": "follow a symbolic link"},
    stream="application/x-tar",
    scope="operate",
)
async def archive_read(c: Context) -> web.StreamResponse:
    """A path of the container as a tar stream."""
    return await send_tar(c.request, c.engine.archives.read(c.id, c.text("path"), follow=c.flag("follow")))


@routes.put(
    f"{_ID}/archive",
    query={"path": "absolute path", "owned": "what is unpacked becomes that of the user as whom the container runs"},
)
async def archive_write(c: Context) -> None:
    """Unpack a tar stream below a directory of the container."""
    if not c.text("path"):
        raise InvalidArgument("query parameter path is missing", hint="name a directory of the container")
    await c.engine.archives.write(c.id, c.text("path"), c.request.content.iter_any(), owned=c.flag("owned"))


@routes.get(f"{_ID}/export", stream="application/x-tar", scope="operate")
async def export(c: Context) -> web.StreamResponse:
    """The whole root file system as a tar stream."""
    return await send_tar(c.request, c.engine.archives.export(c.id))


@routes.get(f"{_ID}/changes")
async def changes(c: Context) -> list[Change]:
    """What differs from the image."""
    return await c.engine.archives.changes(c.id)
