# SPDX-License-Identifier: Apache-2.0
"""The database's schema as a row of numbered steps, and how a file gets from its number to ours.

A new file takes all steps too, so a new one and an old one are the same. A
step is never changed once it was released; what changes gets a new number.
The number is the file's `user_version` (sqlite.org/pragma.html).
"""

from __future__ import annotations

import contextlib
import logging
import os
import sqlite3
from pathlib import Path
from typing import NamedTuple

from ..errors import NoSpace, Unavailable
from . import ledger

log = logging.getLogger(__name__)


class Step(NamedTuple):
    """What makes a file one of schema `version`."""

    version: int
    statements: tuple[str, ...]


def _with_owner(table: str) -> tuple[str, ...]:
    """Names that were unique are so within a tenant; SQLite has no other way to change that."""
    return (
        f"ALTER TABLE {table} RENAME TO old_{table}",
        f"CREATE TABLE {table} (id TEXT PRIMARY KEY, tenant TEXT NOT NULL, name TEXT NOT NULL, owner TEXT NOT NULL,"
        " document BLOB NOT NULL, UNIQUE (tenant, name))",
        f"INSERT INTO {table} SELECT id, '', name, '', document FROM old_{table}",
        f"DROP TABLE old_{table}",
    )


def _table(name: str) -> str:
    return (
        f"CREATE TABLE {name} (id TEXT PRIMARY KEY, tenant TEXT NOT NULL, name TEXT NOT NULL, owner TEXT NOT NULL,"
        " document BLOB NOT NULL, UNIQUE (tenant, name))"
    )


STEPS = (
    Step(
        1,
        tuple(
            f"CREATE TABLE {t} (id TEXT PRIMARY KEY, name TEXT UNIQUE NOT NULL, document BLOB NOT NULL)"
            for t in ("containers", "pods")
        ),
    ),
    Step(  # before it every pod was that of one container, which is implicit since
        2,
        (
            "CREATE TABLE volumes (id TEXT PRIMARY KEY, name TEXT UNIQUE NOT NULL, document BLOB NOT NULL)",
            "UPDATE pods SET document = CAST(json_set(CAST(document AS TEXT), '$.implicit', json('true')) AS BLOB)",
        ),
    ),
    Step(3, ("CREATE TABLE networks (id TEXT PRIMARY KEY, name TEXT UNIQUE NOT NULL, document BLOB NOT NULL)",)),
    Step(
        4,
        (
            "CREATE TABLE unfinished (id TEXT PRIMARY KEY)",
            "CREATE TABLE set_aside (kind TEXT NOT NULL, id TEXT NOT NULL, name TEXT NOT NULL, document BLOB,"
            " why TEXT NOT NULL, PRIMARY KEY (kind, id))",
        ),
    ),
    Step(5, ("CREATE TABLE events (time INTEGER PRIMARY KEY, document BLOB NOT NULL)",)),  # nanoseconds, no two alike
    Step(6, tuple(s for table in ("containers", "pods", "volumes", "networks") for s in _with_owner(table))),
    Step(
        7,
        (
            "CREATE TABLE tokens (id TEXT PRIMARY KEY, tenant TEXT NOT NULL, name TEXT NOT NULL, owner TEXT NOT NULL,"
            " document BLOB NOT NULL, UNIQUE (tenant, name))",
        ),
    ),
    Step(
        8, ("CREATE TABLE users (number INTEGER PRIMARY KEY, allotment TEXT NOT NULL)",)
    ),  # of machines that there are
    Step(9, tuple(map(_table, ("organisations", "projects", "people")))),
    Step(10, (*ledger.STATEMENTS, *map(_table, ("pricelists", "credits", "invoices", "accounts")))),
    Step(11, (_table("crons"),)),
    Step(
        12,
        (
            "ALTER TABLE events ADD COLUMN tenant TEXT NOT NULL DEFAULT ''",
            "UPDATE events SET tenant = coalesce(json_extract(CAST(document AS TEXT), '$.tenant'), '')"
            " WHERE json_valid(CAST(document AS TEXT))",
            "CREATE INDEX events_by_tenant ON events (tenant, time)",
            *ledger.INDEXES,
            _table("securitygroups"),
            _table("fips"),
            _table("deployments"),
        ),
    ),
)
SCHEMA = STEPS[-1].version


def refuse_newer(db: sqlite3.Connection, path: Path) -> None:
    """Its schema's number.

    :raise Unavailable: the file is of a schema that this hyperd does not know.
    :raise sqlite3.DatabaseError: it is no database.
    """
    if (version := _version(db)) > SCHEMA:
        raise Unavailable(
            f"{path} was written by a newer hyperd (schema {version}, and this one knows {SCHEMA})",
            hint="upgrade hyperd, or start with another --root",
        )


def _version(db: sqlite3.Connection) -> int:
    found: int = db.execute("PRAGMA user_version").fetchone()[0]
    return found


def migrate(db: sqlite3.Connection, path: Path, steps: tuple[Step, ...] = STEPS) -> None:
    """Bring an open file to the last of the steps, all of them or none; a copy of what it was is kept beside it.

    :raise Unavailable: a step fails; :raise NoSpace: the disk is full. The file is as it was.
    """
    version, newest = _version(db), steps[-1].version
    if version == newest:
        return
    try:
        kept = _keep_copy(db, path, version) if version else None
        try:
            _run(db, [s for s in steps if s.version > version])
        except sqlite3.Error:
            if kept:
                kept.unlink(missing_ok=True)  # the file itself is what it was
            raise
    except sqlite3.Error as error:
        if "full" in str(error):
            raise NoSpace(f"no space left to bring {path} to this hyperd's schema; it is as it was",
                          hint="free some and try again") from error  # fmt: skip
        raise Unavailable(
            f"{path} cannot be brought from schema {version} to {newest}, and is as it was: {error}",
            hint="run the hyperd that wrote it, or start with another --root",
        ) from error
    if kept:
        log.info("%s was brought from schema %d to %d; what it was is kept as %s", path, version, newest, kept)


def _run(db: sqlite3.Connection, steps: list[Step]) -> None:
    db.execute("BEGIN IMMEDIATE")
    with db:  # commits, or rolls back
        for step in steps:
            for statement in step.statements:
                db.execute(statement)
            db.execute(f"PRAGMA user_version={step.version}")


def _keep_copy(db: sqlite3.Connection, path: Path, version: int) -> Path:
    """A whole copy beside the file, under a name that was free."""
    kept = free_name(path, f"schema-{version}")
    os.close(os.open(kept, os.O_RDWR | os.O_CREAT | os.O_EXCL | os.O_CLOEXEC, 0o600))
    with contextlib.closing(sqlite3.connect(kept)) as copy:
        try:
            db.backup(copy)
            copy.execute("PRAGMA journal_mode=DELETE")  # one file, without a log beside it
        except sqlite3.Error:
            kept.unlink()
            raise
    return kept


def free_name(path: Path, suffix: str) -> Path:
    """`state.db.SUFFIX`, or with a number after it when that is there."""
    name, number = path.with_name(f"{path.name}.{suffix}"), 1
    while name.exists():
        number += 1
        name = path.with_name(f"{path.name}.{suffix}.{number}")
    return name
