# SPDX-License-Identifier: Apache-2.0
"""A container's files: looked through, fetched, sent and removed."""

from __future__ import annotations

import posixpath
from collections.abc import AsyncIterator
from urllib.parse import quote, urlencode

from aiohttp import web

from ..engine import single_file
from ..errors import HyperError, InvalidArgument
from ..model.status import ContainerStatus
from .call import Call, Pages

pages = Pages()
_ONE = "/containers/{name}/files"
_ROWS = 2000  # of a directory that a page shows
_PIECE = 256 << 10  # bytes


@pages.get(_ONE)
async def show(c: Call) -> web.StreamResponse:
    """What is in a directory."""
    container, at = c.engine.registry.container(c.name), _asked(c)
    readable = container.state.status in (ContainerStatus.RUNNING, ContainerStatus.PAUSED)
    found = await c.engine.trees.list(container.id, at, 1) if readable else []
    found.sort(key=lambda e: (e.kind != "directory", e.name))
    above = [part for part in at.split("/") if part]
    trail = [(name, "/" + "/".join(above[: n + 1])) for n, name in enumerate(above)]
    return c.page(
        "files.html", title=f"Files of {container.name}", container=container, at=at, trail=trail,
        entries=found[:_ROWS], more=max(0, len(found) - _ROWS), readable=readable, below=posixpath.join,
    )  # fmt: skip


@pages.get(f"{_ONE}/contents", scope="operate")
async def fetch(c: Call) -> web.StreamResponse:
    """A file, which the browser keeps."""
    path = _asked(c)
    async with single_file.contents(c.engine.archives, c.engine.registry.container(c.name).id, path) as (stat, pieces):
        name = quote(posixpath.basename(path), safe="", errors="surrogateescape")
        response = web.StreamResponse(headers={
            "Content-Type": "application/octet-stream", "Content-Length": str(stat.size),
            "Content-Disposition": f"attachment; filename*=UTF-8''{name}",  # RFC 6266
        })  # fmt: skip
        await response.prepare(c.request)
        try:
            async for piece in pieces:
                await response.write(piece)
            await response.write_eof()
        except HyperError:
            if c.request.transport:
                c.request.transport.abort()  # the browser is not to take it for the whole
            raise
    return response


@pages.post(f"{_ONE}/contents", form=False)
async def send(c: Call) -> web.StreamResponse:
    """The body is a file, as large as it says."""
    if c.request.content_length is None:
        raise web.HTTPLengthRequired

    async def pieces() -> AsyncIterator[bytes]:
        async for piece in c.request.content.iter_chunked(_PIECE):
            yield piece

    id_, name = c.engine.registry.container(c.name).id, c.request.query.get("name", "")
    await single_file.put(c.engine.archives, id_, _asked(c), name, c.request.content_length, pieces())
    return web.Response(status=204)


@pages.post(f"{_ONE}/directory")
async def make(c: Call) -> web.StreamResponse:
    """A directory in the one that is shown."""
    id_, at = c.engine.registry.container(c.name).id, c.form.get("at", "/")
    await single_file.put_directory(c.engine.archives, id_, at, c.form.get("name", "").strip())
    return _see(c, at)


@pages.post(f"{_ONE}/remove")
async def remove(c: Call) -> web.StreamResponse:
    """A file, or a directory with what is in it."""
    path = c.form.get("at", "")
    if posixpath.normpath(path) in ("/", "//", "."):
        raise InvalidArgument("the root of a container is not removed", hint="remove the container")
    await c.engine.trees.remove(c.engine.registry.container(c.name).id, path, recursive=True)
    return _see(c, posixpath.dirname(path))


def _asked(c: Call) -> str:
    """Which is asked for. :raise InvalidArgument: no absolute path."""
    path = c.request.query.get("path", "/")
    if not path.startswith("/") or "\0" in path:
        raise InvalidArgument(f"{path!r} is no absolute path of a container", hint="begin it with /")
    return posixpath.normpath(path).replace("//", "/", 1)


def _see(c: Call, at: str) -> web.StreamResponse:
    return c.see("containers", c.name, f"files?{urlencode({'path': at})}")
