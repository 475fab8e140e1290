# SPDX-License-Identifier: Apache-2.0
"""A copy of the database of one instant, as of a host on which no machine runs; and what a copy is adapted to."""

from __future__ import annotations

import contextlib
import json
import os
import sqlite3
from collections.abc import Collection
from pathlib import Path
from typing import Any

from ..errors import NoSpace, Unavailable
from .migrations import SCHEMA

_KEPT = ("containers", "pods", "volumes")  # whose records name files, and which have files of their own
_PAGES = 256  # that are copied at a time: the daemon writes in between


def copy_out(source: Path, target: Path) -> int:
    """A file of its own, which is new; the number of its schema. The database may be in use. It blocks.

    :raise NoSpace: the disk is full. :raise Unavailable: it cannot be read.
    """
    os.close(os.open(target, os.O_RDWR | os.O_CREAT | os.O_EXCL | os.O_CLOEXEC, 0o600))
    try:
        with contextlib.closing(sqlite3.connect(source)) as db, contextlib.closing(sqlite3.connect(target)) as copy:
            db.backup(copy, pages=_PAGES, sleep=0.01)
            with copy:
                # A machine's process has its number on this host only.
                copy.execute("UPDATE pods SET document = CAST(json_remove(CAST(document AS TEXT), '$.vm') AS BLOB)")
                copy.execute("DELETE FROM users")
            copy.execute("PRAGMA journal_mode=DELETE")  # one file, without a log beside it
    except sqlite3.Error as error:
        if "full" in str(error):
            raise NoSpace("no space left for a copy of the state database", hint="free some and try again") from error
        raise Unavailable(f"the state database {source} cannot be copied: {error}", hint="see hyperd's log") from error
    return SCHEMA


def record_keys(path: Path) -> set[str]:
    """Of those whose files a backup has."""
    with contextlib.closing(sqlite3.connect(path)) as db:
        return {row[0] for table in _KEPT for row in db.execute(f"SELECT id FROM {table}")}


def adapt(path: Path, gone: Collection[str], before: Path, now: Path) -> None:
    """Forget some records, and have the files of the others below `now` that were below `before`. It blocks."""
    with contextlib.closing(sqlite3.connect(path)) as db, db:
        for table in _KEPT:
            db.executemany(f"DELETE FROM {table} WHERE id=?", [(key,) for key in gone])
            for id_, document in db.execute(f"SELECT id, document FROM {table}").fetchall() if before != now else ():
                moved = json.dumps(_moved(json.loads(document), f"{before}/", f"{now}/"), ensure_ascii=False)
                db.execute(f"UPDATE {table} SET document=? WHERE id=?", (moved.encode(), id_))


def _moved(value: Any, before: str, now: str) -> Any:
    if isinstance(value, dict):
        return {k: _moved(v, before, now) for k, v in value.items()}
    if isinstance(value, list):
        return [_moved(v, before, now) for v in value]
    return now + value.removeprefix(before) if isinstance(value, str) and value.startswith(before) else value
