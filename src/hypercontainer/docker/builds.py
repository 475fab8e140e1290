# SPDX-License-Identifier: Apache-2.0
"""Builds: what clients ask goes to the builder's dockerd as it came, and its answers come back.

`docker build` with DOCKER_BUILDKIT=0 and clients in other languages send a context to `/build`. buildx and compose
speak with BuildKit itself: `/grpc` becomes a connection to it, `/session` one by which it asks the client for files,
secrets and credentials.
"""

from __future__ import annotations

from typing import Any

from aiohttp import web

from ..errors import InvalidArgument
from ..serving.answers import send_answer
from ..serving.hijack import Hijacked
from .router import Call, Routes

routes = Routes()
_HANDED_ON = ("content-type", "x-registry-config")
_SESSION = "x-docker-expose-session-"


@routes.post("/build")
async def build(c: Call) -> web.StreamResponse:
    """Of a context in the body, or of one that the query names; its image is here when the answer ends."""
    headers = {k: v for k, v in c.request.headers.items() if k.lower() in _HANDED_ON}
    body = c.request.content.iter_any() if c.request.body_exists else None
    async with c.engine.builds.build(list(c.request.query.items()), headers, body) as answer:
        return await send_answer(c.request, answer)


@routes.post("/build/cancel")
async def cancel(c: Call) -> None:
    """One that BuildKit does, by the id that its client gave it."""
    await c.engine.builds.ask("POST", "/build/cancel", list(c.request.query.items()))


@routes.post("/build/prune")
async def prune(c: Call) -> Any:
    """Remove what the build cache has and no build uses."""
    return await c.engine.builds.cache.prune(list(c.request.query.items()))


@routes.post("/grpc")
async def grpc(c: Call) -> web.StreamResponse:
    """A connection to BuildKit."""
    return await _passed_through(c, "/grpc", [])


@routes.post("/session")
async def session(c: Call) -> web.StreamResponse:
    """A connection by which BuildKit asks its client."""
    # One for each method that the client answers, all of the same name.
    headers = [(k, v) for k, v in c.request.headers.items() if k.lower().startswith(_SESSION)]
    return await _passed_through(c, "/session", headers)


async def _passed_through(c: Call, path: str, headers: list[tuple[str, str]]) -> web.StreamResponse:
    """:raise InvalidArgument: the client does not ask for h2c."""
    if c.request.headers.get("Upgrade", "").lower() != "h2c":
        raise InvalidArgument(f"{path} takes a connection that is upgraded to h2c")
    peer = Hijacked(c.request, "application/vnd.docker.raw-stream", "h2c")
    await c.engine.builds.pass_through(path, headers, peer)
    return peer
