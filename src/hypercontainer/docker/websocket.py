# SPDX-License-Identifier: Apache-2.0
"""Attached over a websocket: messages of bytes both ways, both outputs as they come, without headers."""

from __future__ import annotations

import contextlib

from aiohttp import WSMsgType, web

from ..engine.attach.peer import End, Input, Said
from ..errors import InvalidArgument
from .attaching import options
from .faults import message_of
from .router import Call, Routes

routes = Routes()
_MESSAGE_MAX = 1 << 20  # bytes of input in one message


class WebsocketPeer:
    """The client of a request."""

    def __init__(self, request: web.Request, *, takes_input: bool) -> None:
        self.response = web.WebSocketResponse(max_msg_size=_MESSAGE_MAX, heartbeat=30.0)
        self._request = request
        self._takes_input = takes_input

    async def open(self) -> None:
        await self.response.prepare(self._request)

    async def receive(self) -> Said | None:
        while True:
            message = await self.response.receive()
            if message.type not in (WSMsgType.BINARY, WSMsgType.TEXT):
                return None
            data = message.data.encode() if isinstance(message.data, str) else message.data
            if self._takes_input and data:
                return Input(data)

    async def send(self, stream: int, data: bytes) -> None:
        await self.response.send_bytes(data)

    async def finish(self, end: End) -> None:
        with contextlib.suppress(ConnectionError):
            if why := message_of(end.error) if end.error else end.message:
                await self.response.send_bytes(why.encode() + b"\r\n")
            await self.response.close()


@routes.get("/containers/{name}/attach/ws", scope="operate")
async def attach(c: Call) -> web.StreamResponse:
    """Attach to the main process."""
    container = c.container
    await c.engine.containers.rouse(container.id)
    peer = WebsocketPeer(c.request, takes_input=c.flag("stdin"))
    if not peer.response.can_prepare(c.request):
        raise InvalidArgument("this operation takes a websocket")
    await c.engine.attachments.container(container.id, options(c, container), early=True).run(peer)
    return peer.response
