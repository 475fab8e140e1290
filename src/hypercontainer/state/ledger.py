# SPDX-License-Identifier: Apache-2.0
"""The ledger's tables: entries, which are only added, and the sums of days, to which each is added as it comes."""

from __future__ import annotations

import sqlite3
from collections.abc import Iterator
from typing import Any

import msgspec

from ..model.metering import ANY, DAY, EVERYBODY, SHORT, STORAGE, DaySum, Subject, Use, Whose, quantity

_KEY = "day, tenant, payer, kind, size, vcpus, memory"
_STORAGE = ", ".join(f"'{kind}'" for kind in sorted(STORAGE))
_SUM_KEY = f"{_KEY}, short"
_COLUMNS = (
    "number, day, kind, object, name, tenant, payer, size, vcpus, memory, amount, began, lasted, boot, boot_id, run"
)
STATEMENTS = (
    "CREATE TABLE uses (number INTEGER PRIMARY KEY, day INTEGER NOT NULL, kind TEXT NOT NULL, object TEXT NOT NULL,"
    " name TEXT NOT NULL, tenant TEXT NOT NULL, payer TEXT NOT NULL, size TEXT NOT NULL, vcpus INTEGER NOT NULL,"
    " memory INTEGER NOT NULL, amount INTEGER NOT NULL, began INTEGER NOT NULL, lasted INTEGER NOT NULL,"
    " boot INTEGER NOT NULL, boot_id TEXT NOT NULL, run INTEGER NOT NULL)",
    "CREATE INDEX uses_by_day ON uses (day)",
    "CREATE TABLE use_days (day INTEGER NOT NULL, tenant TEXT NOT NULL, payer TEXT NOT NULL, kind TEXT NOT NULL,"
    " size TEXT NOT NULL, vcpus INTEGER NOT NULL, memory INTEGER NOT NULL, short INTEGER NOT NULL,"
    f" quantity INTEGER NOT NULL, runs INTEGER NOT NULL, PRIMARY KEY ({_SUM_KEY})) WITHOUT ROWID",
    "CREATE TABLE metering (id TEXT PRIMARY KEY, document BLOB NOT NULL)",  # what is used now, and what was marked
)

# What one project, or one organisation, used is found without a look at what all others did.
INDEXES = tuple(
    f"CREATE INDEX {table}_by_{whose} ON {table} ({whose}, day)"
    for table in ("uses", "use_days")
    for whose in ("tenant", "payer")
)


