# SPDX-License-Identifier: Apache-2.0
"""The audit log over REST: who asked for what in a project, or of the host."""

from __future__ import annotations

from ..engine.principal import current
from ..errors import InvalidArgument
from ..model.audit import AuditEntry
from ..serving.identity import require_of_host
from .router import Context, Routes

routes = Routes()
_LIMIT, _LIMIT_MAX = 100, 10_000


@routes.get("/audit", query={"limit": f"so many, {_LIMIT} by default, {_LIMIT_MAX} at most"}, scope="audit")
async def read(c: Context) -> list[AuditEntry]:
    """List the latest requests for the project, newest first; without one, all of the host's."""
    limit = c.number("limit", _LIMIT) or 0
    if not 0 < limit <= _LIMIT_MAX:
        raise InvalidArgument(f"limit={limit} is not from 1 to {_LIMIT_MAX}")
    tenant = current().tenant
    if not tenant:
        require_of_host()
    return await c.engine.read_audit(tenant, limit)
