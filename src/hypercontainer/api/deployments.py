# SPDX-License-Identifier: Apache-2.0
"""Deployments over REST."""

from __future__ import annotations

from ..model.deployments import DeploymentInfo, DeploymentRequest, DeploymentUpdate
from .router import Context, Routes

routes = Routes()
_ID = "/deployments/{id}"


@routes.post("/deployments", body=DeploymentRequest, status=201)
async def create(c: Context) -> DeploymentInfo:
    """Make a deployment: replicas of a container behind one address. The answer does not wait for them."""
    return c.engine.deployments.create(await c.body(DeploymentRequest))


@routes.get("/deployments")
async def list_(c: Context) -> list[DeploymentInfo]:
    """List deployments, with their replicas."""
    return c.engine.deployments.all()


@routes.get(_ID)
async def inspect(c: Context) -> DeploymentInfo:
    """Inspect a deployment, with its replicas."""
    return c.engine.deployments.info(c.id)


@routes.post(f"{_ID}/update", body=DeploymentUpdate)
async def update(c: Context) -> DeploymentInfo:
    """Change a deployment; another container replaces its replicas. The answer does not wait for that."""
    return c.engine.deployments.update(c.id, await c.body(DeploymentUpdate))


@routes.post(f"{_ID}/rollback")
async def roll_back(c: Context) -> DeploymentInfo:
    """Make the container again what it was before the last update."""
    return c.engine.deployments.roll_back(c.id)


@routes.delete(_ID)
async def remove(c: Context) -> None:
    """Remove a deployment, with its replicas."""
    await c.engine.keeper.remove(c.id)
