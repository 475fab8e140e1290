# SPDX-License-Identifier: Apache-2.0
"""What a project used this month, and what its organisation pays for it."""

from __future__ import annotations

from collections import defaultdict
from datetime import UTC, datetime

from aiohttp import web
from msgspec.structs import replace

from ..engine.metering.billing.documents import as_csv, as_pdf
from ..engine.metering.intervals import this_month
from ..engine.principal import current
from ..errors import HyperError, NotFound
from ..model.billing import AccountInfo
from ..model.metering import GIB_HOUR, UNITS, UsageRow
from ..model.moments import SECOND
from ..model.units import format_size
from ..sys import clock, tasks
from .call import Call, Pages

pages = Pages()
_HOUR = 3_600_000  # ms
_HEIGHT = 100  # of the chart, in its own unit


@pages.get("/usage", "read", "audit")
async def show(c: Call) -> web.StreamResponse:
    """By kind and size, hours of pods by day; and the account, for whom it concerns."""
    now = datetime.fromtimestamp(clock.now_ns() / SECOND, UTC)
    begin = this_month()
    found = c.engine.accounts.usage(begin, None, ["size", "day"]).rows
    return c.page(
        "usage.html", title="Usage", month=f"{now:%B %Y}", rows=[(r, amount(r)) for r in _of_all_days(found)],
        bars=_bars(found, now.day), account=_account(c),
    )  # fmt: skip


@pages.get("/usage/invoice.{name}", scope="audit")
async def invoice(c: Call) -> web.StreamResponse:
    """Of this month, as it would be now."""
    found = c.engine.accounts.invoice(_organisation(c), "")
    kind = c.name
    if kind == "csv":
        made = web.Response(text=as_csv(found), content_type="text/csv")
    elif kind == "pdf":
        made = web.Response(body=await tasks.in_thread(lambda: as_pdf(found)), content_type="application/pdf")
    else:
        raise NotFound(f"invoices have no format {kind}", hint="choose csv or pdf")
    made.headers["Content-Disposition"] = f'attachment; filename="invoice-{found.month}.{kind}"'
    return made


def _of_all_days(rows: list[UsageRow]) -> list[UsageRow]:
    """Added up, by what they are of."""
    sums: dict[tuple[str, str], UsageRow] = {}
    for row in rows:
        key = (row.kind, row.size)
        before = sums.get(key, replace(row, day="", quantity=0, starts=0))
        sums[key] = replace(before, quantity=before.quantity + row.quantity, starts=before.starts + row.starts)
    return sorted(sums.values(), key=lambda r: (list(UNITS).index(r.kind), r.size))


def amount(row: UsageRow) -> str:
    """In the unit that people read."""
    if row.unit == "bytes":
        return format_size(row.quantity)
    if row.unit == "ms":
        return f"{row.quantity / _HOUR:.2f} hours"
    return f"{row.quantity / GIB_HOUR:.2f} GiB-hours"


def _bars(rows: list[UsageRow], days: int) -> list[tuple[int, float, str]]:
    """Of each day of the month: its number, how high it is in the chart, and its hours of pods."""
    hours: dict[int, float] = defaultdict(float)
    for row in rows:
        if row.kind == "pod":
            hours[int(row.day[-2:])] += row.quantity / _HOUR
    most = max(hours.values(), default=0.0) or 1.0
    return [(day, _HEIGHT * hours[day] / most, f"{hours[day]:.2f} hours") for day in range(1, days + 1)]


def _organisation(c: Call) -> str:
    project = c.engine.tenants.project(current().tenant)
    if project is None:
        raise NotFound("there are accounts of organisations only, and this is in none", hint="choose a project")
    return project.organisation


def _account(c: Call) -> AccountInfo | None:
    """None for whom it does not concern, and where nothing has a price."""
    if current().scopes.isdisjoint(("audit", "admin")):
        return None
    try:
        return c.engine.accounts.account(_organisation(c))
    except HyperError:
        return None
