# SPDX-License-Identifier: Apache-2.0
"""The VM factory over REST."""

from __future__ import annotations

from ..model.factory import Drained, FactoryStatus, WarmRequest
from ..serving.identity import require_of_host
from .router import Context, Routes

routes = Routes()


@routes.get("/factory")
async def status(c: Context) -> FactoryStatus:
    """Templates, and machines that wait."""
    require_of_host()
    return c.engine.factory.status()


@routes.post("/factory/warm", body=WarmRequest)
async def warm(c: Context) -> FactoryStatus:
    """Make a template, and let machines wait."""
    require_of_host()
    return await c.engine.warm(await c.body(WarmRequest))


@routes.post("/factory/drain", query={"templates": "forget the templates too"})
async def drain(c: Context) -> Drained:
    """End the machines that wait."""
    require_of_host()
    return Drained(ended=await c.engine.factory.drain(templates=c.flag("templates")))
