# SPDX-License-Identifier: Apache-2.0
"""Snapshots of volumes over REST."""

from __future__ import annotations

from aiohttp import web

from ..images.progress import Progress
from ..model.filters import decode_filters
from ..model.thing_filters import VOLUME_SNAPSHOT_FILTERS
from ..model.volume_snapshots import VolumeSnapshot, VolumeSnapshotRequest
from .progress import send_progress
from .router import Context, Routes

routes = Routes()
_ID = "/volume-snapshots/{id}"


@routes.post(
    "/volume-snapshots", body=VolumeSnapshotRequest, result=VolumeSnapshot, status=201,
    query={"progress": "tell line by line how far it is; the last line is {\"snapshot\": …}, or the error"},
)  # fmt: skip
async def create(c: Context) -> VolumeSnapshot | web.StreamResponse:
    """Keep a volume as it is now; pods that have it go on."""
    request, progress = await c.body(VolumeSnapshotRequest), Progress()

    async def made() -> VolumeSnapshot:
        try:
            return await c.engine.volume_snapshots.create(request, progress)
        finally:
            progress.finish()

    if c.flag("progress"):
        return await send_progress(c, progress, made(), lambda snapshot: {"snapshot": snapshot})
    return await made()


@routes.get("/volume-snapshots", query={"filters": f"JSON object of lists: {', '.join(VOLUME_SNAPSHOT_FILTERS)}"})
async def list_(c: Context) -> list[VolumeSnapshot]:
    """List snapshots of volumes, newest first."""
    return c.engine.volume_snapshots.all(decode_filters(c.text("filters"), VOLUME_SNAPSHOT_FILTERS))


@routes.get(_ID)
async def inspect(c: Context) -> VolumeSnapshot:
    """Inspect a snapshot of a volume."""
    return c.engine.volume_snapshots.info(c.id)


@routes.delete(_ID)
async def remove(c: Context) -> None:
    """Remove a snapshot of a volume; volumes that were made of it have their own."""
    await c.engine.volume_snapshots.remove(c.id)
