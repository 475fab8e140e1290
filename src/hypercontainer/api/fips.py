# SPDX-License-Identifier: Apache-2.0
"""Floating addresses, over REST."""

from __future__ import annotations

from ..model.fips import FipInfo, FipName, FipRequest, FipTarget
from .router import Context, Routes

routes = Routes()
_ID = "/fips/{id}"


@routes.post("/fips", body=FipRequest, status=201)
async def allocate(c: Context) -> FipInfo:
    """Allocate a floating address."""
    return c.engine.fips.allocate(await c.body(FipRequest))


@routes.get("/fips")
async def list_(c: Context) -> list[FipInfo]:
    """List floating addresses."""
    return c.engine.fips.all()


@routes.get(_ID)
async def inspect(c: Context) -> FipInfo:
    """Inspect a floating address."""
    return c.engine.fips.told(c.engine.fips.find(c.id))


@routes.post(f"{_ID}/attach", body=FipTarget)
async def attach(c: Context) -> FipInfo:
    """Give it to a pod or container, at once and whenever that runs."""
    return await c.engine.fips.attach(c.id, (await c.body(FipTarget)).pod)


@routes.post(f"{_ID}/detach")
async def detach(c: Context) -> FipInfo:
    """Take it from its pod; connections by it are cut."""
    return await c.engine.fips.detach(c.id)


@routes.post(f"{_ID}/name", body=FipName)
async def rename(c: Context) -> FipInfo:
    """Give it another name."""
    return c.engine.fips.rename(c.id, (await c.body(FipName)).name)


@routes.delete(_ID)
async def release(c: Context) -> None:
    """Release a floating address that no pod has."""
    c.engine.fips.release(c.id)
