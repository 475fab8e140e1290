# SPDX-License-Identifier: Apache-2.0
"""Named volumes over REST."""

from __future__ import annotations

from ..model.filters import decode_filters
from ..model.pods import VolumeSpec
from ..model.status import Pruned, Volume, VolumeInfo
from ..model.thing_filters import VOLUME_FILTERS, VOLUME_PRUNE_FILTERS
from .router import Context, Routes

routes = Routes()


@routes.post("/volumes", body=VolumeSpec, status=201)
async def create(c: Context) -> Volume:
    """Create a named volume, empty, or as a snapshot of one."""
    return await c.engine.volume_snapshots.create_volume(await c.body(VolumeSpec))


@routes.get("/volumes", query={"filters": f"JSON object of lists: {', '.join(VOLUME_FILTERS)}"})
async def list_(c: Context) -> list[VolumeInfo]:
    """List volumes."""
    return await c.engine.volumes.all(decode_filters(c.text("filters"), VOLUME_FILTERS))


@routes.get("/volumes/{id}")
async def inspect(c: Context) -> VolumeInfo:
    """Inspect a volume."""
    return await c.engine.volumes.info(c.engine.registry.volume(c.id))


@routes.delete("/volumes/{id}", query={"force": "it need not exist"})
async def remove(c: Context) -> None:
    """Remove a volume."""
    await c.engine.volumes.remove(c.id, force=c.flag("force"))


@routes.post(
    "/volumes/prune",
    query={
        "all": "those with a name, too",
        "filters": f"JSON object of lists: {', '.join(VOLUME_PRUNE_FILTERS)}",
    },
)
async def prune(c: Context) -> Pruned:
    """Remove volumes that no pod has."""
    filters = decode_filters(c.text("filters"), VOLUME_PRUNE_FILTERS)
    return await c.engine.volumes.prune(everything=c.flag("all"), filters=filters)
