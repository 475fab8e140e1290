# SPDX-License-Identifier: Apache-2.0
"""Named volumes over REST."""

from __future__ import annotations

from ..model.pods import VolumeSpec
from ..model.status import Pruned, Volume, VolumeInfo
from .router import Context, Route


async def create(c: Context) -> Volume:
    return await c.engine.volumes.create(await c.body(VolumeSpec))


async def list_(c: Context) -> list[VolumeInfo]:
    return await c.engine.volumes.all()


async def inspect(c: Context) -> VolumeInfo:
    return await c.engine.volumes.info(c.engine.registry.volume(c.id))


async def remove(c: Context) -> None:
    await c.engine.volumes.remove(c.id, force=c.flag("force"))


async def prune(c: Context) -> Pruned:
    return await c.engine.volumes.prune(everything=c.flag("all"))


ROUTES = [
    Route("POST", "/volumes", create, "Create a named volume", body=VolumeSpec, result=Volume, status=201),
    Route("GET", "/volumes", list_, "List volumes", result=list[VolumeInfo]),
    Route(
        "POST",
        "/volumes/prune",
        prune,
        "Remove volumes that no pod has",
        {"all": "those with a name, too"},
        result=Pruned,
    ),
    Route("GET", "/volumes/{id}", inspect, "Inspect a volume", result=VolumeInfo),
    Route("DELETE", "/volumes/{id}", remove, "Remove a volume", {"force": "it need not exist"}),
]
