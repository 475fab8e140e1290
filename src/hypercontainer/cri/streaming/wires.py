# SPDX-License-Identifier: Apache-2.0
"""Bytes both ways: a connection that was taken from HTTP, or the messages of a websocket, which carry SPDY too."""

from __future__ import annotations

import asyncio
import contextlib
import select
from collections.abc import AsyncIterator
from typing import Protocol

from aiohttp import WSMsgType, web

from ...serving.hijack import Hijacked

IDLE = 4 * 3600.0  # seconds without a byte either way, after which a connection is closed: as kubelets have it
_LOOK = 15.0  # seconds of silence after which is looked whether the other side is still there
MESSAGE_MAX = 4 << 20  # bytes of one of a websocket


class Wire(Protocol):
    """Only one task reads; any may write, each a whole frame."""

    async def read(self) -> bytes | None:
        """What comes next; None when the other side has ended, or gone."""

    async def write(self, data: bytes) -> None:
        """Returns when there is room for more. :raise ConnectionError: the other side has gone."""

    async def end(self) -> None:
        """All that was written arrives; then no more comes and goes."""


class Activity:
    """When something was last read or written."""

    def __init__(self) -> None:
        self.last = asyncio.get_running_loop().time()

    def seen(self) -> None:
        self.last = asyncio.get_running_loop().time()


@contextlib.asynccontextmanager
async def watched(request: web.Request, limit: float = IDLE) -> AsyncIterator[Activity]:
    """Whose connection is broken when nothing has happened for so many seconds, or the other side has gone: of that
    nobody hears who waits for a process to take what came before.
    """
    activity, loop = Activity(), asyncio.get_running_loop()

    async def watch() -> None:
        while request.transport and (left := activity.last + limit - loop.time()) > 0:
            await asyncio.sleep(min(left, _LOOK))
            if loop.time() - activity.last >= _LOOK and _hung_up(request.transport):
                break
        if request.transport:
            request.transport.abort()

    task = asyncio.create_task(watch())
    try:
        yield activity
    finally:
        task.cancel()
        await asyncio.gather(task, return_exceptions=True)


def _hung_up(transport: asyncio.BaseTransport | None) -> bool:
    if transport is None or transport.is_closing():
        return True
    seen = select.poll()
    seen.register(transport.get_extra_info("socket").fileno(), select.POLLRDHUP)
    return bool(seen.poll(0))


class HijackedWire:
    """The connection itself. Who has ended its half has gone: none of these protocols goes on after that."""

    def __init__(self, connection: Hijacked, activity: Activity) -> None:
        self._connection, self._activity = connection, activity

    async def read(self) -> bytes | None:
        data = await self._connection.read()
        self._activity.seen()
        return data or None

    async def write(self, data: bytes) -> None:
        await self._connection.write(data)
        self._activity.seen()

    async def end(self) -> None:
        await self._connection.end()


class WebsocketWire:
    """Its messages one after the other, wherever they are divided."""

    def __init__(self, socket: web.WebSocketResponse, activity: Activity) -> None:
        self._socket, self._activity = socket, activity

    async def read(self) -> bytes | None:
        message = await self._socket.receive()
        self._activity.seen()
        if message.type is WSMsgType.TEXT:
            return str(message.data).encode()
        return bytes(message.data) if message.type is WSMsgType.BINARY else None

    async def write(self, data: bytes) -> None:
        await self._socket.send_bytes(data)
        self._activity.seen()

    async def end(self) -> None:
        await self._socket.close()
