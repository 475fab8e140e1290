# SPDX-License-Identifier: Apache-2.0
"""audit: who asked for what."""

from __future__ import annotations

import click

from ..model.audit import AuditEntry
from .context import client
from .output import show


@click.command()
@click.option("-n", "--limit", default=100, show_default=True, help="So many, the latest.")
@click.option("-f", "--format", "format_", default="", metavar="json|TEMPLATE", help="How to print.")
def audit(limit: int, format_: str) -> None:
    """Show who asked for what, the latest first: in the project, or of the whole host.

    It takes the scope `audit`, and hyperd's `audit_log`.
    """
    found = client().call(list[AuditEntry], "GET", "/audit", {"limit": str(limit)})
    show(
        found, format_, ["TIME", "WHO", "FROM", "WHAT", "STATUS"],
        lambda e: [f"{e.time[:19]}Z", e.user or e.principal or "-", e.peer or "-", _asked(e), _answer(e)],
    )  # fmt: skip


def _asked(entry: AuditEntry) -> str:
    return f"{entry.method} {entry.path}" + (f"?{entry.query}" if entry.query else "")


def _answer(entry: AuditEntry) -> str:
    return " ".join(word for word in (str(entry.status or "-"), entry.code) if word)
