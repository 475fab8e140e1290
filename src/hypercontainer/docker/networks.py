# SPDX-License-Identifier: Apache-2.0
"""Networks."""

from __future__ import annotations

from typing import Any

import msgspec
from aiohttp import web

from ..engine.engine import Engine
from ..errors import Conflict, NotFound, PermissionDenied, Unsupported
from ..model.filters import Filters, with_unwanted
from ..model.network import DEFAULT_NETWORK
from ..model.network import Network as Record
from ..model.thing_filters import NETWORK_FILTERS, network_fits
from .container_bodies import Endpoint
from .container_networking import request
from .network_bodies import CreateNetwork, Disconnect, read_connect, specification
from .network_view import PREDEFINED, Network, docker_id, id_of, members, predefined, view
from .router import Call, Routes

routes = Routes()


class Created(msgspec.Struct, kw_only=True, rename="pascal"):
    """The new one."""

    id: str
    warning: str = ""


def records(engine: Engine) -> list[Record]:
    """Networks of this host; the daemon's own is there where containers get it that name none."""
    own = [engine.networks.find(DEFAULT_NETWORK)] if engine.settings.network.default == DEFAULT_NETWORK else []
    return [*own, *(i.network for i in engine.networks.all() if i.network.name not in PREDEFINED)]


def find(engine: Engine, key: str) -> Record | str:
    """By name, id or the id's beginning; of one that has no record its name.

    :raise NotFound: there is none.
    """
    found = records(engine)
    known = {r.name for r in found}
    for name in PREDEFINED:
        if name not in known and (key == name or (len(key) >= 4 and id_of(name).startswith(key))):
            return name
    if record := next((r for r in found if key == r.name), None):
        return record
    if len(key) >= 4 and (record := next((r for r in found if docker_id(r).startswith(key)), None)):
        return record
    raise NotFound(f"network {key} not found")


def shown(engine: Engine, found: Record | str) -> Network:
    """With the containers in it."""
    if isinstance(found, str):
        return predefined(found)
    pods = ((p, engine.registry.members(p.id)) for p in engine.registry.attached(found))
    return msgspec.structs.replace(view(found), containers=dict(members(found, pods)))


@routes.get("/networks")
async def list_(c: Call) -> list[Network]:
    """All that the filters let through, without who is in them."""
    filters = c.filters(NETWORK_FILTERS)
    found = records(c.engine)
    known = {r.name for r in found}
    every = [(predefined(name), False) for name in PREDEFINED if name not in known]
    every += [(view(record), bool(c.engine.registry.attached(record))) for record in found]
    return [network for network, used in every if _fits(network, filters, used=used)]


def _fits(n: Network, filters: Filters, *, used: bool) -> bool:
    """:raise InvalidArgument: a filter's value is none."""
    return network_fits(
        filters, name=n.name, id_=n.id, driver=n.driver, labels=n.labels, builtin=n.name in PREDEFINED,
        used=used,
    )  # fmt: skip


@routes.get("/networks/{name}")
async def inspect(c: Call) -> Network:
    """One; clients of swarms ask for it by its scope, too."""
    if c.text("scope") not in ("", "local"):
        raise NotFound(f"network {c.name} not found")
    return shown(c.engine, find(c.engine, c.name))


@routes.post("/networks/create", status=201)
async def create(c: Call) -> Created:
    """A network with a bridge of its own on this host."""
    asked = await c.body(CreateNetwork)
    if asked.name in PREDEFINED:
        raise PermissionDenied(f"operation is not permitted on predefined {asked.name} network")
    wanted = specification(asked)
    if any(r.name == wanted.name for r in records(c.engine)):
        raise Conflict(f"network with name {wanted.name} already exists")
    return Created(id=(await c.engine.networks.create(wanted)).id)


@routes.delete("/networks/{name}")
async def remove(c: Call) -> None:
    """One that no container is in."""
    found = find(c.engine, c.name)
    if isinstance(found, str) or found.name in PREDEFINED:
        name = found if isinstance(found, str) else found.name
        raise PermissionDenied(f"{name} is a pre-defined network and cannot be removed")
    await c.engine.networks.remove(found.id)


@routes.post("/networks/{name}/connect")
async def connect(c: Call) -> web.Response:
    """Bring a container into a network, at once where it runs."""
    body = read_connect(await c.body(dict[str, Any]))
    network, pod = _both(c, body.container)
    if any(a.is_of(network) for a in c.engine.registry.pod(pod).attachments):
        name = c.engine.registry.container(body.container).name
        raise PermissionDenied(f"endpoint with name {name} already exists in network {network.name}")
    endpoint = body.endpoint_config or Endpoint()
    await c.engine.connect(pod, request(network.name, endpoint, endpoint.mac_address))
    return web.Response()


@routes.post("/networks/{name}/disconnect")
async def disconnect(c: Call) -> web.Response:
    """Take it out."""
    container = (await c.body(Disconnect)).container
    network, pod = _both(c, container)
    if all(p.id != pod for p in c.engine.registry.attached(network)):
        id_ = c.engine.registry.container(container).id
        raise PermissionDenied(f"container {id_} is not connected to network {network.name}")
    await c.engine.disconnect(pod, network.name)
    return web.Response()


def _both(c: Call, container: str) -> tuple[Record, str]:
    """The network, and the container's pod.

    :raise NotFound: there is no such container. :raise Unsupported: it is a network that no container comes into, or
    leaves, later on.
    """
    network = find(c.engine, c.name)
    if isinstance(network, str):
        raise Unsupported(f"no container joins or leaves network {network} when it is there: create it anew")
    try:
        return network, c.engine.registry.container(container).pod
    except NotFound as error:
        raise NotFound(f"No such container: {container}") from error


@routes.post("/networks/prune")
async def prune(c: Call) -> dict[str, list[str] | None]:
    """Those that no container is in."""
    gone = await c.engine.networks.prune(with_unwanted(c.filters(("until", "label", "label!"))))
    return {"NetworksDeleted": gone.removed or None}
