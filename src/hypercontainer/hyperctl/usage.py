# SPDX-License-Identifier: Apache-2.0
"""usage: what was used, and how long."""

from __future__ import annotations

import click

from ..client.api import Query
from ..model.metering import GIB_HOUR, LedgerCheck, Usage, UsageRow
from ..model.units import format_size
from .context import client
from .output import print_json, show

_BY = ("organisation", "project", "size", "day")


@click.command()
@click.option("--since", default="", help="From then on; the beginning of this month, where nothing is said.")
@click.option("--until", default="", help="Until then; now, where nothing is said.")
@click.option("--by", type=click.Choice(_BY), multiple=True, help="Divided by this; may be repeated.")
@click.option("--organisation", default="", metavar="NAME", help="Of all its projects.")
@click.option("-f", "--format", "format_", default="", metavar="json|TEMPLATE", help="How to print.")
@click.option("--check", is_flag=True, help="Count the ledger anew instead, and say whether it is whole.")
def usage(since: str, until: str, by: tuple[str, ...], organisation: str, format_: str, check: bool) -> int:
    """What was used: seconds of pods and floating addresses, storage by its size and time, bytes that were sent.

    What is used now counts until now. Times are 2026-01-31T12:00:00Z, seconds since the epoch, or 24h: before now.
    """
    if check:
        return _check()
    query: Query = {"since": since, "until": until, "by": ",".join(by), "organisation": organisation}
    found = client().call(Usage, "GET", "/usage", query=query)
    if format_ == "json":
        print_json(found)
        return 0
    fields = [b for b in _BY if b in by]

    def cells(row: UsageRow) -> list[str]:
        starts = str(row.starts) if row.kind == "pod" else ""
        return [*(getattr(row, f) or "-" for f in fields), row.kind, amount(row), starts]

    show(found.rows, format_, [*(f.upper() for f in fields), "KIND", "USED", "ENDED RUNS"], cells)
    return 0


def amount(row: UsageRow) -> str:
    """In the unit that people read: seconds, GiB-hours, bytes."""
    if row.unit == "bytes":
        return format_size(row.quantity)
    if row.unit == "ms":
        return f"{row.quantity // 1000}.{row.quantity % 1000:03} s"
    return f"{row.quantity / GIB_HOUR:.4f} GiB-hours"


def _check() -> int:
    found = client().call(LedgerCheck, "GET", "/usage/check")
    print(f"{found.entries} entries")
    for sentence in found.wrong:
        print(sentence)
    return int(bool(found.wrong))
