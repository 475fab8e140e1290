# SPDX-License-Identifier: Apache-2.0
"""Records when the disk is full, or when one of them cannot be read."""

from __future__ import annotations

import asyncio
import logging
import sqlite3
from pathlib import Path

import msgspec
import pytest

from hypercontainer.engine.registry import Registry
from hypercontainer.errors import NoSpace, NotFound, Unavailable
from hypercontainer.model.specs import ContainerSpec
from hypercontainer.model.status import Container, ContainerStatus, Pod, Process, Vm
from hypercontainer.state.changes import Change, put
from hypercontainer.state.database import Database


def container(id_: str, name: str, status: ContainerStatus = ContainerStatus.CREATED) -> Container:
    process = Process(args=["x"], env=[], cwd="/", user="", stop_signal=15)
    made = Container(
        id=id_,
        name=name,
        pod=id_,
        created_at="2026",
        image="x",
        image_id="i",
        hostname="h",
        process=process,
        spec=ContainerSpec(image="x"),
    )
    return msgspec.structs.replace(made, state=msgspec.structs.replace(made.state, status=status))


def pod(id_: str, name: str) -> Pod:
    return Pod(id=id_, name=name, created_at="2026", hostname="h", vcpus=1, memory=1, implicit=True)


def fill(registry: Registry) -> int:
    """Let the database have no page more; the limit that it had."""
    db = registry.journal.database._db
    db.execute("PRAGMA wal_checkpoint(TRUNCATE)")
    before: int = db.execute("PRAGMA max_page_count").fetchone()[0]
    pages = db.execute("PRAGMA page_count").fetchone()[0]
    db.execute(f"PRAGMA max_page_count={pages}")
    return before


LONG = "x" * 100_000  # so that it needs further pages


async def test_what_happened_on_a_full_disk_is_known_at_once_and_written_later(
    tmp_path: Path, caplog: pytest.LogCaptureFixture
) -> None:
    registry = Registry(Database(tmp_path / "state.db"))
    registry.create(pod("a", "web"), container("a", "web", ContainerStatus.RUNNING))
    limit = fill(registry)
    ended = container("a", "web", ContainerStatus.EXITED)
    registry.put(msgspec.structs.replace(ended, state=msgspec.structs.replace(ended.state, error=LONG)))
    assert registry.container("a").state.status is ContainerStatus.EXITED
    assert registry.journal.pending == 1 and "no space left" in registry.journal.trouble
    with pytest.raises(NoSpace, match="no space left on the disk of the state database"):
        registry.create(pod("b", "new"), container("b", "new"))
    assert not registry.exists("b") and not registry.has_pod("b")
    registry.journal.database._db.execute(f"PRAGMA max_page_count={limit}")
    async with asyncio.timeout(10):
        while registry.journal.trouble:
            await asyncio.sleep(0.05)
    registry.journal.close()
    assert [r.message for r in caplog.records if r.levelno >= logging.WARNING][
        -1
    ] == "the database can be written again"
    again = Database(tmp_path / "state.db")
    assert [(c.id, c.state.error) for c in again.containers()] == [("a", LONG)]
    again.close()


def test_what_is_refused_is_no_trouble_afterwards(tmp_path: Path) -> None:
    registry = Registry(Database(tmp_path / "state.db"))
    limit = fill(registry)
    with pytest.raises(NoSpace):
        registry.create(msgspec.structs.replace(container("b", "new"), hostname=LONG))
    assert registry.journal.trouble == "" and registry.journal.pending == 0
    registry.journal.database._db.execute(f"PRAGMA max_page_count={limit}")
    registry.create(msgspec.structs.replace(container("b", "new"), hostname=LONG))
    registry.journal.close()


async def test_names_that_change_hands_while_the_disk_is_full(tmp_path: Path) -> None:
    registry = Registry(Database(tmp_path / "state.db"))
    registry.create(container("a", "one"))
    registry.create(container("b", "two"))
    limit = fill(registry)
    registry.put(msgspec.structs.replace(container("a", "spare"), hostname=LONG))
    registry.put(container("b", "one"))
    registry.put(container("a", "two"))
    registry.put(msgspec.structs.replace(container("b", "one"), image_id="later"))
    registry.journal.database._db.execute(f"PRAGMA max_page_count={limit}")
    registry.journal.close()
    again = Database(tmp_path / "state.db")
    assert sorted((c.id, c.name, c.image_id) for c in again.containers()) == [("a", "two", "i"), ("b", "one", "later")]
    again.close()


