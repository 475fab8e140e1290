# SPDX-License-Identifier: Apache-2.0
"""An aiohttp application as each front end has one: it knows who asks, writes the audit log, and bounds bodies."""

from __future__ import annotations

from aiohttp import web
from aiohttp.typedefs import Middleware

from ..engine.engine import Engine
from .auditing import AUDIT, audited, prepared
from .bodies import BODIES, BODY_MAX, Bodies
from .identity import ADMIT, IDENTITY, Identity, identified


def application(
    engine: Engine, identity: Identity | None, errors: Middleware, *, knows_callers: bool = True
) -> web.Application:
    """Without routes yet. `identity` says by what callers are known, `errors` makes answers of what is raised.

    Without `knows_callers` the application says itself who asks.
    """
    # What a handler raises is told, and logged, while it is known who asks; who is not known is told outside.
    known = [identified, errors] if knows_callers else []
    app = web.Application(middlewares=[audited, errors, *known], client_max_size=BODY_MAX)
    app[BODIES] = Bodies()
    if engine.audit:
        app[AUDIT] = engine.audit
    app[ADMIT] = engine.registry.quotas.admit
    app[IDENTITY] = identity or Identity(engine.tokens, entry=engine.tenancy.entry)
    app.on_response_prepare.append(prepared)
    return app
