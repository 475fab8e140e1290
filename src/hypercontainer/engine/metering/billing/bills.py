# SPDX-License-Identifier: Apache-2.0
"""Accounts of organisations: their price lists, credits, invoices, and what is left.

A month's invoice is issued when the month is over and all of it is in the ledger, and never changes. What comes to the
ledger later, because a clock was set back, counts in the month that is then open.
"""

from __future__ import annotations

import asyncio
import secrets
from collections import defaultdict
from collections.abc import Iterable
from datetime import UTC, date, datetime, timedelta

from msgspec.structs import replace

from ....errors import Conflict, InvalidArgument, NotFound
from ....model.billing import (
    Account,
    AccountInfo,
    AccountRequest,
    Credit,
    CreditRequest,
    FormerPrices,
    Invoice,
    PriceList,
    Prices,
    read_money,
)
from ....model.metering import DAY, EVERYBODY, DaySum, Whose
from ....model.tenancy import Organisation
from ....state import changes as rows
from ....state.changes import Change
from ....state.journal import Journal
from ....sys import clock
from ...principal import current
from ...tenants import Tenants
from ..meter import Meter
from ..sums import Sums
from .charges import held, lines


class Bills:
    """The only holder of these records."""

    def __init__(self, journal: Journal, tenants: Tenants, meter: Meter, sums: Sums) -> None:
        self._journal, self._tenants, self._meter, self._sums = journal, tenants, meter, sums
        store = journal.database
        self._prices = {p.id: p for p in store.price_lists()}
        self._credits = {c.id: c for c in store.credits()}
        self._invoices = {(i.organisation, i.month): i for i in store.invoices()}
        self._accounts = {a.id: a for a in store.accounts()}
        for invoice in self._invoices.values():
            meter.close_before(_month(invoice.month)[1], invoice.organisation)

    # -- prices -----------------------------------------------------------------------

    def prices(self) -> list[Prices]:
        """All versions of all lists, by name and day."""
        return [p.prices for p in sorted(self._prices.values(), key=lambda p: p.name)]

    def put_prices(self, prices: Prices) -> Prices:
        """A new version; what a day cost on which one held already stays as it is.

        :raise InvalidArgument: there is no such day.
        :raise Conflict: it would change days that have begun, or is of another currency.
        """
        _day(prices.valid_from)
        for size in prices.sizes:
            if not size or len(size) > 63:
                raise InvalidArgument(f"invalid size {size!r} in the price list", hint="name it as in `hyperctl size`")
        record = PriceList(id=secrets.token_hex(6), created_at=clock.stamp(), prices=prices, owner=current().owner)
        versions = self._versions(prices.name)
        before = next((p for p in versions if p.name == record.name), None)
        today = f"{clock.now():%Y-%m-%d}"
        held = max((v for p in versions if (v := p.prices.valid_from) <= today), default="")
        if held and prices.valid_from <= today:
            raise Conflict(f"the price list {prices.name} has a version of {held}, which holds already",
                           hint="give a validFrom after today, by UTC")  # fmt: skip
        if any(p.prices.currency != prices.currency for p in versions):
            raise Conflict(f"the price list {prices.name} is in another currency", hint="choose another name")
        if before:
            record = replace(record, id=before.id)
        self._journal.write_now(rows.put(record))
        self._prices[record.id] = record
        return prices

    def _versions(self, name: str) -> list[PriceList]:
        return [p for p in self._prices.values() if p.prices.name == name]

    # -- accounts ---------------------------------------------------------------------

    @property
    def active(self) -> bool:
        """Whether anything has a price."""
        return bool(self._prices)

    def accounts(self) -> list[Account]:
        """Of all organisations; a new one has one as soon as there are prices."""
        if not self._prices:
            return []
        return [self.account(o) for o in self._tenants.organisations()]

    def account(self, of: Organisation) -> Account:
        """Opened when it is asked for first, with the oldest price list, and the credit that it gives.

        :raise NotFound: there are no prices. :raise NoSpace: the disk is full.
        """
        if found := self._accounts.get(of.id):
            return found
        if not self._prices:
            raise NotFound("there is no price list", hint="see `hyperctl billing prices --help`")
        oldest = min(self._prices.values(), key=lambda p: p.created_at).prices
        account = Account(id=of.id, opened_at=clock.stamp(), prices=oldest.name, prepaid=oldest.prepaid)
        made: list[Account | Credit] = [account]
        if opening := read_money(oldest.opening_credit):
            made.append(_credit(of, CreditRequest(amount=opening, reason="opening credit")))
        self._put(*made)
        return account

    def opened(self, organisation: str) -> Account:
        """As it is now; `organisation` is the id of one that has one, or had."""
        return self._accounts[organisation]

    def change(self, of: Organisation, request: AccountRequest) -> Account:
        """:raise NotFound: no such price list. :raise Conflict: it is in another currency than what was paid."""
        account = self.account(of)
        if request.prices is not None:
            found = self._versions(request.prices)
            if not found:
                raise NotFound(f"no such price list: {request.prices}", hint="see `hyperctl billing prices`")
            if found[0].prices.currency != self.currency(account):
                raise Conflict(f"the price list {request.prices} is in {found[0].prices.currency}, "
                               f"and the account in {self.currency(account)}")  # fmt: skip
            account = self._paying_by(of, account, request.prices)
        given = {n: v for n in ("prepaid", "policy", "grace", "budget")
                 if (v := getattr(request, n)) is not None}  # fmt: skip
        told = {} if "budget" in given else account.told
        return self.put_account(replace(account, **given, told=told))

    def _paying_by(self, of: Organisation, account: Account, name: str) -> Account:
        """By another price list from tomorrow on, or at once where nothing was used yet that is not billed."""
        tomorrow, former = f"{clock.now() + timedelta(days=1):%Y-%m-%d}", account.former
        end = _month(this_month())[1]
        begin = min((_month(month)[0] for month in self._unbilled(account)), default=end)
        if former and former[-1].until == tomorrow:  # the present one has not held on any day
            if former[-1].prices == name:
                former = former[:-1]
        elif name != account.prices and any(self._sums.parts(begin, end, Whose(payer=of.id))):
            former = [*former, FormerPrices(prices=account.prices, until=tomorrow)]
        return replace(account, prices=name, former=former)

    def put_account(self, account: Account) -> Account:
        """Write a changed one. :raise NoSpace: the disk is full; it is as it was."""
        self._put(account)
        return account

    def currency(self, account: Account) -> str:
        """Its price list's."""
        return next((p.prices.currency for p in self._versions(account.prices)), "")

    def credit(self, of: Organisation, request: CreditRequest) -> Credit:
        """:raise InvalidArgument: it is of nothing."""
        if not request.amount:
            raise InvalidArgument("a credit of 0 is none")
        self.account(of)
        credit = _credit(of, request)
        self._put(credit)
        return credit

    def _put(self, *records: Account | Credit | Invoice) -> None:
        self._journal.write_now(*map(rows.put, records))
        for record in records:
            if isinstance(record, Account):
                self._accounts[record.id] = record
            elif isinstance(record, Credit):
                self._credits[record.id] = record
            else:
                self._invoices[record.organisation, record.month] = record

    # -- what was used ------------------------------------------------------------------

    def info(self, of: Organisation) -> AccountInfo:
        """All that is told of an account."""
        account = self.account(of)
        credits = sorted((c for c in self._credits.values() if c.organisation == of.id), key=lambda c: c.created_at)
        months = sorted(month for id_, month in self._invoices if id_ == of.id)
        return AccountInfo(
            organisation=of.name, currency=self.currency(account), prices=account.prices, balance=self.balance(of),
            month=this_month(), this_month=self.invoice(of, this_month()).total, budget=account.budget,
            prepaid=account.prepaid, policy=account.policy, grace=account.grace, suspended=account.suspended,
            credits=credits, invoices=months,
        )  # fmt: skip

    def balance(self, of: Organisation) -> int:
        """Credits without what was used, billed or not."""
        return self.paid(of.id) - sum(self.invoice(of, m).total for m in self._unbilled(self.account(of)))

    def paid(self, organisation: str) -> int:
        """Credits without what was billed."""
        billed = sum(i.total for (id_, _), i in self._invoices.items() if id_ == organisation)
        return sum(c.amount for c in self._credits.values() if c.organisation == organisation) - billed

    def _unbilled(self, account: Account) -> list[str]:
        """Months from its opening on that have no invoice, this one the last."""
        month, last, found = account.opened_at[:7], this_month(), []
        while month <= last:
            if (account.id, month) not in self._invoices:
                found.append(month)
            month = _next(month)
        return found

    def invoice(self, of: Organisation, month: str) -> Invoice:
        """That of a month; of one that is not over what it would be now.

        :raise InvalidArgument: the month has yet to come.
        """
        if found := self._invoices.get((of.id, month)):
            return found
        if month > this_month():
            raise InvalidArgument(f"the month {month} has yet to come")
        begin, end = _month(month)
        return self._made(of, month, self._sums.parts(begin, end, Whose(payer=of.id), short=True))

    def _made(self, of: Organisation, month: str, parts: Iterable[DaySum]) -> Invoice:
        account = self.account(of)
        found = lines(parts, held(self._prices.values(), account), self._sums.names)
        return Invoice(
            id=secrets.token_hex(6), number=0, organisation=of.id, organisation_name=of.name, month=month,
            currency=self.currency(account), lines=found, total=sum(line.amount for line in found),
        )  # fmt: skip

    async def costs(self) -> dict[str, int]:
        """What each organisation has used that is not billed, day by day, so that others are served meanwhile.

        What becomes an entry of a day that was looked at already is not in it.
        """
        accounts = self.accounts()
        unbilled = {a.id: set(self._unbilled(a)) for a in accounts}
        totals: dict[str, int] = defaultdict(int)
        for month in sorted(set().union(*unbilled.values())):
            by_payer: dict[str, list[DaySum]] = defaultdict(list)
            begin, end = _month(month)
            for day in range(begin, min(end, clock.now_ns() // 10**6), DAY):
                for part in self._sums.parts(day, day + DAY, EVERYBODY, short=True):
                    by_payer[part.payer].append(part)
                await asyncio.sleep(0)
            for account in [a for a in accounts if month in unbilled[a.id]]:
                found = lines(by_payer[account.id], held(self._prices.values(), account), str)
                totals[account.id] += sum(line.amount for line in found)
                await asyncio.sleep(0)
        return totals

    def issue(self) -> list[Invoice]:
        """Invoices of months that are over, when all of them is in the ledger, and none of it waits for the disk."""
        issued: list[Invoice] = []
        if self._journal.trouble:
            return issued
        for account in self.accounts():
            of = self._tenants.organisation(account.id)
            for month in [m for m in self._unbilled(account) if m < this_month()]:
                if self._meter.lasts_from_before(_month(month)[1], of.id):
                    continue
                invoice = replace(self.invoice(of, month), number=self._next_number(), issued_at=clock.stamp())
                self._put(invoice)
                self._meter.close_before(_month(month)[1], of.id)
                issued.append(invoice)
        return issued

    def _next_number(self) -> int:
        return max((i.number for i in self._invoices.values()), default=0) + 1

    def bill_last(self, of: Organisation, removal: Change) -> list[Invoice]:
        """The last invoices of an organisation without projects, which come with its removal: nothing more is used.

        :raise NoSpace: the disk is full; it is as it was.
        """
        self._journal.write_now()  # what waits is to be in them
        made: list[Invoice] = []
        for month in self._unbilled(self.account(of)) if self.active else []:
            if (found := self.invoice(of, month)).lines:
                made.append(replace(found, number=self._next_number() + len(made), issued_at=clock.stamp()))
        self._journal.write_now(removal, *map(rows.put, made))
        self._invoices.update({(i.organisation, i.month): i for i in made})
        return made

    def removed(self, id_: str) -> Organisation | None:
        """One that has an account still, under its last invoice's name."""
        if id_ not in self._accounts or any(o.id == id_ for o in self._tenants.organisations()):
            return None
        invoices = sorted((i for i in self._invoices.values() if i.organisation == id_), key=lambda i: i.number)
        return Organisation(id=id_, name=invoices[-1].organisation_name if invoices else id_, created_at="")


def _credit(of: Organisation, request: CreditRequest) -> Credit:
    return Credit(
        id=secrets.token_hex(6), organisation=of.id, created_at=clock.stamp(), amount=request.amount,
        reason=request.reason, owner=current().owner,
    )  # fmt: skip


def _day(text: str) -> date:
    """:raise InvalidArgument: there is none."""
    try:
        return date.fromisoformat(text)
    except ValueError:
        raise InvalidArgument(f"there is no day {text}", hint="write it like 2026-01-31") from None


def this_month() -> str:
    """By UTC, as 2026-01."""
    return f"{clock.now():%Y-%m}"


def read_month(text: str) -> str:
    """:raise InvalidArgument: it is none, as 2026-01."""
    try:
        datetime.strptime(f"{text}-01", "%Y-%m-%d")
    except ValueError:
        text = ""
    if len(text) != 7:
        raise InvalidArgument("there is no such month", hint="write it like 2026-01")
    return text


def _next(month: str) -> str:
    year, number = map(int, month.split("-"))
    return f"{year + number // 12:04}-{number % 12 + 1:02}"


def _month(month: str) -> tuple[int, int]:
    """When it begins and ends: milliseconds since the epoch."""
    return _begin(month), _begin(_next(month))


def _begin(month: str) -> int:
    year, number = map(int, month.split("-"))
    return int(datetime(year, number, 1, tzinfo=UTC).timestamp()) * 1000
