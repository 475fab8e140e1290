# SPDX-License-Identifier: Apache-2.0
"""Answers of the builder's dockerd, as they come."""

from __future__ import annotations

import contextlib

from aiohttp import web

from ..engine.builder.builds import Answer


async def send_answer(request: web.Request, answer: Answer) -> web.StreamResponse:
    """Hand an answer on; who is told of its end has the image that was built."""
    response = web.StreamResponse(status=answer.status, headers={"Content-Type": answer.content_type})
    await response.prepare(request)
    async with contextlib.aclosing(answer.body) as pieces:
        async for piece in pieces:
            await response.write(piece)
    await response.write_eof()
    return response
