# SPDX-License-Identifier: Apache-2.0
"""Contents of files by plain HTTP: GET and POST /files."""

from __future__ import annotations

import os
import posixpath
import tempfile
from collections.abc import AsyncIterator
from pathlib import Path
from typing import Any

from aiohttp import BodyPartReader, web

from ...errors import InvalidArgument, Unsupported
from .book import Entry
from .filesystem import absolute, whose_files

_PIECE = 1 << 20


async def read(entry: Entry, request: web.Request) -> web.StreamResponse:
    """A file's contents."""
    whose_files(request.query.get("username", ""))
    path = request.query.get("path", "")
    data = await entry.sandbox.files.read(path)
    name = posixpath.basename(absolute(entry, path)).encode("ascii", "replace").decode().replace('"', "_")
    response = web.Response(
        body=data,
        content_type="application/octet-stream",
        headers={"Content-Disposition": f'attachment; filename="{name}"'},
    )
    response.enable_compression()
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
    """By a file of this host, however large it is."""
    whole = absolute(entry, path)
    number, name = tempfile.mkstemp(prefix="hyper-e2b-")
    try:
        with os.fdopen(number, "wb") as file:
            os.fchmod(number, 0o644)
            async for piece in pieces:
                file.write(piece)
        await entry.sandbox.files.upload(Path(name), whole)
    finally:
        os.unlink(name)
    return {"name": posixpath.basename(whole), "type": "file", "path": whole}
