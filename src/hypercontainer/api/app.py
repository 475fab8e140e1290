# SPDX-License-Identifier: Apache-2.0
"""The aiohttp application."""

from __future__ import annotations

import msgspec
from aiohttp import web

from .. import API_VERSION
from ..engine.engine import Engine
from . import containers, factory, images, networks, pods, system, tokens, volumes
from .auditing import AUDIT, audited, prepared
from .bodies import BODIES, BODY_MAX, Bodies
from .identity import IDENTITY, Identity, identified, require
from .openapi import document
from .router import bind, errors_to_json

ROUTES = [
    *system.routes.all,
    *containers.routes.all,
    *pods.routes.all,
    *volumes.routes.all,
    *networks.routes.all,
    *images.routes.all,
    *factory.routes.all,
    *tokens.routes.all,
]


def build(engine: Engine, identity: Identity | None = None) -> web.Application:
    """All routes below /v1, and the document that describes them; `identity` says by what callers are known."""
    # What a handler raises is told, and logged, while it is known who asks; who is not known is told outside.
    around = [audited, errors_to_json, identified, errors_to_json]
    app = web.Application(middlewares=around, client_max_size=BODY_MAX)
    app[BODIES] = Bodies()
    if engine.audit:
        app[AUDIT] = engine.audit
    app.on_response_prepare.append(prepared)
    app[IDENTITY] = identity or Identity(engine.tokens)
    for route in ROUTES:
        app.router.add_route(route.method, f"/{API_VERSION}{route.path}", bind(route, engine))
    openapi = msgspec.json.encode(document(ROUTES))

    async def serve_document(_: web.Request) -> web.Response:
        require("read")
        return web.Response(body=openapi, content_type="application/json")

    app.router.add_get(f"/{API_VERSION}/openapi.json", serve_document)
    return app
