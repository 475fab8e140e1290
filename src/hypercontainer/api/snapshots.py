# SPDX-License-Identifier: Apache-2.0
"""Snapshots and forks of pods over REST."""

from __future__ import annotations

from aiohttp import web

from ..model.snapshots import ForkRequest, RestoreRequest, SnapshotInfo, SnapshotRequest
from ..model.status import PodDetails
from ..serving.streaming import send_tar
from .router import Context, Routes

routes = Routes()
_ID = "/snapshots/{id}"


@routes.post("/snapshots", body=SnapshotRequest, status=201)
async def create(c: Context) -> SnapshotInfo:
    """Save a pod that runs, and keep it; the pod runs on."""
    return await c.engine.snapshots.create(await c.body(SnapshotRequest))


@routes.get("/snapshots")
async def list_(c: Context) -> list[SnapshotInfo]:
    """List saved pods, newest first."""
    return c.engine.snapshots.all()


@routes.post("/snapshots/import", query={"name": "of the snapshot, its own if none"}, status=201)
async def import_(c: Context) -> SnapshotInfo:
    """Keep a saved pod out of an archive, the body, that `export` wrote; it takes the scope `host`."""
    return await c.engine.transfers.import_(c.request.content.iter_any(), c.text("name"))


@routes.get(f"{_ID}/export", stream="application/zstd", scope="operate")
async def export(c: Context) -> web.StreamResponse:
    """A saved pod as an archive, which `import` takes, with all that was in its memory."""
    return await send_tar(c.request, c.engine.transfers.export(c.id), "application/zstd")


@routes.get(_ID)
async def inspect(c: Context) -> SnapshotInfo:
    """Inspect a saved pod."""
    return c.engine.snapshots.info(c.id)


@routes.delete(_ID)
async def remove(c: Context) -> SnapshotInfo:
    """Remove a saved pod; pods that went on from it have their own."""
    return await c.engine.snapshots.remove(c.id)


@routes.post(f"{_ID}/restore", body=RestoreRequest, status=201)
async def restore(c: Context) -> PodDetails:
    """Make a pod that goes on where the saved one was."""
    pod = await c.engine.snapshots.restore(c.id, await c.body(RestoreRequest))
    return c.engine.pods.details(pod.id)


@routes.post("/pods/{id}/fork", body=ForkRequest, status=201)
async def fork(c: Context) -> list[PodDetails]:
    """Make pods that go on where one that runs is now; it runs on."""
    made = await c.engine.snapshots.fork(c.id, await c.body(ForkRequest))
    return [c.engine.pods.details(pod.id) for pod in made]
