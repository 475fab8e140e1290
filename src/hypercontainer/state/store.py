# SPDX-License-Identifier: Apache-2.0
"""Where records and events lie: what the journal and the registry ask of it.

`Database` is the one of the daemon, `fake.FakeStore` one of objects; tests/contract/test_journal.py says what both do.
"""

from __future__ import annotations

from collections.abc import Iterable, Iterator
from typing import NamedTuple, Protocol

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
from .changes import Change


class SetAside(NamedTuple):
    """A record that could not be read; `pod` is the id of its pod, if that much is known."""

    kind: str  # the table
    id: str
    name: str
    why: str
    pod: str


class Happened(NamedTuple):
    """An event: its time in nanoseconds since the epoch, which no other has, its JSON, and whose it is."""

    time: int
    document: bytes
    tenant: str = ""  # "" is no project's


class Store(Protocol):
    """Opened once, by the daemon. What an earlier version wrote is brought to the present form when it is opened."""

    def containers(self) -> list[Container]:
        """Those that can be read, with earlier unreadable ones that now can be; the others are set aside."""

    def pods(self) -> list[Pod]:
        """As `containers`."""

    def volumes(self) -> list[Volume]:
        """As `containers`."""

    def networks(self) -> list[Network]:
        """As `containers`."""

    def tokens(self) -> list[Token]:
        """As `containers`."""

    def organisations(self) -> list[Organisation]:
        """As `containers`."""

    def projects(self) -> list[Project]:
        """As `containers`."""

    def people(self) -> list[User]:
        """As `containers`."""

    def deployments(self) -> list[Deployment]:
        """As `containers`."""

    def crons(self) -> list[Cron]:
        """As `containers`."""

    def security_groups(self) -> list[SecurityGroup]:
        """As `containers`."""

    def fips(self) -> list[Fip]:
        """As `containers`."""

    def accounts(self) -> list[Account]:
        """As `containers`."""

    def credits(self) -> list[Credit]:
        """As `containers`."""

    def invoices(self) -> list[Invoice]:
        """As `containers`."""

    def price_lists(self) -> list[PriceList]:
        """As `containers`."""

    def set_aside(self) -> list[SetAside]:
        """What could not be read so far."""

    def move_aside(self, kind: str, id_: str, why: str) -> None:
        """A record that this daemon can make nothing of; the next one finds it in its place, or moves it again.

        Raises what `commit` does.
        """

    def forget_aside(self, kind: str, id_: str) -> None:
        """Give a record up that could not be read. Raises what `commit` does."""

    def unfinished(self) -> list[str]:
        """Ids of what was being made or removed when the daemon ended."""

    def users(self) -> dict[int, str]:
        """User numbers that machines have, and the names of their allotments."""

    def metered(self) -> dict[str, bytes]:
        """What was written of what is used: documents by their keys."""

    def last_use(self) -> int:
        """The number of the ledger's last entry; 0 when there is none."""

    def day_sums(self, first: int, end: int, whose: Whose, *, short: bool) -> list[DaySum]:
        """Of the days `first` <= day < `end`; with `short` also the lengths of short runs."""

    def day_part(self, since: int, until: int, whose: Whose) -> list[DaySum]:
        """Of a part of a day, between two milliseconds since the epoch."""

    def uses(self, first: int, end: int) -> Iterator[Use]:
        """The ledger's entries of these days, in their order."""

    def uses_after(self, number: int, limit: int) -> list[Use]:
        """The ledger's entries after that one, `limit` at most."""

    def check_uses(self) -> tuple[int, list[str]]:
        """How many entries there are, and a sentence of each thing that is wrong with them or the sums of days."""

    def commit(self, changes: Iterable[Change], events: Iterable[Happened] = ()) -> None:
        """All of them, or none; in their order, since names may change hands.

        :raise NoSpace: when the disk is full. :raise Unavailable: when it cannot be written for another reason.
        """

    def events(self, first: int, end: int, limit: int, tenant: str | None = None) -> list[Happened]:
        """The oldest with `first` <= time < `end`, `limit` at most, in their order; None: everybody's."""

    def last_event(self) -> int:
        """The time of the last one; 0 when there is none."""

    def forget_events(self, count: int, before: int, tenants: Iterable[str] | None) -> None:
        """All but the last `count` of each of these tenants, or of each that there is, and everybody's before a time.
        On a full disk they stay.
        """

    def close(self) -> None:
        """Idempotent."""
