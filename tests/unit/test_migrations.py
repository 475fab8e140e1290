# SPDX-License-Identifier: Apache-2.0
"""Databases of every schema that ever was, brought to the present one.

`schemas/N-first.sql` and `N-last.sql` were dumped by the first and the last version that wrote schema N, with every
field of every record filled.
"""

from __future__ import annotations

import contextlib
import logging
import sqlite3
from pathlib import Path

import pytest

from hypercontainer.errors import NoSpace, Unavailable
from hypercontainer.state.database import Database
from hypercontainer.state.migrations import SCHEMA, STEPS, Step, migrate

DUMPS = sorted((Path(__file__).parent / "schemas").glob("*.sql"))
ONE, TWO = "a" * 64, "b" * 64


def version_of(dump: Path) -> int:
    return int(dump.name.partition("-")[0])


def load(dump: Path, path: Path) -> None:
    with contextlib.closing(sqlite3.connect(path)) as db:
        db.executescript(dump.read_text())


def dumped(path: Path) -> list[str]:
    """Everything in a file, its schema's number first."""
    with contextlib.closing(sqlite3.connect(f"file:{path}?mode=ro", uri=True)) as db:
        return [str(db.execute("PRAGMA user_version").fetchone()[0]), *db.iterdump()]


def copies(path: Path) -> list[str]:
    return sorted(p.name for p in path.parent.glob(f"{path.name}.schema-*"))


def test_there_is_a_dump_of_every_earlier_schema() -> None:
    there = {version_of(d) for d in DUMPS}
    assert there >= set(range(1, SCHEMA)), "dump the schema that was, before you add a step"
    assert [s.version for s in STEPS] == list(range(1, SCHEMA + 1))


@pytest.mark.parametrize("dump", DUMPS, ids=lambda d: d.stem)
def test_every_earlier_schema_becomes_ours_and_no_record_is_lost(
    tmp_path: Path, dump: Path, caplog: pytest.LogCaptureFixture
) -> None:
    caplog.set_level(logging.INFO)
    path, fresh = tmp_path / "state.db", tmp_path / "fresh.db"
    load(dump, path)
    before, version = dumped(path), version_of(dump)
    database = Database(path)
    pods = {p.id: p for p in database.pods()}
    expected = [ONE] if version == 1 else [ONE, TWO]
    assert sorted(pods) == sorted(c.id for c in database.containers()) == expected
    assert pods[ONE].implicit and all(p.vm and p.vm.token == "00" * 16 for p in pods.values())
    assert [v.name for v in database.volumes()] == (["data"] if version >= 2 else [])
    assert [n.name for n in database.networks()] == (["inner"] if version >= 3 else [])
    assert database.unfinished() == (["d" * 64] if version >= 4 else []) and database.set_aside() == []
    database.close()
    Database(fresh).close()
    assert schema(path) == schema(fresh)
    if version < SCHEMA:
        assert copies(path) == [f"state.db.schema-{version}"]
        kept = path.with_name(f"state.db.schema-{version}")
        assert dumped(kept) == before and kept.stat().st_mode & 0o777 == 0o600
        assert any(str(kept) in r.message and "is kept as" in r.message for r in caplog.records)
    Database(path).close()  # and once more changes nothing
    assert len(copies(path)) == int(version < SCHEMA)


def schema(path: Path) -> set[str]:
    with contextlib.closing(sqlite3.connect(path)) as db:
        return {" ".join(row[0].split()) for row in db.execute("SELECT sql FROM sqlite_master WHERE sql IS NOT NULL")}


def test_events_become_the_projects_that_they_tell_of(tmp_path: Path) -> None:
    path = tmp_path / "state.db"
    load(next(d for d in DUMPS if version_of(d) == 11), path)
    database = Database(path)
    assert [len(database.events(0, 2**62, 9, whose)) for whose in ("bbbbbbbbbbbb", "", None)] == [1, 2, 3]
    database.close()


def test_a_new_file_has_no_copy_of_what_it_was(tmp_path: Path) -> None:
    Database(tmp_path / "state.db").close()
    assert copies(tmp_path / "state.db") == []


def test_a_copy_that_is_there_is_left_alone(tmp_path: Path) -> None:
    path = tmp_path / "state.db"
    kept = tmp_path / "state.db.schema-1"
    kept.write_text("of another time")
    load(DUMPS[0], path)
    Database(path).close()
    assert kept.read_text() == "of another time" and copies(path) == ["state.db.schema-1", "state.db.schema-1.2"]


@pytest.mark.parametrize("statement", ["CREATE TABLE pods (id)", "this is no SQL", "INSERT INTO containers VALUES (1)"])
def test_a_step_that_fails_leaves_the_file_as_it_was(tmp_path: Path, statement: str) -> None:
    path = tmp_path / "state.db"
    load(DUMPS[0], path)
    before = dumped(path)
    bad = (*STEPS, Step(SCHEMA + 1, ("CREATE TABLE half (id)", "DELETE FROM containers", statement)))
    with contextlib.closing(sqlite3.connect(path, isolation_level=None)) as db:
        with pytest.raises(Unavailable, match=f"cannot be brought from schema 1 to {SCHEMA + 1}, and is as it was"):
            migrate(db, path, bad)
    assert dumped(path) == before and copies(path) == []
    Database(path).close()  # without that step it can


def test_a_full_disk_leaves_the_file_as_it_was(tmp_path: Path) -> None:
    path = tmp_path / "state.db"
    load(DUMPS[0], path)
    before = dumped(path)
    with contextlib.closing(sqlite3.connect(path, isolation_level=None)) as db:
        db.execute(f"PRAGMA max_page_count={db.execute('PRAGMA page_count').fetchone()[0]}")
        with pytest.raises(NoSpace, match="it is as it was"):
            migrate(db, path)
    assert dumped(path) == before and copies(path) == []


def test_a_newer_schema_is_refused_in_a_sentence_and_not_touched(tmp_path: Path) -> None:
    path = tmp_path / "state.db"
    Database(path).close()
    with contextlib.closing(sqlite3.connect(path)) as db:
        db.execute("CREATE TABLE of_the_future (id)")
        db.execute(f"PRAGMA user_version={SCHEMA + 1}")
    before = dumped(path)
    with pytest.raises(Unavailable) as error:
        Database(path)
    assert str(error.value) == (
        f"{path} was written by a newer hyperd (schema {SCHEMA + 1}, and this one knows {SCHEMA}): "
        "upgrade hyperd, or start with another --root"
    )
    assert dumped(path) == before
