# SPDX-License-Identifier: Apache-2.0
"""A store of objects: a disk that outlives daemons and can be full, and what one daemon has open of it."""

from __future__ import annotations

import copy
from collections.abc import Iterable, Iterator
from dataclasses import dataclass, field

import msgspec

from ..errors import NoSpace, Unavailable
from ..model.billing import Account, Credit, Invoice, PriceList
from ..model.cron import Cron
from ..model.deployments import Deployment
from ..model.fips import Fip
from ..model.metering import ANY, DAY, DaySum, Use, Whose
from ..model.network import Network
from ..model.security_groups import SecurityGroup
from ..model.status import Container, Pod, Volume
from ..model.tenancy import Organisation, Project, User
from ..model.tokens import Token
from ..sys.documents import UNREADABLE
from .changes import Change, R, table
from .ledger import clipped, sums_of
from .store import Happened, SetAside

_TABLES = ("containers", "pods", "volumes", "networks", "tokens", "organisations", "projects", "people", "unfinished",
           "users", "metering", "pricelists", "credits", "invoices", "accounts", "crons",
           "securitygroups", "fips", "deployments")  # fmt: skip


@dataclass
class Rows:
    """What is written."""

    tables: dict[str, dict[str, Change]] = field(default_factory=lambda: {t: {} for t in _TABLES})
    aside: dict[tuple[str, str], tuple[Change, str]] = field(default_factory=dict)  # by table and id: it, and why
    events: dict[int, Happened] = field(default_factory=dict)
    uses: list[Use] = field(default_factory=list)


@dataclass
class FakeDisk:
    """As a file of the host."""

    rows: Rows = field(default_factory=Rows)
    full: bool = False


class FakeStore:
    """A `Store`."""

    def __init__(self, disk: FakeDisk) -> None:
        self._disk = disk
        self._open = True

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

    def _read(self, type_: type[R]) -> list[R]:
        kind: str = table(type_)
        rows: Rows = self._disk.rows
        found: list[R] = []
        again: list[Change] = [change for (k, _), (change, _) in rows.aside.items() if k == kind]
        taken = {(c.tenant, c.name) for c in rows.tables[kind].values()}
        again = [c for c in again if (c.tenant, c.name) not in taken]
        for change in [*rows.tables[kind].values(), *again]:
            try:
                found.append(msgspec.json.decode(change.document or b"", type=type_))
            except UNREADABLE as error:
                rows.aside[kind, change.id] = (change, f"it cannot be read: {error}")
                rows.tables[kind].pop(change.id, None)
            else:
                rows.aside.pop((kind, change.id), None)
                rows.tables[kind][change.id] = change
        return found

    def set_aside(self) -> list[SetAside]:
        found = self._disk.rows.aside.items()
        return [SetAside(kind, id_, c.name, why, _pod_of(id_, c)) for (kind, id_), (c, why) in found]

    def unfinished(self) -> list[str]:
        return list(self._disk.rows.tables["unfinished"])

    def users(self) -> dict[int, str]:
        return {int(number): change.name for number, change in self._disk.rows.tables["users"].items()}

    def events(self, first: int, end: int, limit: int, tenant: str | None = None) -> list[Happened]:
        there = (e for _, e in sorted(self._disk.rows.events.items()) if tenant in (None, e.tenant))
        found = [e for e in there if first <= e.time < end]
        return found[:limit]

    def last_event(self) -> int:
        return max(self._disk.rows.events, default=0)

    def metered(self) -> dict[str, bytes]:
        return {id_: change.document or b"" for id_, change in self._disk.rows.tables["metering"].items()}

    def last_use(self) -> int:
        return len(self._disk.rows.uses)

    def day_sums(self, first: int, end: int, whose: Whose, *, short: bool) -> list[DaySum]:
        found = [part for use in self.uses(first, end) for part in sums_of(use)]
        return _added([p for p in found if whose.has(p.payer, p.tenant) and (short or p.short == ANY)])

    def day_part(self, since: int, until: int, whose: Whose) -> list[DaySum]:
        uses = [u for u in self.uses(since // DAY, since // DAY + 1) if whose.has(u.subject.payer, u.subject.tenant)]
        return _added([part for use in uses for part in clipped(use, since, until)])

    def uses(self, first: int, end: int) -> Iterator[Use]:
        return iter([u for u in self._disk.rows.uses if first <= u.day < end])

    def uses_after(self, number: int, limit: int) -> list[Use]:
        return self._disk.rows.uses[number : number + limit]

    def check_uses(self) -> tuple[int, list[str]]:
        return len(self._disk.rows.uses), []

    # -- writing --------------------------------------------------------------------

    def commit(self, changes: Iterable[Change], events: Iterable[Happened] = ()) -> None:
        self._check_writable()
        rows = copy.deepcopy(self._disk.rows)
        for change in changes:
            _apply(rows, change)
        for event in events:
            rows.events.setdefault(event.time, event)
        self._disk.rows = rows

    def _check_writable(self) -> None:
        if not self._open:
            raise Unavailable("the state database cannot be written: it is closed")
        if self._disk.full:
            raise NoSpace("no space left on the disk of the state database", hint="free some and try again")

    def move_aside(self, kind: str, id_: str, why: str) -> None:
        self._check_writable()
        if change := self._disk.rows.tables[kind].pop(id_, None):
            self._disk.rows.aside[kind, id_] = (change, why)

    def forget_aside(self, kind: str, id_: str) -> None:
        self._check_writable()
        self._disk.rows.aside.pop((kind, id_), None)

    def forget_events(self, count: int, before: int, tenants: Iterable[str] | None) -> None:
        if self._disk.full:
            return
        events = self._disk.rows.events
        for tenant in {e.tenant for e in events.values()} if tenants is None else tenants:
            own = sorted(t for t, e in events.items() if e.tenant == tenant)
            for time in own[: max(0, len(own) - count)]:
                del events[time]
        self._disk.rows.events = {t: e for t, e in events.items() if t >= before}

    def close(self) -> None:
        self._open = False


def _added(parts: Iterable[DaySum]) -> list[DaySum]:
    found: dict[tuple[object, ...], DaySum] = {}
    for part in parts:
        before = found.get(part[:8], part._replace(quantity=0, runs=0))
        found[part[:8]] = part._replace(quantity=before.quantity + part.quantity, runs=before.runs + part.runs)
    return list(found.values())


def _pod_of(id_: str, change: Change) -> str:
    """Its own, if it does not say."""
    try:
        return str(msgspec.json.decode(change.document or b"").get("pod", id_))
    except (*UNREADABLE, AttributeError):
        return id_


def _apply(rows: Rows, change: Change) -> None:
    if change.table == "uses":
        use = msgspec.json.decode(change.document or b"", type=Use)
        if use.number != len(rows.uses) + 1:
            raise Unavailable(f"the state database cannot be written: entry {use.number} is not the next one")
        rows.uses.append(use)
        return
    found = rows.tables.get(change.table)
    if found is None:
        raise Unavailable(f"the state database cannot be written: no such table: {change.table}")
    if change.document is None:
        found.pop(change.id, None)
        return
    if change.table == "users" and change.id in found:
        raise Unavailable(f"the state database cannot be written: user {change.id} is another's")
    others = {(c.tenant, c.name) for c in found.values() if c.id != change.id}
    if change.table not in ("unfinished", "users", "metering") and (change.tenant, change.name) in others:
        raise Unavailable(f"the state database cannot be written: the name {change.name} is another's")
    found[change.id] = change
