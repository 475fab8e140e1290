# SPDX-License-Identifier: Apache-2.0
"""Named volumes over REST."""

from __future__ import annotations

from ..model.pods import VolumeSpec
from ..model.status import Pruned, Volume, VolumeInfo
from .router import Context, Routes

routes = Routes()


@routes.post("/volumes", body=VolumeSpec, status=201)
async def create(c: Context) -> Volume:
    """Create a named volume."""
    return await c.engine.volumes.create(await c.body(VolumeSpec))


@routes.get("/volumes")
async def list_(c: Context) -> list[VolumeInfo]:
    """List volumes."""
    return await c.engine.volumes.all()


@routes.get("/volumes/{id}")
async def inspect(c: Context) -> VolumeInfo:
    """Inspect a volume."""
    return await c.engine.volumes.info(c.engine.registry.volume(c.id))


@routes.delete("/volumes/{id}", query={"force": "it need not exist"})
async def remove(c: Context) -> None:
    """Remove a volume."""
    await c.engine.volumes.remove(c.id, force=c.flag("force"))


@routes.post("/volumes/prune", query={"all": "those with a name, too"})
async def prune(c: Context) -> Pruned:
    """Remove volumes that no pod has."""
    return await c.engine.volumes.prune(everything=c.flag("all"))
