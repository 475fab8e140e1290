# SPDX-License-Identifier: Apache-2.0
"""Sizes and quotas over REST."""

from __future__ import annotations

from ..model.quotas import QuotaStatus
from ..model.sizes import Size
from .router import Context, Routes

routes = Routes()


@routes.get("/sizes")
async def sizes(c: Context) -> list[Size]:
    """Machines by name."""
    return list(c.engine.settings.sizes.values())


@routes.get("/quota")
async def quota(c: Context) -> QuotaStatus:
    """What who asks may have, and has."""
    return c.engine.quota()
