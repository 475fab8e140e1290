# SPDX-License-Identifier: Apache-2.0
"""The list of containers, what is removed of it, and what each takes of the disk."""

from __future__ import annotations

from typing import Any

from ..engine.engine import Engine
from ..engine.usage import PRUNE_FILTERS
from ..model.container_filters import NAMES
from ..model.status import Container
from . import container_view as view
from .router import Call, Routes

routes = Routes()


@routes.get("/containers/json")
async def list_(c: Call) -> list[dict[str, Any]]:
    """Newest first; without `all` those that run."""
    limit = c.number("limit", 0) or 0
    filters = c.filters(NAMES)
    found = c.engine.listing.containers(filters, everything=c.flag("all"), limit=limit)
    shown = [view.summary(c.engine, x) for x in found]
    if c.flag("size"):
        for x, document in zip(found, shown, strict=True):
            document |= await sizes(c.engine, x)
    return shown


async def sizes(engine: Engine, c: Container) -> dict[str, int]:
    """Bytes of its own disk, and of that and its image's together."""
    found = await engine.listing.size(c.id)
    return {"SizeRw": found.own, "SizeRootFs": found.virtual}


@routes.post("/containers/prune")
async def prune(c: Call) -> dict[str, Any]:
    """Those that do not run."""
    filters = c.filters((*PRUNE_FILTERS, "label!"))
    denied = [f"!{value}" for value in filters.pop("label!", [])]
    if denied:
        filters["label"] = [*filters.get("label", []), *denied]
    gone = await c.engine.usage.prune_containers(filters)
    return {"ContainersDeleted": gone.removed, "SpaceReclaimed": gone.freed}
