# SPDX-License-Identifier: Apache-2.0
"""What was used, over REST."""

from __future__ import annotations

from typing import cast

from aiohttp import web

from ..engine.metering.exposition import CONTENT_TYPE
from ..engine.metering.intervals import this_month
from ..engine.metering.sums import By
from ..model.cluster import LedgerPart
from ..model.metering import LedgerCheck, Usage
from .router import Context, Routes

routes = Routes()


@routes.get(
    "/usage",
    query={
        "since": "from then on: RFC 3339 or seconds since the epoch; the beginning of this month, where it is left out",
        "until": "until then; now, where it is left out",
        "by": "divided by these, with commas between them: organisation, project, size, day",
        "organisation": "of all projects of this one; else of the project that the request is for",
    },
    also=("audit",),
    anywhere=True,
)
async def usage(c: Context) -> Usage:
    """What was used, by kind; what is used now counts until now."""
    since = c.moment("since")
    by = cast(list[By], [b for b in c.text("by").split(",") if b])
    begin = this_month() if since is None else since
    return c.engine.accounts.usage(begin, c.moment("until"), by, c.text("organisation"))


@routes.get("/usage/metrics", scope="audit", stream="text/plain")
async def metrics(c: Context) -> web.Response:
    """What was used this month, accounts, and what pods with an egress policy reached and tried, for Prometheus."""
    told = await c.engine.accounts.metrics(c.engine.monitor.egress())
    return web.Response(body=told.encode(), headers={"Content-Type": CONTENT_TYPE})


@routes.get("/usage/entries", query={"after": "the number of the last entry that is known; 0 for none"}, scope="audit")
async def entries(c: Context) -> LedgerPart:
    """What projects of a control daemon's have used on this host: entries of its ledger, a thousand at most."""
    return c.engine.accounts.telling.part(c.number("after", 0) or 0)


@routes.get("/usage/check", scope="admin")
async def check(c: Context) -> LedgerCheck:
    """Count the ledger anew, and compare."""
    return await c.engine.accounts.check()