def test_all_changes_of_a_commit_are_written_or_none(tmp_path: Path) -> None:
    database = Database(tmp_path / "state.db")
    with pytest.raises(Unavailable, match="cannot be written"):
        database.commit([put(pod("a", "web")), Change("nowhere", "b", "b", b"")])
    assert database.pods() == []
    database.close()


def test_a_pod_and_its_container_come_and_go_together(tmp_path: Path) -> None:
    registry = Registry(Database(tmp_path / "state.db"))
    registry.begin("a")
    registry.create(pod("a", "web"), container("a", "web"), done="a")
    database = registry.journal.database
    assert database.unfinished() == [] and [p.id for p in database.pods()] == ["a"]
    registry.erase(container("a", "web"), pod("a", "web"), files="a")
    assert database.unfinished() == ["a"] and database.pods() == [] and database.containers() == []
    database.close()


@pytest.mark.parametrize("document", [b'{"id": "b", "retries": -1}', b"\xff not JSON", b"", None, 7])
def test_a_record_that_cannot_be_read_is_set_aside_by_its_name(
    tmp_path: Path, caplog: pytest.LogCaptureFixture, document: bytes | int | None
) -> None:
    path = tmp_path / "state.db"
    first = Database(path)
    first.put_container(container("a", "good"))
    first.put_container(container("b", "bad"))
    first.close()
    with sqlite3.connect(path) as db:
        db.execute("UPDATE containers SET document=? WHERE id='b'", (document if document is not None else "text",))
    db.close()
    registry = Registry(Database(path))
    assert [c.name for c in registry.containers()] == ["good"]
    assert [(s.kind, s.id, s.name) for s in registry.set_aside] == [("containers", "b", "bad")]
    assert any("bad" in r.message for r in caplog.records if r.levelno == logging.ERROR)
    with pytest.raises(NotFound, match="no such container: bad") as error:
        registry.container("bad")
    assert "its record was set aside: it cannot be read: " in str(error.value)
    registry.put(container("c", "bad"))  # its name is free
    registry.journal.close()


def test_a_record_that_can_be_read_again_is_put_back(tmp_path: Path) -> None:
    path = tmp_path / "state.db"
    first = Database(path)
    first.put_container(container("b", "bad"))
    (document,) = first._db.execute("SELECT document FROM containers").fetchone()
    first._db.execute("UPDATE containers SET document='x'")
    assert first.containers() == []
    first._db.execute("UPDATE set_aside SET document=?", (document,))
    first.close()
    again = Database(path)
    assert [c.name for c in again.containers()] == ["bad"] and again.set_aside() == []
    again.close()


def test_a_damaged_page_is_told(tmp_path: Path) -> None:
    path = tmp_path / "state.db"
    first = Database(path)
    for n in range(200):
        first.put_container(container(f"{n:064}", f"c{n}"))
    first.close()
    data = bytearray(path.read_bytes())
    at = data.index(b'"image":"x"')
    data[at - at % 4096 : at - at % 4096 + 64] = bytes(64)
    path.write_bytes(data)
    with pytest.raises(Unavailable, match="cannot open the state database") as error:
        Database(path)
    assert "start `hyperd --recover`" in str(error.value) and "restore it from a backup" in str(error.value)


def test_a_machine_in_a_record_of_an_earlier_version_keeps_its_interfaces() -> None:
    """The field had another name then, and has it in records still."""
    old = b'{"driver":"qemu","pid":1,"pidStarted":2,"directory":"d","token":"t","cards":{"ht0":"0a:00:00:00:00:01"}}'
    vm = msgspec.json.decode(old, type=Vm)
    assert vm.nics == {"ht0": "0a:00:00:00:00:01"}
    assert b'"cards":{"ht0":' in msgspec.json.encode(vm)
