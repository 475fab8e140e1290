# SPDX-License-Identifier: Apache-2.0
"""Answers that are streams of bytes."""

from __future__ import annotations

import contextlib
from collections.abc import AsyncGenerator

from aiohttp import web

from .router import Context


async def send_tar(c: Context, chunks: AsyncGenerator[bytes, None]) -> web.StreamResponse:
    """A tar archive as the answer, as it is made."""
    first = await anext(chunks, b"")  # errors of the path come before the answer begins
    response = web.StreamResponse(headers={"Content-Type": "application/x-tar"})
    await response.prepare(c.request)
    async with contextlib.aclosing(chunks):
        await response.write(first)
        async for chunk in chunks:
            await response.write(chunk)
    await response.write_eof()
    return response
