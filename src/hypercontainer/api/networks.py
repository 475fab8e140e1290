# SPDX-License-Identifier: Apache-2.0
"""Networks over REST."""

from __future__ import annotations

from ..errors import InvalidArgument
from ..model.filters import decode_filters
from ..model.network import Network, NetworkInfo, NetworkRequest, NetworkSpec
from ..model.status import Pod, Pruned
from ..model.thing_filters import NETWORK_FILTERS, NETWORK_PRUNE_FILTERS
from .router import Context, Routes

routes = Routes()


@routes.post("/networks", body=NetworkSpec, status=201)
async def create(c: Context) -> Network:
    """Create a network."""
    return await c.engine.networks.create(await c.body(NetworkSpec))


@routes.get("/networks", query={"filters": f"JSON object of lists: {', '.join(NETWORK_FILTERS)}"})
async def list_(c: Context) -> list[NetworkInfo]:
    """List networks."""
    return c.engine.networks.all(decode_filters(c.text("filters"), NETWORK_FILTERS))


@routes.get("/networks/{id}")
async def inspect(c: Context) -> NetworkInfo:
    """Inspect a network."""
    return c.engine.networks.info(c.engine.networks.find(c.id))


@routes.delete("/networks/{id}")
async def remove(c: Context) -> Network:
    """Remove a network."""
    return await c.engine.networks.remove(c.id)


@routes.post("/networks/prune", query={"filters": f"JSON object of lists: {', '.join(NETWORK_PRUNE_FILTERS)}"})
async def prune(c: Context) -> Pruned:
    """Remove networks that no pod is in."""
    return await c.engine.networks.prune(decode_filters(c.text("filters"), NETWORK_PRUNE_FILTERS))


@routes.post("/pods/{id}/networks", body=NetworkRequest)
async def connect(c: Context) -> Pod:
    """Bring a pod into a network."""
    return await c.engine.connect(c.id, await c.body(NetworkRequest))


@routes.delete("/pods/{id}/networks", query={"network": "which one"})
async def disconnect(c: Context) -> Pod:
    """Take a pod out of a network."""
    if not c.text("network"):
        raise InvalidArgument("query parameter network is missing", hint="name the network")
    return await c.engine.disconnect(c.id, c.text("network"))