def sums_of(use: Use) -> list[DaySum]:
    """What an entry adds to the sums of its day."""
    s = use.subject
    ended = use.run != ANY

    def part(short: int, quantity: int) -> DaySum:
        return DaySum(use.day, s.tenant, s.payer, s.kind, s.size, s.vcpus, s.memory, short, quantity, int(ended))

    found = [part(ANY, use.quantity)]
    if ended and use.run < SHORT * 1000:
        found.append(part(use.run // 1000, use.run))
    return found


def add(db: sqlite3.Connection, use: Use) -> None:
    """One entry, in the transaction that there is. A number that is taken is an error."""
    s = use.subject
    db.execute(
        f"INSERT INTO uses ({_COLUMNS}) VALUES (?, ?, ?, ?, ?, ?, ?, ?, ?, ?, ?, ?, ?, ?, ?, ?)",
        (use.number, use.day, s.kind, s.id, s.name, s.tenant, s.payer, s.size, s.vcpus, s.memory, s.amount,
         use.began, use.lasted, use.boot, use.boot_id, use.run),
    )  # fmt: skip
    db.executemany(
        f"INSERT INTO use_days ({_SUM_KEY}, quantity, runs) VALUES (?, ?, ?, ?, ?, ?, ?, ?, ?, ?)"
        f" ON CONFLICT ({_SUM_KEY}) DO UPDATE SET quantity = quantity + excluded.quantity, runs = runs + excluded.runs",
        sums_of(use),
    )


def put_metered(db: sqlite3.Connection, id_: str, document: bytes | None) -> None:
    """A row of what is used now, in the transaction that there is; None removes it."""
    if document is None:
        db.execute("DELETE FROM metering WHERE id=?", (id_,))
    else:
        db.execute("INSERT OR REPLACE INTO metering VALUES (?, ?)", (id_, document))


def metered(db: sqlite3.Connection) -> dict[str, bytes]:
    """What was written of what is used: documents by their keys."""
    return dict(db.execute("SELECT id, document FROM metering").fetchall())


def last_use(db: sqlite3.Connection) -> int:
    """The number of the last entry; 0 when there is none."""
    found: int | None = db.execute("SELECT max(number) FROM uses").fetchone()[0]
    return found or 0


def clipped(use: Use, since: int, until: int) -> list[DaySum]:
    """What an entry adds to a sum of what was between these milliseconds since the epoch.

    It is parted by its milliseconds; bytes that were sent count where their interval began.
    """
    begun, ended = max(use.began, since), min(use.began + use.lasted, until)
    if use.subject.kind == "egress":
        return sums_of(use) if since <= use.began < until else []
    if begun >= ended and not since <= use.began < until:
        return []
    ends = use.run != ANY and ended == use.began + use.lasted
    part = sums_of(use)[0]
    return [part._replace(quantity=quantity(use.subject, max(0, ended - begun)), runs=int(ends))]


def day_sums(db: sqlite3.Connection, first: int, end: int, whose: Whose, *, short: bool) -> list[DaySum]:
    """Of days `first` <= day < `end`; with `short` also the lengths of short runs."""
    where, values = _of(whose)
    rows = db.execute(
        f"SELECT {_SUM_KEY}, quantity, runs FROM use_days WHERE day >= ? AND day < ? {where}"
        + ("" if short else f" AND short = {ANY}"),
        (first, end, *values),
    )
    return [DaySum(*row) for row in rows]


def _of(whose: Whose) -> tuple[str, list[str]]:
    given = [(column, value) for column, value in whose._asdict().items() if value is not None]
    return "".join(f" AND {column} = ?" for column, _ in given), [value for _, value in given]


def day_part(db: sqlite3.Connection, since: int, until: int, whose: Whose) -> list[DaySum]:
    """As `clipped`, of the entries of the day in which both are."""
    where, values = _of(whose)
    lasted = f"max(0, min(began + lasted, {until}) - max(began, {since}))"
    inside = f"began >= {since} AND began < {until}"
    what = _quantity(lasted)
    rows = db.execute(
        f"SELECT {_KEY}, {ANY}, sum({what}), sum(run != {ANY} AND began + lasted <= {until}) FROM uses WHERE day = ?"
        f" AND (({inside}) OR (kind != 'egress' AND began < {until} AND began + lasted > {since})) {where}"
        f" GROUP BY {_KEY}",
        (since // DAY, *values),
    )
    return [DaySum(*row) for row in rows]


def uses(db: sqlite3.Connection, first: int, end: int) -> Iterator[Use]:
    """By day, in the order of their numbers; read as they are asked for."""
    for row in db.execute(f"SELECT {_COLUMNS} FROM uses WHERE day >= ? AND day < ? ORDER BY number", (first, end)):
        yield _use(row)


def uses_after(db: sqlite3.Connection, number: int, limit: int) -> list[Use]:
    """In the order of their numbers."""
    found = db.execute(f"SELECT {_COLUMNS} FROM uses WHERE number > ? ORDER BY number LIMIT ?", (number, limit))
    return [_use(row) for row in found]


def _use(row: tuple[Any, ...]) -> Use:
    number, day, kind, id_, name, tenant, payer, size, vcpus, memory, amount, began, lasted, boot, boot_id, run = row
    subject = {"kind": kind, "id": id_, "name": name, "tenant": tenant, "payer": payer, "size": size, "vcpus": vcpus,
               "memory": memory, "amount": amount}  # fmt: skip
    return Use(
        number=number, subject=msgspec.convert(subject, Subject), day=day, began=began, lasted=lasted, boot=boot,
        boot_id=boot_id, run=run,
    )  # fmt: skip


def _quantity(lasted: str) -> str:
    """As `quantity`, in SQL."""
    return f"CASE WHEN kind = 'egress' THEN amount WHEN kind IN ({_STORAGE}) THEN amount * {lasted} ELSE {lasted} END"


def recount(db: sqlite3.Connection) -> list[DaySum]:
    """The sums of all days, by their entries."""
    what = _quantity("lasted")
    rows = db.execute(
        f"SELECT {_KEY}, {ANY}, sum({what}), sum(run != {ANY}) FROM uses GROUP BY {_KEY} UNION ALL"
        f" SELECT {_KEY}, run / 1000, sum(run), count(*) FROM uses WHERE run != {ANY} AND run < {SHORT * 1000}"
        f" GROUP BY {_KEY}, run / 1000"
    )
    return [DaySum(*row) for row in rows]


def put_rows(db: sqlite3.Connection, rows: list[dict[str, Any]]) -> None:
    """Rows of another file's entries, in the transaction that there is, and the sums of days anew."""
    names = _COLUMNS.split(", ")
    whole = [tuple(row[n] for n in names) for row in rows if all(row.get(n) is not None for n in names)]
    db.executemany(f"INSERT OR IGNORE INTO uses ({_COLUMNS}) VALUES ({', '.join('?' * len(names))})", whole)
    found = recount(db)
    db.execute("DELETE FROM use_days")
    db.executemany("INSERT INTO use_days VALUES (?, ?, ?, ?, ?, ?, ?, ?, ?, ?)", found)


def check(db: sqlite3.Connection) -> tuple[int, list[str]]:
    """How many entries there are, and what is wrong with them; of one moment, while others are added."""
    db.execute("BEGIN")
    count, last = db.execute("SELECT count(*), coalesce(max(number), 0) FROM uses").fetchone()
    wrong = [] if count == last else [f"{last - count} of {last} entries are missing"]
    kept = set(day_sums(db, 0, 2**62, EVERYBODY, short=True))
    for day in sorted({s.day for s in kept ^ set(recount(db))}):
        wrong.append(f"the sums of day {day} since the epoch are not those of its entries")
    return count, wrong
