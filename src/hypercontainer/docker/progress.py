# SPDX-License-Identifier: Apache-2.0
"""Progress as Docker's clients read it: a JSON document for each step, in one answer that goes on (`jsonmessage`).

As long as nothing has been sent, what goes wrong is an answer with its status; afterwards a line with `errorDetail`.
"""

from __future__ import annotations

import asyncio
import contextlib
from collections.abc import AsyncIterator, Awaitable, Callable, Iterable, Iterator
from typing import Any, TypeVar

import msgspec
from aiohttp import web

from ..errors import HyperError
from ..images.progress import Progress, Update
from ..model.ids import short
from ..serving.auditing import ticket
from ..serving.statuses import status_of
from .faults import STATUS, message_of
from .router import Call

T = TypeVar("T")
Line = dict[str, Any]
_BAR = 50  # characters
_UNITS = "B", "kB", "MB", "GB", "TB"


class Lines:
    """The answer; it begins with its first line."""

    def __init__(self, c: Call, *, quiet: bool = False) -> None:
        """With `quiet` only errors are told."""
        self._request = c.request
        self._quiet = quiet
        self._response: web.StreamResponse | None = None

    async def send(self, lines: Iterable[Line]) -> None:
        for line in lines:
            if not self._quiet:
                await self._write(line)

    async def fail(self, error: Exception) -> None:
        """:raise Exception: it, where the answer has not begun."""
        if self._response is None:
            raise error
        code = status_of(error, STATUS)
        ticket().code = error.code if isinstance(error, HyperError) else "internal"
        text = message_of(error)
        await self._write({"errorDetail": {"code": code, "message": text}, "error": text})

    async def _write(self, line: Line) -> None:
        response = await self._begin()
        with contextlib.suppress(ConnectionError):
            await response.write(msgspec.json.encode(line) + b"\r\n")

    async def _begin(self) -> web.StreamResponse:
        if self._response is None:
            self._response = web.StreamResponse(headers={"Content-Type": "application/json"})
            await self._response.prepare(self._request)
        return self._response

    async def end(self) -> web.StreamResponse:
        response = await self._begin()
        with contextlib.suppress(ConnectionError):
            await response.write_eof()
        return response


async def follow(lines: Lines, progress: Progress, work: Awaitable[T], spell: Callable[[Update], Iterable[Line]]) -> T:
    """Tell of some work, each update as `spell` has it; what it gives. It ends when the client goes.

    :raise Exception: what the work raises.
    """
    task = asyncio.ensure_future(work)
    try:
        async for update in progress.listen():
            await lines.send(spell(update))
        return await task
    except asyncio.CancelledError:
        task.cancel()
        raise


def pull_lines(repository: str, tag: str) -> Callable[[Update], Iterator[Line]]:
    """What a pull tells, in Docker's words and order: a line for each layer before any of them moves.

    The first line comes with the first word of a layer: by then the registry has the image.
    """
    told: dict[str, str] = {}  # layer -> what was said of it last

    def spell(update: Update) -> Iterator[Line]:
        id_, status = update["id"], update["status"]
        if not id_ and not status.startswith(("Digest: ", "Status: ")):
            return
        if not told:
            told[""] = ""
            yield {"status": f"Pulling from {repository}", **({"id": tag} if tag else {})}
        if not id_:
            yield {"status": status}
            return
        status = "Pulling fs layer" if status == "Waiting" else status
        if told.get(id_) in ("Already exists", "Pull complete"):
            return
        told[id_] = status
        yield layer_line(id_, status, update["current"], update["total"])

    return spell


def layer_line(digest: str, status: str, current: int, total: int) -> Line:
    """Of one layer; how far it is in numbers, and in the bar that old clients show."""
    moving = status in ("Downloading", "Pushing", "Extracting") and total > 0
    if not moving:
        return {"status": status, "progressDetail": {}, "id": short(digest)}
    detail = {"current": current, "total": total}
    return {"status": status, "progressDetail": detail, "progress": bar(current, total), "id": short(digest)}


def bar(current: int, total: int) -> str:
    """`[=====>    ]  1.2MB/3.4MB`"""
    at = min(_BAR, current * _BAR // total)
    drawn = "=" * (at - 1) + ">" + " " * (_BAR - at) if at else ">" + " " * (_BAR - 1)
    return f"[{drawn}]  {size(current)}/{size(total)}"


def size(count: float) -> str:
    """In units of ten, with four digits, as Docker's clients write it."""
    for unit in _UNITS[:-1]:
        if count < 1000:
            return f"{count:.4g}{unit}"
        count /= 1000
    return f"{count:.4g}{_UNITS[-1]}"


async def body_of(c: Call) -> AsyncIterator[bytes]:
    """What the client sends, as it comes."""
    async for piece in c.request.content.iter_any():
        yield piece
