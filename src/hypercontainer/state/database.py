# SPDX-License-Identifier: Apache-2.0
"""Containers, pods, volumes and networks as JSON documents in SQLite.

WAL with `synchronous=NORMAL`: a crash of the daemon loses nothing, a crash of
the host at most the last moments, and no commit waits for the disk.

Beside the records stand the ids of what is being made or removed
(`unfinished`): what a crash leaves of them is ended by the next daemon. A
record that cannot be read is kept in `set_aside`, and stops nothing else.
"""

from __future__ import annotations

import contextlib
import logging
import os
import sqlite3
from collections.abc import Iterable, Iterator
from pathlib import Path
from typing import Any

import msgspec

from ..errors import NoSpace, Unavailable
from ..model.billing import Account, Credit, Invoice, PriceList
from ..model.cron import Cron
from ..model.deployments import Deployment
from ..model.fips import Fip
from ..model.metering import DaySum, Use, Whose
from ..model.network import Network
from ..model.security_groups import SecurityGroup
from ..model.status import Container, Pod, Volume
from ..model.tenancy import Organisation, Project, User
from ..model.tokens import Token
from ..sys.documents import UNREADABLE
from . import ledger
from .changes import Change, R, put, table
from .migrations import migrate, refuse_newer
from .store import Happened, SetAside

log = logging.getLogger(__name__)
_BUSY = 1.0  # seconds to wait for another program that looks into the file


class DamagedDatabase(Unavailable):
    """The file is there, and is no database that can be read."""

    def __init__(self, path: Path, why: str) -> None:
        super().__init__(
            f"cannot open the state database {path}: {why}",
            hint="start `hyperd --recover` to bring back what can be read and what runs, or restore it from a backup; "
            "containers' files stay where they are",
        )
        self.why = why


