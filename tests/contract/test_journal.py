# SPDX-License-Identifier: Apache-2.0
"""What every store of records does, and the journal over it: transactions, a full disk, the past, earlier versions."""

from __future__ import annotations

import contextlib
import sqlite3
from abc import ABC, abstractmethod
from pathlib import Path

import msgspec
import pytest

from hypercontainer.errors import NoSpace, Unavailable
from hypercontainer.model.specs import ContainerSpec
from hypercontainer.model.status import Container, Pod, Process
from hypercontainer.state.changes import Change, begun, finished, put, remove, user_free, user_taken
from hypercontainer.state.database import Database
from hypercontainer.state.fake import FakeDisk, FakeStore
from hypercontainer.state.journal import Journal
from hypercontainer.state.store import Happened, SetAside, Store
from hypercontainer.sys import clock

LONG = "x" * 100_000  # so that a file needs further pages
END = 2**62
SCHEMAS = Path(__file__).parents[1] / "unit/schemas"


class Disk(ABC):
    """What outlives daemons."""

    @abstractmethod
    def open(self) -> Store:
        """As a further daemon does."""

    @abstractmethod
    def fill(self) -> None:
        """Nothing more fits, of what is open."""

    @abstractmethod
    def free(self) -> None: ...

    @abstractmethod
    def write_raw(self, kind: str, id_: str, name: str, document: bytes) -> None:
        """What no daemon would write now; nothing is open."""

    @abstractmethod
    def close(self) -> None: ...


class FileDisk(Disk):
    """SQLite's."""

    def __init__(self, directory: Path) -> None:
        self.path = directory / "state.db"
        self._opened: list[Database] = []
        self._limit = 0

    def open(self) -> Database:
        self._opened.append(Database(self.path))
        return self._opened[-1]

    def fill(self) -> None:
        db = self._opened[-1]._db
        db.execute("PRAGMA wal_checkpoint(TRUNCATE)")
        self._limit = db.execute("PRAGMA max_page_count").fetchone()[0]
        db.execute(f"PRAGMA max_page_count={db.execute('PRAGMA page_count').fetchone()[0]}")

    def free(self) -> None:
        self._opened[-1]._db.execute(f"PRAGMA max_page_count={self._limit}")

    def write_raw(self, kind: str, id_: str, name: str, document: bytes) -> None:
        with contextlib.closing(sqlite3.connect(self.path)) as db, db:
            db.execute(f"INSERT INTO {kind} VALUES (?, '', ?, '', ?)", (id_, name, document))

    def close(self) -> None:
        for database in self._opened:
            database.close()


class ObjectDisk(Disk):
    """The fake's."""

    def __init__(self, directory: Path) -> None:
        self.disk = FakeDisk()

    def open(self) -> FakeStore:
        return FakeStore(self.disk)

    def fill(self) -> None:
        self.disk.full = True

    def free(self) -> None:
        self.disk.full = False

    def write_raw(self, kind: str, id_: str, name: str, document: bytes) -> None:
        self.disk.rows.tables[kind][id_] = Change(kind, id_, name, document)

    def close(self) -> None: ...


@pytest.fixture(params=[FileDisk, ObjectDisk], ids=["sqlite", "fake"])
def disk(request: pytest.FixtureRequest, tmp_path: Path):  # type: ignore[no-untyped-def]
    made = request.param(tmp_path)
    yield made
    made.close()


def container(id_: str, name: str, **fields: object) -> Container:
    process = Process(args=["x"], env=[], cwd="/", user="", stop_signal=15)
    made = Container(
        id=id_, name=name, pod=id_, created_at="2026", image="x", image_id="i", hostname="h", process=process,
        spec=ContainerSpec(image="x"),
    )  # fmt: skip
    return msgspec.structs.replace(made, **fields)


def pod(id_: str, name: str) -> Pod:
    return Pod(id=id_, name=name, created_at="2026", hostname="h", vcpus=1, memory=1, implicit=True)


def large(id_: str, name: str) -> Container:
    return container(id_, name, hostname=LONG)


def names(store: Store) -> dict[str, str]:
    return {c.id: c.name for c in store.containers()}


# -- transactions --------------------------------------------------------------------------


