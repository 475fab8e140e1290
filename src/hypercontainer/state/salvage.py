# SPDX-License-Identifier: Apache-2.0
"""What can still be read of a damaged database."""

from __future__ import annotations

import contextlib
import sqlite3
from collections.abc import Iterator
from pathlib import Path
from typing import Any
from urllib.parse import quote

TABLES = ("containers", "pods", "volumes", "networks", "tokens", "organisations", "projects", "people", "set_aside",
          "events", "uses", "metering", "accounts", "credits", "invoices", "pricelists", "crons",
          "securitygroups", "fips", "deployments")  # fmt: skip
_FIRST, _LAST = -(2**63), 2**63 - 1  # of row numbers


def read_rows(path: Path) -> dict[str, list[dict[str, Any]]]:
    """The rows of each table, by the names of its columns. The file is not changed."""
    found: dict[str, list[dict[str, Any]]] = {table: [] for table in TABLES}
    # Without a log beside it SQLite would make one, and leave it there.
    how = "mode=ro" if Path(f"{path}-wal").exists() else "mode=ro&immutable=1"
    with contextlib.suppress(sqlite3.DatabaseError):
        with contextlib.closing(sqlite3.connect(f"file:{quote(str(path))}?{how}", uri=True)) as db:
            db.row_factory = sqlite3.Row
            db.text_factory = lambda raw: raw.decode(errors="replace")
            for table in TABLES:
                found[table] = [dict(row) for row in _rows(db, table)]
    return found


def _rows(db: sqlite3.Connection, table: str) -> Iterator[sqlite3.Row]:
    """From the first one on until a damaged page, then from the last one back to it."""
    seen = _FIRST
    try:
        for row in _each(db, table, "rowid > ? ORDER BY rowid", seen):
            seen = row["at"]
            yield row
    except sqlite3.DatabaseError:
        with contextlib.suppress(sqlite3.DatabaseError):
            for row in _each(db, table, "rowid < ? ORDER BY rowid DESC", _LAST):
                if row["at"] <= seen:
                    return
                yield row


def _each(db: sqlite3.Connection, table: str, where: str, at: int) -> Iterator[sqlite3.Row]:
    """Each by a search of its own: a cursor would end at the first damaged page for good."""
    while row := db.execute(f"SELECT rowid AS at, * FROM {table} WHERE {where} LIMIT 1", (at,)).fetchone():
        at = row["at"]
        yield row
