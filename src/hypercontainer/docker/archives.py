# SPDX-License-Identifier: Apache-2.0
"""Files of a container, as tar archives: what `docker cp` works by."""

from __future__ import annotations

import base64
import contextlib
import posixpath
import stat
from collections.abc import Iterator

import msgspec
from aiohttp import web

from ..errors import InvalidArgument, NotFound
from ..model.moments import SECOND, write_moment
from ..model.status import Container, PathStat
from .router import Call, Routes
from .unpacking import unpacked

routes = Routes()
_STAT = "X-Docker-Container-Path-Stat"
# Bits of Go's os.FileMode, https://pkg.go.dev/io/fs#FileMode; permissions are the lowest nine.
_KINDS = {"directory": 1 << 31, "link": 1 << 27, "block": 1 << 26, "character": 1 << 26 | 1 << 21, "fifo": 1 << 25}
_SPECIAL = {stat.S_ISUID: 1 << 23, stat.S_ISGID: 1 << 22, stat.S_ISVTX: 1 << 20}


def file_mode(found: PathStat) -> int:
    """As Go has it."""
    special = sum(theirs for ours, theirs in _SPECIAL.items() if found.mode & ours)
    return found.mode & 0o777 | special | _KINDS.get(found.kind, 0)


@contextlib.contextmanager
def _worded(container: Container, path: str) -> Iterator[None]:
    """What is not there, in the words by which clients know it."""
    try:
        yield
    except NotFound as error:
        if "path in the container" not in error.message:
            raise
        raise NotFound(f"Could not find the file {path} in container {container.name}") from error


def _path(c: Call) -> str:
    path = c.text("path")
    if not path:
        raise InvalidArgument("bad parameter: path cannot be empty")
    return path


async def _told(c: Call, container: Container, path: str, found: PathStat) -> str:
    name = "/" if posixpath.normpath(f"/{path}") == "/" and not path.endswith(".") else found.name
    target = await c.engine.archives.target(container.id, path, found) if found.link_target else ""
    document = {
        "name": name,
        "size": found.size,
        "mode": file_mode(found),
        "mtime": write_moment(max(found.mtime, 0) * SECOND),
        "linkTarget": target,
    }
    return base64.b64encode(msgspec.json.encode(document)).decode()


@routes.head("/containers/{name}/archive", scope="operate")
async def look(c: Call) -> web.Response:
    """What there is at a path."""
    container, path = c.container, _path(c)
    with _worded(container, path):
        found = await c.engine.archives.stat(container.id, path)
    return web.Response(headers={_STAT: await _told(c, container, path, found)})


@routes.get("/containers/{name}/archive", scope="operate")
async def read(c: Call) -> web.StreamResponse:
    """A path and all below it."""
    container, path = c.container, _path(c)
    with _worded(container, path):
        async with c.engine.archives.opened(container.id, path) as (found, chunks):
            told = await _told(c, container, path, found)
            response = web.StreamResponse(headers={"Content-Type": "application/x-tar", _STAT: told})
            await response.prepare(c.request)
            async for chunk in chunks:
                await response.write(chunk)
            await response.write_eof()
    return response


@routes.put("/containers/{name}/archive")
async def write(c: Call) -> web.Response:
    """Unpacked below a directory."""
    container, path = c.container, _path(c)
    body = unpacked(c.request.content.iter_any())
    with _worded(container, path):
        await c.engine.archives.write(
            container.id, path, body, replaces=not c.flag("noOverwriteDirNonDir"), owned=c.flag("copyUIDGID")
        )
    return web.Response(status=200)
