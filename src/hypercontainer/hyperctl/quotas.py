# SPDX-License-Identifier: Apache-2.0
"""size and quota: machines by name, and how much one may have."""

from __future__ import annotations

import click

from ..model.quotas import NAMES, QuotaStatus, write_amount
from ..model.sizes import Size
from ..model.units import format_binary
from .context import client
from .output import print_one, print_table, show

_FORMAT = click.option("-f", "--format", "format_", default="", metavar="json|TEMPLATE", help="How to print.")


@click.group()
def size() -> None:
    """Sizes of machines, by name, for `run --size` and `pod create --size`."""


@size.command()
@_FORMAT
def ls(format_: str) -> None:
    """List sizes."""
    found = client().call(list[Size], "GET", "/sizes")
    show(found, format_, ["NAME", "VCPUS", "MEMORY"], lambda s: [s.name, str(s.vcpus), format_binary(s.memory)])


@click.command()
@_FORMAT
def quota(format_: str) -> None:
    """Show how much you may have, and have."""
    found = client().call(QuotaStatus, "GET", "/quota")
    print_one(found, format_, lambda: _show(found))


def _show(found: QuotaStatus) -> None:
    if not found.of:
        print("Nothing limits you but this host.")
    rates = [(f"{name} in a minute", getattr(found.limits, name)) for name in ("starts", "requests")]
    print_table(
        ["OF", "USED", "LIMIT"],
        [
            *([name, write_amount(name, getattr(found.used, name)), _limit(name, getattr(found.limits, name))]
              for name in NAMES),
            *([name, "-", "-" if limit is None else str(limit)] for name, limit in rates),
        ],
    )  # fmt: skip


def _limit(name: str, number: int | None) -> str:
    return "-" if number is None else write_amount(name, number)