def test_what_belongs_together(disk: Disk) -> None:
    store = disk.open()
    store.commit([begun("a")])
    store.commit([put(pod("a", "web")), put(container("a", "web")), finished("a"), begun("b")])
    store.close()
    again = disk.open()
    assert (again.pods(), again.containers()) == ([pod("a", "web")], [container("a", "web")])
    assert again.unfinished() == ["b"]
    again.commit([remove(pod("a", "web")), remove(container("a", "web")), remove(container("none", "none"))])
    assert again.pods() == again.containers() == []


def test_a_user_number_is_one_machines(disk: Disk) -> None:
    store = disk.open()
    store.commit([user_taken(7, "a.1"), user_taken(8, "a.1"), user_taken(9, "b.2")])
    for again in ("a.1", "c.3"):
        with pytest.raises(Unavailable, match="cannot be written"):
            store.commit([user_taken(10, "c.3"), user_taken(7, again)])
    store.commit([user_free(7), user_free(11), user_taken(7, "c.3")])
    store.close()
    assert disk.open().users() == {7: "c.3", 8: "a.1", 9: "b.2"}


def test_all_or_none(disk: Disk) -> None:
    store = disk.open()
    store.commit([put(container("a", "one"))])
    with pytest.raises(Unavailable, match="cannot be written"):
        store.commit([remove(container("a", "one")), put(pod("p", "p")), Change("nowhere", "b", "b", b"")])
    assert (names(store), store.pods()) == ({"a": "one"}, [])


def test_a_name_is_ones_own(disk: Disk) -> None:
    store = disk.open()
    store.commit([put(container("a", "one")), put(container("b", "two"))])
    with pytest.raises(Unavailable):
        store.commit([put(container("c", "three")), put(container("b", "one"))])
    assert names(store) == {"a": "one", "b": "two"}
    store.commit([put(container("c", "one", tenant="t"))])
    store.commit([put(container("a", "spare")), put(container("b", "one")), put(container("a", "two"))])
    assert names(store) == {"a": "two", "b": "one", "c": "one"}


def test_what_is_closed_is_not_written(disk: Disk) -> None:
    store = disk.open()
    store.close()
    store.close()
    with pytest.raises(Unavailable):
        store.commit([put(container("a", "one"))])
    assert names(disk.open()) == {}


def test_a_full_disk(disk: Disk) -> None:
    store = disk.open()
    store.commit([put(container("a", "one"))])
    disk.fill()
    with pytest.raises(NoSpace, match="no space left"):
        store.commit([put(container("a", "renamed")), put(large("b", "two"))], [Happened(5, b"{}")])
    assert (names(store), store.events(0, END, 10)) == ({"a": "one"}, [])
    disk.free()
    store.commit([put(large("b", "two"))])
    assert names(store) == {"a": "one", "b": "two"}


# -- what cannot be read, and what earlier versions wrote ----------------------------------------


def test_what_cannot_be_read_harms_nothing_else(disk: Disk) -> None:
    store = disk.open()
    store.commit([put(container("a", "one"))])
    store.close()
    disk.write_raw("containers", "b", "two", b'{"id": "b"}')
    disk.write_raw("pods", "c", "three", b"no JSON")
    store = disk.open()
    assert (names(store), store.pods()) == ({"a": "one"}, [])
    assert sorted((s.kind, s.id, s.name, s.pod) for s in store.set_aside()) == [
        ("containers", "b", "two", "b"), ("pods", "c", "three", "c")
    ]  # fmt: skip
    store.forget_aside("containers", "b")
    store.close()
    again = disk.open()
    assert again.pods() == [] and [(s.kind, s.id) for s in again.set_aside()] == [("pods", "c")]


def test_what_this_daemon_can_make_nothing_of(disk: Disk) -> None:
    """The next one has it in its place again, unless its name is another's by then."""
    store = disk.open()
    store.commit([put(container("a", "one", pod="p")), put(container("b", "two"))])
    store.move_aside("containers", "a", "why not")
    store.move_aside("containers", "none", "why not")
    assert store.set_aside() == [SetAside("containers", "a", "one", "why not", "p")]
    store.close()
    again = disk.open()
    assert names(again) == {"a": "one", "b": "two"} and again.set_aside() == []
    again.move_aside("containers", "b", "why not")
    again.commit([put(container("c", "two"))])
    again.close()
    last = disk.open()
    assert names(last) == {"a": "one", "c": "two"} and [s.id for s in last.set_aside()] == ["b"]
    last.forget_aside("containers", "b")
    assert last.set_aside() == []


