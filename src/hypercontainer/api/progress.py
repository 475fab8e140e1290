# SPDX-License-Identifier: Apache-2.0
"""Answers that tell how far something is: a line of JSON each."""

from __future__ import annotations

import asyncio
import contextlib
from collections.abc import Awaitable, Callable
from typing import TypeVar

import msgspec
from aiohttp import web

from ..images.progress import Progress
from .router import Context, error_body

T = TypeVar("T")


async def send_progress(
    c: Context, progress: Progress, work: Awaitable[T], last: Callable[[T], object]
) -> web.StreamResponse:
    """Tell of work line by line; its result, or what went wrong, is the last line.

    Whoever goes has it given up.
    """
    task = asyncio.ensure_future(work)
    response = web.StreamResponse(headers={"Content-Type": "application/x-ndjson"})
    try:
        await response.prepare(c.request)
    except BaseException:  # the client has gone already
        task.cancel()
        raise

    async def line(document: object) -> None:
        with contextlib.suppress(ConnectionError):
            await response.write(msgspec.json.encode(document) + b"\n")

    try:
        async for update in progress.listen():
            await line(update)
        done = await task
    except asyncio.CancelledError:  # the client has gone
        task.cancel()
        raise
    except Exception as error:
        await line({"error": error_body(error)})
    else:
        await line(last(done))
    await response.write_eof()
    return response
