# SPDX-License-Identifier: Apache-2.0
"""The aiohttp application."""

from __future__ import annotations

import msgspec
from aiohttp import web

from .. import API_VERSION
from ..engine.engine import Engine
from . import containers, factory, images, networks, pods, system, volumes
from .openapi import document
from .router import bind, errors_to_json, identified

_BODY_MAX = 16 << 20  # bytes of a JSON body; archives are streamed and have no limit
ROUTES = [
    *system.routes.all,
    *containers.routes.all,
    *pods.routes.all,
    *volumes.routes.all,
    *networks.routes.all,
    *images.routes.all,
    *factory.routes.all,
]


def build(engine: Engine) -> web.Application:
    """All routes below /v1, and the document that describes them."""
    app = web.Application(middlewares=[identified, errors_to_json], client_max_size=_BODY_MAX)
    for route in ROUTES:
        app.router.add_route(route.method, f"/{API_VERSION}{route.path}", bind(route, engine))
    openapi = msgspec.json.encode(document(ROUTES))

    async def serve_document(_: web.Request) -> web.Response:
        return web.Response(body=openapi, content_type="application/json")

    app.router.add_get(f"/{API_VERSION}/openapi.json", serve_document)
    return app
