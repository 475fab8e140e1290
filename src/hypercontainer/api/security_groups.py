# SPDX-License-Identifier: Apache-2.0
"""Security groups, over REST."""

from __future__ import annotations

from ..model.security_groups import (
    Membership,
    SecurityGroup,
    SecurityGroupInfo,
    SecurityGroupSpec,
    SecurityGroupUpdate,
)
from ..model.status import Pod
from .router import Context, Routes

routes = Routes()
_ID = "/security-groups/{id}"


@routes.post("/security-groups", body=SecurityGroupSpec, status=201)
async def create(c: Context) -> SecurityGroup:
    """Make a security group."""
    return c.engine.security_groups.create(await c.body(SecurityGroupSpec))


@routes.get("/security-groups")
async def list_(c: Context) -> list[SecurityGroupInfo]:
    """List security groups, with the pods in them."""
    return c.engine.security_groups.all()


@routes.get(_ID)
async def inspect(c: Context) -> SecurityGroupInfo:
    """Inspect a security group, with the pods in it."""
    return c.engine.security_groups.info(c.id)


@routes.post(f"{_ID}/update", body=SecurityGroupUpdate)
async def update(c: Context) -> SecurityGroupInfo:
    """Give a security group other rules, which are in force when this is answered."""
    return await c.engine.security_groups.update(c.id, await c.body(SecurityGroupUpdate))


@routes.post(f"{_ID}/attach", body=Membership)
async def attach(c: Context) -> Pod:
    """Put a pod into a security group, also while it runs."""
    return await c.engine.security_groups.attach(c.id, (await c.body(Membership)).pod)


@routes.post(f"{_ID}/detach", body=Membership)
async def detach(c: Context) -> Pod:
    """Take a pod out of a security group, also while it runs."""
    return await c.engine.security_groups.detach(c.id, (await c.body(Membership)).pod)


@routes.delete(_ID)
async def remove(c: Context) -> None:
    """Remove a security group that no pod is in."""
    await c.engine.security_groups.remove(c.id)
