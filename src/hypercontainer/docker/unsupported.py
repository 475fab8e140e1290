# SPDX-License-Identifier: Apache-2.0
"""Parts of the Engine API that are not there: each is answered with what is missing."""

from __future__ import annotations

from ..errors import HyperError, NotFound, Unavailable, Unsupported
from .router import Call, Handler, Routes

routes = Routes()
_SWARM = "swarm", "services", "tasks", "nodes", "secrets", "configs"
_METHODS = ("GET", "POST", "PUT", "DELETE")
_CLUSTER = "This node is not a swarm manager: HyperContainer has no swarm, a cluster is Kubernetes' concern"


def _refuses(kind: type[HyperError], message: str) -> Handler:
    async def refuse(_: Call) -> None:
        raise kind(message)  # one for each: an error that is raised again keeps all requests that it was raised for

    return refuse


def _add(path: str, kind: type[HyperError], message: str) -> None:
    for register in (routes.get, routes.post, routes.put, routes.delete):
        register(path, scope="read")(_refuses(kind, message))


for _part in _SWARM:
    # Docker's own status outside a swarm: clients that only look (compose, portainer) take it for "no swarm here".
    for _path in (f"/{_part}", f"/{_part}/{{rest:.*}}"):
        _add(_path, Unavailable, _CLUSTER)


@routes.get("/plugins")
async def plugins(_: Call) -> list[str]:
    """None."""
    return []


@routes.get("/plugins/{name:.+}/json")
async def plugin(c: Call) -> None:
    """:raise NotFound: `docker inspect` of any name asks here at last."""
    raise NotFound(f'plugin "{c.name}" not found')


for _path in ("/plugins", "/plugins/{rest:.*}"):
    _add(_path, Unsupported, "HyperContainer has no plugins of Docker's")
for _path in ("/containers/{name}/checkpoints", "/containers/{name}/checkpoints/{rest:.*}"):
    _add(_path, Unsupported, "HyperContainer has no checkpoints of containers")
