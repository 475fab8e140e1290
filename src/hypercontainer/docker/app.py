# SPDX-License-Identifier: Apache-2.0
"""The aiohttp application of Docker's Engine API."""

from __future__ import annotations

import platform

from aiohttp import web

from ..engine.engine import Engine
from ..serving.application import application
from ..serving.identity import Identity
from . import (
    archives,
    attaching,
    builds,
    commit,
    container_list,
    container_reports,
    containers,
    df,
    events,
    execs,
    image_transfer,
    images,
    info,
    logs,
    networks,
    registries,
    stats,
    system,
    unsupported,
    volumes,
    websocket,
)  # fmt: skip
from .faults import errors_to_messages
from .router import bind
from .versions import ENGINE, NEWEST

# The order counts where two match: `/images/json` is before `/images/{name}/json`.
ROUTES = [
    *system.routes.all,
    *info.routes.all,
    *df.routes.all,
    *image_transfer.routes.all,
    *images.routes.all,
    *registries.routes.all,
    *volumes.routes.all,
    *networks.routes.all,
    *commit.routes.all,
    *builds.routes.all,
    *container_list.routes.all,
    *containers.routes.all,
    *container_reports.routes.all,
    *archives.routes.all,
    *attaching.routes.all,
    *websocket.routes.all,
    *execs.routes.all,
    *events.routes.all,
    *logs.routes.all,
    *stats.routes.all,
    *unsupported.routes.all,
]


def build(engine: Engine, identity: Identity | None = None) -> web.Application:
    """All routes, with a version before them and without; `identity` says by what callers are known."""
    app = application(engine, identity, errors_to_messages)
    app.on_response_prepare.append(_introduce)
    for route in ROUTES:
        handler = bind(route, engine)
        app.router.add_route(route.method, r"/v{version:\d+\.\d+}" + route.path, handler)
        app.router.add_route(route.method, route.path, handler)
    return app


async def _introduce(_: web.Request, response: web.StreamResponse) -> None:
    """What Docker says in each answer; a client reads from the first one which version both speak."""
    response.headers["Api-Version"] = str(NEWEST)
    response.headers["Ostype"] = platform.system().lower()
    response.headers["Docker-Experimental"] = "false"
    response.headers["Server"] = f"Docker/{ENGINE} (HyperContainer)"