@pytest.mark.parametrize("dump", ["1-first", "3-first", "5-first"])
def test_what_an_earlier_version_wrote(tmp_path: Path, dump: str) -> None:
    """A file is brought to the present schema; the documents in it are read by both."""
    directory = tmp_path / "old"
    directory.mkdir()
    old = FileDisk(directory)
    with contextlib.closing(sqlite3.connect(old.path)) as db:
        db.executescript((SCHEMAS / f"{dump}.sql").read_text())
    migrated = old.open()
    fake = ObjectDisk(tmp_path)
    for kind in ("containers", "pods", "volumes", "networks"):
        for id_, name, document in migrated._db.execute(f"SELECT id, name, document FROM {kind}"):
            fake.write_raw(kind, id_, name, document)
    store = fake.open()
    assert migrated.containers() == store.containers() != [] and migrated.pods() == store.pods()
    assert migrated.volumes() == store.volumes() and migrated.networks() == store.networks()
    assert migrated.set_aside() == store.set_aside() == []
    old.close()


# -- the past --------------------------------------------------------------------------------


def test_the_past(disk: Disk) -> None:
    store = disk.open()
    assert store.last_event() == 0
    store.commit([], [Happened(n, b"%d" % n) for n in (1, 2, 3, 5)])
    store.commit([], [Happened(5, b"again")])  # no two have one time: the first stays
    store.close()
    again = disk.open()
    assert again.last_event() == 5
    assert again.events(2, 5, 10) == [Happened(2, b"2"), Happened(3, b"3")]
    assert again.events(0, END, 2) == [Happened(1, b"1"), Happened(2, b"2")]
    again.forget_events(3, 0, [""])
    assert [e.time for e in again.events(0, END, 10)] == [2, 3, 5]
    again.forget_events(3, 4, [])
    assert again.events(0, END, 10) == [Happened(5, b"5")]


def test_the_past_of_each_tenant_is_its_own(disk: Disk) -> None:
    store = disk.open()
    store.commit([], [Happened(n, b"", "ab"[n % 2]) for n in range(10)])
    assert [e.time for e in store.events(3, 9, 10, "a")] == [4, 6, 8]
    assert store.events(0, END, 10, "none") == store.events(0, END, 10, "") == []
    store.forget_events(2, 0, ["a"])
    assert [e.time for e in store.events(0, END, 10)] == [1, 3, 5, 6, 7, 8, 9]
    store.forget_events(1, 0, None)
    assert store.events(0, END, 10) == [Happened(8, b"", "a"), Happened(9, b"", "b")]
    store.forget_events(0, 0, None)
    assert store.events(0, END, 10) == []


# -- the journal -------------------------------------------------------------------------------


async def test_what_has_happened_is_written_when_it_can_be(disk: Disk) -> None:
    journal = Journal(disk.open())
    journal.write(put(container("a", "one")))
    assert journal.pending == 0
    disk.fill()
    journal.write(put(large("a", "one")))
    journal.write(put(large("a", "later")), put(large("b", "one")))
    assert journal.pending == 3 and "no space left" in journal.trouble
    with pytest.raises(NoSpace):
        journal.write_now(put(large("c", "new")))
    assert journal.pending == 3
    disk.free()
    journal.close()
    assert names(disk.open()) == {"a": "later", "b": "one"}


async def test_what_is_decided_is_written_first_or_refused(disk: Disk) -> None:
    journal = Journal(disk.open())
    disk.fill()
    with pytest.raises(NoSpace):
        journal.write_now(put(large("a", "one")))
    assert (journal.pending, journal.trouble) == (0, "")
    disk.free()
    journal.later(finished("x"))
    journal.later(put(container("b", "two")))
    assert names(journal.database) == {}
    journal.write_now(put(large("a", "one")))
    assert names(journal.database) == {"a": "one", "b": "two"}
    journal.close()


async def test_an_event_outlives_the_daemon(disk: Disk) -> None:
    """It goes with the next change of a record, or by itself; on a full disk it waits."""
    now = clock.now_ns()
    journal = Journal(disk.open())
    journal.event(Happened(now, b"one"))
    journal.write(put(container("a", "one")))
    assert journal.database.last_event() == now
    journal.event(Happened(now + 1, b"two"))
    journal.flush_events()
    assert journal.database.last_event() == now + 1
    disk.fill()
    journal.event(Happened(now + 2, LONG.encode()))
    journal.flush_events()
    assert journal.database.last_event() == now + 1
    disk.free()
    journal.close()
    assert [e.time - now for e in disk.open().events(0, END, 10)] == [0, 1, 2]
