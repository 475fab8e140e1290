# SPDX-License-Identifier: Apache-2.0
"""Connections to ports within pods over REST."""

from __future__ import annotations

from aiohttp import web

from ..engine.attach.peer import End, Input, Resize
from ..errors import HyperError
from ..model.frames import STDOUT
from .router import FRAMES, Context, Routes
from .upgrade import UpgradedPeer

routes = Routes()


class _Client:
    """The client of a request, as forwards know one."""

    def __init__(self, peer: UpgradedPeer) -> None:
        self._peer = peer

    async def read(self) -> bytes:
        said = await self._peer.receive()
        while isinstance(said, Resize):  # which is for terminals
            said = await self._peer.receive()
        if said is None:
            raise ConnectionResetError("the client has gone")
        return said.data if isinstance(said, Input) else b""

    async def write(self, data: bytes) -> None:
        await self._peer.send(STDOUT, data)


@routes.post("/pods/{id}/connect", query={"port": "TCP port"}, stream=FRAMES)
async def connect(c: Context) -> web.StreamResponse:
    """Connect to a port within a pod, whatever network it has."""
    port = c.number("port", 0) or 0
    await c.engine.lifetimes.rouse(c.engine.registry.pod(c.id))
    c.engine.forwards.check(c.id, [port])
    c.require_upgrade()
    peer = UpgradedPeer(c.request, {})
    await peer.open()
    try:
        await c.engine.forwards.connect(c.id, port, _Client(peer))
    except HyperError as error:
        await peer.finish(End(error=error))
    except ConnectionError:
        pass  # the client has gone
    else:
        await peer.finish(End())
    return peer.response
