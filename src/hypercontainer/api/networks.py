# SPDX-License-Identifier: Apache-2.0
"""Networks over REST."""

from __future__ import annotations

from ..errors import InvalidArgument
from ..model.network import Network, NetworkInfo, NetworkRequest, NetworkSpec
from ..model.status import Pod, Pruned
from .router import Context, Route


async def create(c: Context) -> Network:
    return await c.engine.networks.create(await c.body(NetworkSpec))


async def list_(c: Context) -> list[NetworkInfo]:
    return c.engine.networks.all()


async def inspect(c: Context) -> NetworkInfo:
    return c.engine.networks.info(c.engine.networks.find(c.id))


async def remove(c: Context) -> Network:
    return await c.engine.networks.remove(c.id)


async def prune(c: Context) -> Pruned:
    return await c.engine.networks.prune()


async def connect(c: Context) -> Pod:
    return await c.engine.connect(c.id, await c.body(NetworkRequest))


async def disconnect(c: Context) -> Pod:
    if not c.text("network"):
        raise InvalidArgument("query parameter network is missing", hint="name the network")
    return await c.engine.disconnect(c.id, c.text("network"))


ROUTES = [
    Route("POST", "/networks", create, "Create a network", body=NetworkSpec, result=Network, status=201),
    Route("GET", "/networks", list_, "List networks", result=list[NetworkInfo]),
    Route("POST", "/networks/prune", prune, "Remove networks that no pod is in", result=Pruned),
    Route("GET", "/networks/{id}", inspect, "Inspect a network", result=NetworkInfo),
    Route("DELETE", "/networks/{id}", remove, "Remove a network", result=Network),
    Route("POST", "/pods/{id}/networks", connect, "Bring a pod into a network", body=NetworkRequest, result=Pod),
    Route(
        "DELETE", "/pods/{id}/networks", disconnect, "Take a pod out of a network", {"network": "which one"}, result=Pod
    ),
]