class Database:
    """Opened once, by the daemon."""

    def __init__(self, path: Path) -> None:
        """:raise Unavailable: when the file is from a newer version, cannot be brought to ours, or is damaged."""
        self.path = path
        try:
            os.close(
                os.open(path, os.O_RDWR | os.O_CREAT | os.O_CLOEXEC, 0o600)
            )  # SQLite's other files get the mode of this one
            self._db = sqlite3.connect(path, isolation_level=None, check_same_thread=False, timeout=_BUSY)
        except sqlite3.DatabaseError as error:
            raise _damaged(path, str(error)) from error
        try:
            self._open()
        except sqlite3.DatabaseError as error:
            self._db.close()
            raise _damaged(path, str(error)) from error
        except BaseException:
            self._db.close()
            raise

    def _open(self) -> None:
        found = self._db.execute("PRAGMA quick_check(1)").fetchone()[0]
        if found != "ok":
            raise _damaged(self.path, found.splitlines()[-1])
        refuse_newer(self._db, self.path)
        self._db.execute("PRAGMA journal_mode=WAL")
        self._db.execute("PRAGMA synchronous=NORMAL")
        migrate(self._db, self.path)

    def close(self) -> None:
        self._db.close()

    # -- reading --------------------------------------------------------------------

    def containers(self) -> list[Container]:
        return self._read(Container)

    def pods(self) -> list[Pod]:
        return self._read(Pod)

    def volumes(self) -> list[Volume]:
        return self._read(Volume)

    def networks(self) -> list[Network]:
        return self._read(Network)

    def tokens(self) -> list[Token]:
        return self._read(Token)

    def organisations(self) -> list[Organisation]:
        return self._read(Organisation)

    def projects(self) -> list[Project]:
        return self._read(Project)

    def people(self) -> list[User]:
        return self._read(User)

    def deployments(self) -> list[Deployment]:
        return self._read(Deployment)

    def crons(self) -> list[Cron]:
        return self._read(Cron)

    def security_groups(self) -> list[SecurityGroup]:
        return self._read(SecurityGroup)

    def fips(self) -> list[Fip]:
        return self._read(Fip)

    def accounts(self) -> list[Account]:
        return self._read(Account)

    def credits(self) -> list[Credit]:
        return self._read(Credit)

    def invoices(self) -> list[Invoice]:
        return self._read(Invoice)

    def price_lists(self) -> list[PriceList]:
        return self._read(PriceList)

    def unfinished(self) -> list[str]:
        """Ids of what was being made or removed when the daemon ended."""
        return [row[0] for row in self._db.execute("SELECT id FROM unfinished")]

    def users(self) -> dict[int, str]:
        """User numbers that machines have, and the names of their allotments."""
        return dict(self._db.execute("SELECT number, allotment FROM users").fetchall())

    def events(self, first: int, end: int, limit: int, tenant: str | None = None) -> list[Happened]:
        where, whose = ("", []) if tenant is None else ("tenant = ? AND ", [tenant])
        rows = self._db.execute(
            f"SELECT time, document, tenant FROM events WHERE {where}time >= ? AND time < ? ORDER BY time LIMIT ?",
            (*whose, first, end, limit),
        )
        return [Happened(*row) for row in rows]

    def last_event(self) -> int:
        """The time of the last one; 0 when there is none."""
        found: int | None = self._db.execute("SELECT max(time) FROM events").fetchone()[0]
        return found or 0

    def metered(self) -> dict[str, bytes]:
        return ledger.metered(self._db)

    def last_use(self) -> int:
        return ledger.last_use(self._db)

    def day_sums(self, first: int, end: int, whose: Whose, *, short: bool) -> list[DaySum]:
        return ledger.day_sums(self._db, first, end, whose, short=short)

    def day_part(self, since: int, until: int, whose: Whose) -> list[DaySum]:
        return ledger.day_part(self._db, since, until, whose)

    def uses(self, first: int, end: int) -> Iterator[Use]:
        return ledger.uses(self._db, first, end)

    def uses_after(self, number: int, limit: int) -> list[Use]:
        return ledger.uses_after(self._db, number, limit)

    def check_uses(self) -> tuple[int, list[str]]:
        with contextlib.closing(sqlite3.connect(self.path, timeout=_BUSY)) as reader:  # it takes its time, in a thread
            return ledger.check(reader)

    def set_aside(self) -> list[SetAside]:
        rows = self._db.execute("SELECT kind, id, name, why, document FROM set_aside")
        return [SetAside(kind, id_, name, why, _pod_of(kind, id_, document)) for kind, id_, name, why, document in rows]

    def _read(self, type_: type[R]) -> list[R]:
        """Those that can be read, with earlier unreadable ones that now can be; the others are set aside."""
        kind = table(type_)
        self._put_back(kind, type_)
        found: list[R] = []
        for id_, name, document in self._db.execute(f"SELECT id, name, document FROM {kind}").fetchall():
            try:
                found.append(msgspec.json.decode(document, type=type_))
            except (*UNREADABLE, TypeError) as error:
                log.error("the record of %s %s (%s) cannot be read and is set aside: %s", kind[:-1], name, id_, error)
                self._move(kind, id_, name, document, f"it cannot be read: {error}")
        return found

    def _move(self, kind: str, id_: str, name: str, document: object, why: str) -> None:
        try:
            with self._transaction():
                self._set_aside(kind, id_, name, document, why)
                self._db.execute(f"DELETE FROM {kind} WHERE id=?", (id_,))
        except sqlite3.Error as error:  # it stays where it is, and is passed over again by the next daemon
            log.error("it stays in its place: %s", error)

    def _set_aside(self, kind: str, id_: str, name: str, document: object, why: str) -> None:
        self._db.execute("INSERT OR REPLACE INTO set_aside VALUES (?, ?, ?, ?, ?)", (kind, id_, name, document, why))

    def _put_back(self, kind: str, type_: type[R]) -> None:
        for id_, name, document in self._db.execute(
            "SELECT id, name, document FROM set_aside WHERE kind=?", (kind,)
        ).fetchall():
            try:
                change = put(msgspec.json.decode(document, type=type_))
                with self._transaction():
                    self._insert(change._replace(id=id_, name=name))
                    self._db.execute("DELETE FROM set_aside WHERE kind=? AND id=?", (kind, id_))
            except (*UNREADABLE, TypeError, sqlite3.Error):
                continue

    # -- writing --------------------------------------------------------------------

    def commit(self, changes: Iterable[Change], events: Iterable[Happened] = ()) -> None:
        """All of them, or none.

        :raise NoSpace: when the disk is full. :raise Unavailable: when the file cannot be written for another reason.
        """
        with self._writing():
            for change in changes:
                self._apply(change)
            self._db.executemany("INSERT OR IGNORE INTO events (time, document, tenant) VALUES (?, ?, ?)", events)

    @contextlib.contextmanager
    def _writing(self) -> Iterator[None]:
        """A transaction.

        :raise NoSpace: when the disk is full. :raise Unavailable: when the file cannot be written for another reason.
        """
        try:
            with self._transaction():
                yield
        except sqlite3.OperationalError as error:
            if "full" in str(error):
                raise NoSpace(
                    "no space left on the disk of the state database", hint="free some and try again"
                ) from error
            raise Unavailable(
                f"the state database {self.path} cannot be written: {error}", hint="see hyperd's log"
            ) from error
        except sqlite3.Error as error:
            raise Unavailable(
                f"the state database {self.path} cannot be written: {error}", hint="see hyperd's log"
            ) from error

    def _transaction(self) -> sqlite3.Connection:
        self._db.execute("BEGIN IMMEDIATE")
        return self._db  # as a context it commits, or rolls back

    def _apply(self, change: Change) -> None:
        if change.table == "users":
            self._apply_user(change)
        elif change.table == "uses":
            ledger.add(self._db, msgspec.json.decode(change.document or b"", type=Use))
        elif change.table == "metering":
            ledger.put_metered(self._db, change.id, change.document)
        elif change.document is None:
            self._db.execute(f"DELETE FROM {change.table} WHERE id=?", (change.id,))
        elif change.table == "unfinished":
            self._db.execute("INSERT OR IGNORE INTO unfinished VALUES (?)", (change.id,))
        else:
            self._insert(change, "ON CONFLICT (id) DO UPDATE SET name=excluded.name, document=excluded.document")

    def _apply_user(self, change: Change) -> None:
        number = int(change.id)
        if change.document is None:
            self._db.execute("DELETE FROM users WHERE number=?", (number,))
        else:
            self._db.execute("INSERT INTO users VALUES (?, ?)", (number, change.name))

    def _insert(self, change: Change, otherwise: str = "") -> None:
        self._db.execute(
            f"INSERT INTO {change.table} (id, tenant, name, owner, document) VALUES (?, ?, ?, ?, ?) {otherwise}",
            (change.id, change.tenant, change.name, change.owner, change.document),
        )

    def put_container(self, container: Container) -> None:
        """Insert or replace; idempotent.

        :raise NoSpace: when the disk is full.
        :raise InvalidArgument: a value that could not be read back, by its field.
        """
        self.commit([put(container)])

    def put_pod(self, pod: Pod) -> None:
        """Write one pod, in a transaction of its own."""
        self.commit([put(pod)])

    def remove_container(self, id_: str) -> None:
        """Forget one container, in a transaction of its own."""
        self.commit([Change("containers", id_)])

    def forget_events(self, count: int, before: int, tenants: Iterable[str] | None) -> None:
        oldest = "SELECT time FROM events WHERE tenant = ? ORDER BY time DESC LIMIT 1 OFFSET ?"
        try:
            with self._transaction():
                self._db.execute("DELETE FROM events WHERE time < ?", (before,))
                for tenant in self._tenants_of_events() if tenants is None else tenants:
                    if found := self._db.execute(oldest, (tenant, count)).fetchone():
                        self._db.execute("DELETE FROM events WHERE tenant = ? AND time <= ?", (tenant, found[0]))
        except sqlite3.Error as error:
            log.warning("old events cannot be forgotten: %s", error)

    def _tenants_of_events(self) -> list[str]:
        return [row[0] for row in self._db.execute("SELECT DISTINCT tenant FROM events")]

    def restore_uses(self, rows: list[dict[str, Any]]) -> None:
        """Entries of the ledger of another file; the sums of days are made anew.

        :raise NoSpace: when the disk is full. :raise Unavailable: when the file cannot be written for another reason.
        """
        with self._writing():
            ledger.put_rows(self._db, rows)

    def set_record_aside(self, kind: str, id_: str, name: str, document: object, why: str) -> None:
        """One that cannot be read, or of which no more than this is known."""
        with self._writing():
            self._set_aside(kind, id_, name, document, why)

    def move_aside(self, kind: str, id_: str, why: str) -> None:
        """A record that this daemon can make nothing of; the next one finds it in its place, or moves it again.

        :raise NoSpace: when the disk is full. :raise Unavailable: when the file cannot be written for another reason.
        """
        with self._writing():
            for name, document in self._db.execute(f"SELECT name, document FROM {kind} WHERE id=?", (id_,)).fetchall():
                self._set_aside(kind, id_, name, document, why)
            self._db.execute(f"DELETE FROM {kind} WHERE id=?", (id_,))

    def forget_aside(self, kind: str, id_: str) -> None:
        """Give a record up that could not be read.

        :raise NoSpace: when the disk is full. :raise Unavailable: when the file cannot be written for another reason.
        """
        with self._writing():
            self._db.execute("DELETE FROM set_aside WHERE kind=? AND id=?", (kind, id_))


def _damaged(path: Path, why: str) -> DamagedDatabase:
    return DamagedDatabase(path, why)


def _pod_of(kind: str, id_: str, document: Any) -> str:
    """The pod of a record that could not be read as a whole."""
    if kind == "pods":
        return id_
    try:
        found = msgspec.json.decode(document)
        return str(found.get("pod", id_))
    except (*UNREADABLE, TypeError, AttributeError):
        return id_  # as that of a container of its own
