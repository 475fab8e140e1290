# SPDX-License-Identifier: Apache-2.0
"""Contents of files by plain HTTP: GET and POST /files."""

from __future__ import annotations

import asyncio
import errno
import os
import posixpath
import tempfile
from collections.abc import AsyncIterator
from pathlib import Path
from typing import Any

from aiohttp import BodyPartReader, web

from ...errors import DeadlineExceeded, HyperError, InvalidArgument, NoSpace, Unsupported
from ...sdk.files import opened
from ...sdk.limits import DEFAULT
from .book import Entry
from .filesystem import absolute, whose_files

_PIECE = 1 << 20
_LONG = 3600.0  # seconds for a file's way to a slow client
FILE_MAX = 8 << 30  # bytes of one that is sent: a body without end would fill the disk


async def read(entry: Entry, request: web.Request) -> web.StreamResponse:
    """A file's contents, however large it is."""
    whose_files(request.query.get("username", ""))
    path = request.query.get("path", "")
    name = posixpath.basename(absolute(entry, path)).encode("ascii", "replace").decode()
    name = "".join("_" if c in '"\\' or not c.isprintable() else c for c in name)
    response = web.StreamResponse(headers={
        "Content-Disposition": f'attachment; filename="{name}"', "Content-Type": "application/octet-stream",
    })  # fmt: skip
    response.enable_compression()
    try:
        async with asyncio.timeout(DEFAULT) as limit, opened(entry.sandbox.files, path) as found:
            limit.reschedule(asyncio.get_running_loop().time() + _LONG)
            await response.prepare(request)
            async for piece in found.pieces():
                await response.write(piece)
            await response.write_eof()
    except (HyperError, TimeoutError) as error:
        if response.prepared and request.transport:
            request.transport.abort()  # the client is not to take it for the whole
        raise error if isinstance(error, HyperError) else DeadlineExceeded(f"reading {path} took too long") from None
    return response


async def write(entry: Entry, request: web.Request) -> web.StreamResponse:
    """Files in the place of what was there: one as the body, or several as the parts of a form."""
    whose_files(request.query.get("username", ""))
    if any(name.lower().startswith("x-metadata-") for name in request.headers):
        raise Unsupported("files have no metadata of their own here")
    path = request.query.get("path", "")
    if request.content_type != "multipart/form-data":
        return web.json_response([await _put(entry, path, request.content.iter_chunked(_PIECE))])
    made = []
    async for part in await request.multipart():
        if isinstance(part, BodyPartReader) and part.name == "file":
            made.append(await _put(entry, path or part.filename or "", _pieces(part)))
    if not made:
        raise InvalidArgument("the form has no file")
    return web.json_response(made)


async def _pieces(part: BodyPartReader) -> AsyncIterator[bytes]:
    while data := await part.read_chunk(_PIECE):
        yield bytes(part.decode(data))


async def _put(entry: Entry, path: str, pieces: AsyncIterator[bytes]) -> dict[str, Any]:
    """By a file of this host. :raise NoSpace: it is larger than what is taken, or than there is room here."""
    whole, size = absolute(entry, path), 0
    number, name = tempfile.mkstemp(prefix="hyper-e2b-")
    try:
        with os.fdopen(number, "wb") as file:
            os.fchmod(number, 0o644)
            async for piece in pieces:
                size += len(piece)
                if size > FILE_MAX:
                    raise NoSpace(f"a file that is sent has at most {FILE_MAX >> 30} GiB")
                file.write(piece)
        await entry.sandbox.files.upload(Path(name), whole)
    except OSError as error:
        if error.errno != errno.ENOSPC:
            raise
        raise NoSpace("the server's disk is full, through which files go") from None
    finally:
        os.unlink(name)
    return {"name": posixpath.basename(whole), "type": "file", "path": whole}
