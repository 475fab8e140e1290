# SPDX-License-Identifier: Apache-2.0
"""Answers that are streams of bytes."""

from __future__ import annotations

import contextlib
from collections.abc import AsyncGenerator

from aiohttp import web


async def send_tar(
    request: web.Request, chunks: AsyncGenerator[bytes, None], content_type: str = "application/x-tar"
) -> web.StreamResponse:
    """A tar archive as the answer, as it is made; what goes wrong before its first piece is raised."""
    first = await anext(chunks, b"")
    response = web.StreamResponse(headers={"Content-Type": content_type})
    await response.prepare(request)
    async with contextlib.aclosing(chunks):
        await response.write(first)
        async for chunk in chunks:
            await response.write(chunk)
    await response.write_eof()
    return response
