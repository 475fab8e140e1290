# SPDX-License-Identifier: Apache-2.0
"""The aiohttp application."""

from __future__ import annotations

import functools

import msgspec
from aiohttp import web

from .. import API_VERSION
from ..engine.engine import Engine
from ..serving.application import application
from ..serving.identity import OPEN, Identity, require
from . import (
    archives,
    audit,
    backups,
    billing,
    builds,
    cluster,
    containers,
    crons,
    deployments,
    factory,
    files,
    fips,
    forwards,
    images,
    logins,
    metering,
    networks,
    pods,
    quotas,
    security_groups,
    snapshots,
    system,
    tenancy,
    tokens,
    volume_snapshots,
    volumes,
)
from .openapi import document
from .router import bind, errors_to_json

ROUTES = [
    *system.routes.all,
    *containers.routes.all,
    *archives.routes.all,
    *files.routes.all,
    *pods.routes.all,
    *forwards.routes.all,
    *snapshots.routes.all,
    *volumes.routes.all,
    *volume_snapshots.routes.all,
    *networks.routes.all,
    *images.routes.all,
    *builds.routes.all,
    *factory.routes.all,
    *quotas.routes.all,
    *crons.routes.all,
    *security_groups.routes.all,
    *fips.routes.all,
    *deployments.routes.all,
    *tokens.routes.all,
    *logins.routes.all,
    *audit.routes.all,
    *tenancy.routes.all,
    *metering.routes.all,
    *cluster.routes.all,
    *billing.routes.all,
    *backups.routes.all,
]


def build(engine: Engine, identity: Identity | None = None) -> web.Application:
    """All routes below /v1, and the document that describes them; `identity` says by what callers are known."""
    app = application(engine, identity, errors_to_json)
    app[OPEN] = frozenset((r.method, f"/{API_VERSION}{r.path}") for r in ROUTES if r.everybody)
    for route in ROUTES:
        app.router.add_route(route.method, f"/{API_VERSION}{route.path}", bind(route, engine))
    openapi = functools.cache(lambda: msgspec.json.encode(document(ROUTES)))  # takes longer than a start should

    async def serve_document(_: web.Request) -> web.Response:
        require("read")
        return web.Response(body=openapi(), content_type="application/json")

    app.router.add_get(f"/{API_VERSION}/openapi.json", serve_document)
    return app
