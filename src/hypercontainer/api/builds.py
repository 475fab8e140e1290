# SPDX-License-Identifier: Apache-2.0
"""Builds over REST: Docker's own request and answer, which the builder's dockerd reads and writes."""

from __future__ import annotations

from aiohttp import web

from ..errors import InvalidArgument
from ..model.usage import Freed
from ..serving.answers import send_answer
from ..serving.hijack import Hijacked
from .router import Context, Routes

routes = Routes()
# As dockerd calls them; what it does not know it passes over.
_QUERY = {
    "t": "name of the image; may be repeated",
    "dockerfile": "path of the Dockerfile in the context [Dockerfile]",
    "remote": "URL of the context, instead of the body",
    "version": "2: by BuildKit; 1: by the builder before it [1]",
    "buildargs": "JSON object of ARGs",
    "labels": "JSON object of labels",
    "cachefrom": "JSON list of images",
    "extrahosts": "NAME:IP for /etc/hosts; may be repeated",
    "target": "stage to build",
    "platform": "os/architecture[/variant]",
    "networkmode": "network of RUN: host (the builder's own), bridge or none [host]",
    "nocache": "use no cache",
    "pull": "ask registries for newer images",
    "q": "tell nothing but the image's id",
    "shmsize": "bytes of /dev/shm",
    "buildid": "by which the build can be cancelled",
    "session": "id of the session by which the builder asks its client",
    "outputs": 'JSON list of one output, such as {"Type": "tar"}, which goes to the session [an image]',
}


@routes.post("/build", query=_QUERY, stream="application/x-ndjson")
async def build(c: Context) -> web.StreamResponse:
    """Build an image of a context, the body, a tar; the answer is dockerd's, line by line.

    When it ends without an error, the image is here.
    """
    query = [(k, v) for k, v in c.request.query.items() if k in _QUERY]
    body = c.request.content.iter_any() if c.request.body_exists else None
    headers = {"Content-Type": "application/x-tar"}
    async with c.engine.builds.build(query, headers, body) as answer:
        if answer.status >= 400:
            raise InvalidArgument(await answer.message())
        return await send_answer(c.request, answer)


@routes.post(
    "/build/session",
    query={"id": "names it to the build", "method": "path of a call that the client answers; may be repeated"},
    stream="application/vnd.docker.raw-stream",
)
async def session(c: Context) -> web.StreamResponse:
    """Open a connection, upgraded to h2c, by which the builder asks its client during a build."""
    if c.request.headers.get("Upgrade", "").lower() != "h2c":
        raise InvalidArgument("a session is a connection that is upgraded to h2c", hint="send Upgrade: h2c")
    given = c.request.query
    if not given.get("id"):
        raise InvalidArgument("a session needs an id", hint="make one up, and name it to the build")
    if any(not text.isascii() or not text.isprintable() for text in given.values()):
        raise InvalidArgument("a session's id and methods are printable characters of ASCII")
    headers = [("X-Docker-Expose-Session-Uuid", given["id"]), ("X-Docker-Expose-Session-Name", "hyperctl")]
    headers += [("X-Docker-Expose-Session-Grpc-Method", method) for method in given.getall("method", [])]
    peer = Hijacked(c.request, "application/vnd.docker.raw-stream", "h2c")
    await c.engine.builds.pass_through("/session", headers, peer)
    return peer


@routes.post("/build/prune", query={"all": "also what was used lately"})
async def prune(c: Context) -> Freed:
    """Remove what the build cache has and no build uses."""
    return Freed(freed=await c.engine.builds.cache.free(everything=c.flag("all")))


@routes.post("/build/stop")
async def stop(c: Context) -> None:
    """End the builder's virtual machine; the next build starts another, with the cache."""
    await c.engine.builds.machine.stop()
