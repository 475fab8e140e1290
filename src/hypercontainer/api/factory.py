# SPDX-License-Identifier: Apache-2.0
"""The VM factory over REST."""

from __future__ import annotations

from ..model.factory import Drained, FactoryStatus, WarmRequest
from .router import Context, Route


async def status(c: Context) -> FactoryStatus:
    return c.engine.factory.status()


async def warm(c: Context) -> FactoryStatus:
    return await c.engine.warm(await c.body(WarmRequest))


async def drain(c: Context) -> Drained:
    return Drained(ended=await c.engine.factory.drain(templates=c.flag("templates")))


ROUTES = [
    Route("GET", "/factory", status, "Templates, and machines that wait", result=FactoryStatus),
    Route(
        "POST", "/factory/warm", warm, "Make a template, and let machines wait", body=WarmRequest, result=FactoryStatus
    ),
    Route(
        "POST",
        "/factory/drain",
        drain,
        "End the machines that wait",
        {"templates": "forget the templates too"},
        result=Drained,
    ),
]
