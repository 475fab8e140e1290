# SPDX-License-Identifier: Apache-2.0
"""What use costs: exactly, and rounded once; months that are over never change."""

from __future__ import annotations

import asyncio
import contextlib
import csv
import io
import zlib
from collections.abc import Iterator
from datetime import UTC, datetime
from fractions import Fraction
from typing import Any

import msgspec
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from hypercontainer.engine.metering.billing.bills import Bills, read_month
from hypercontainer.engine.metering.billing.charges import cost, lines
from hypercontainer.engine.metering.billing.documents import as_csv, as_pdf
from hypercontainer.engine.metering.meter import Meter
from hypercontainer.engine.metering.sources import Sources
from hypercontainer.engine.metering.sums import Sums
from hypercontainer.engine.registry import Registry
from hypercontainer.engine.tenants import Tenants
from hypercontainer.errors import Conflict, InvalidArgument, NotFound
from hypercontainer.model.billing import (
    AccountRequest,
    CreditRequest,
    Invoice,
    PriceList,
    Prices,
    read_money,
    write_money,
)
from hypercontainer.model.metering import ANY, DAY, MIB, DaySum
from hypercontainer.model.status import Pod, Vm, Volume
from hypercontainer.model.tenancy import Organisation, Project
from hypercontainer.state.fake import FakeDisk, FakeStore
from hypercontainer.sys import clock

VM = Vm(driver="fake", pid=1, directory="/d", token="00")
RED = Organisation(id="o1", name="red", created_at="")
WEB = Project(id="p1", name="web", organisation="o1", created_at="")
PRICES = Prices(
    name="standard", currency="USD", valid_from="2023-01-01", minimum_seconds=10, sizes={"S4": "0.000002"},
    vcpu_second="0.000001", gb_second="0.000004", volume_month="0.1", opening_credit="20",
)  # fmt: skip


def versions(*prices: Prices) -> list[PriceList]:
    return [PriceList(id=str(n), created_at=str(n), prices=p) for n, p in enumerate(prices)]


def day(text: str) -> int:
    return int(datetime.fromisoformat(text).replace(tzinfo=UTC).timestamp()) // 86400


def part(kind: str, quantity: int, **how: Any) -> DaySum:
    base = DaySum(day("2023-11-14"), "p1", "o1", kind, "", 1, 512, ANY, quantity, 0)
    return base._replace(**how)


def charged(*parts: DaySum, prices: tuple[Prices, ...] = (PRICES,)) -> list[tuple[str, str, int, str, int]]:
    found = lines(parts, versions(*prices), lambda id_: id_)
    return [(line.what, line.size, line.quantity, line.price, line.amount) for line in found]


def test_a_named_size_has_its_price_and_others_that_of_their_parts() -> None:
    assert charged(part("pod", 3_600_000, size="S4"), part("pod", 3_600_000, vcpus=2)) == [
        ("pod", "2x512", 3_600_000, "0.000004", 14_400), ("pod", "S4", 3_600_000, "0.000002", 7200),
    ]  # fmt: skip
    month = 730 * 3_600_000
    assert charged(part("volume", 10 * 1024 * month)) == [("volume", "", 10 * 1024 * month, "0.1", 1_000_000)]
    assert charged(part("egress", 5 << 30)) == []  # it has no price
    address = part("address", month // 2, size="ipv4")
    paid = msgspec.structs.replace(PRICES, address_month="1")
    assert charged(address) == []
    assert charged(address, prices=(paid,)) == [("address", "ipv4", month // 2, "1", 500_000)]
    dear = msgspec.structs.replace(PRICES, egress="0.09")
    assert charged(part("egress", 5 << 30), prices=(dear,)) == [("egress", "", 5 << 30, "0.09", 450_000)]


def test_a_start_costs_a_minimum() -> None:
    short = part("pod", 3 * 4500, size="S4", short=4, runs=3)  # three runs of four and a half seconds each
    long = part("pod", 11_000, size="S4", short=11, runs=1)
    whole = part("pod", 3 * 4500 + 11_000, size="S4", runs=4)
    assert charged(whole, short, long) == [
        ("minimum", "S4", 30_000 - 3 * 4500, "0.000002", 33), ("pod", "S4", 24_500, "0.000002", 49),
    ]  # fmt: skip


def test_a_price_is_that_of_its_day() -> None:
    later = msgspec.structs.replace(PRICES, valid_from="2023-11-15", sizes={"S4": "1"})
    parts = [part("pod", 1000, size="S4", day=day(d)) for d in ("2022-12-31", "2023-11-14", "2023-11-15")]
    assert charged(*parts, prices=(PRICES, later)) == [
        ("pod", "S4", 1000, "0.000002", 2), ("pod", "S4", 1000, "1", 1_000_000),
    ]  # fmt: skip


@settings(deadline=None)
@given(st.integers(0, 10**15), st.integers(0, 10**12))
def test_a_line_is_rounded_once_half_up(quantity: int, picos: int) -> None:
    price = f"{picos // 10**12}.{picos % 10**12:012}"
    exact = Fraction(quantity, 1000) * Fraction(picos, 10**12) * 10**6
    assert abs(cost("pod", quantity, price) - exact) <= Fraction(1, 2)
    assert cost("pod", 1000, "0.0000005") == 1 and cost("pod", 999, "0.0000005") == 0


def test_money_is_read_and_written() -> None:
    assert [read_money(t) for t in ("20", "0.5", "-3.000001")] == [20_000_000, 500_000, -3_000_001]
    assert (write_money(-3_000_001), write_money(1_234_567, 2)) == ("-3.000001", "1.23")
    for wrong in ("", "1e3", "0.0000001", "1,5", "USD 3"):
        with pytest.raises(InvalidArgument, match="amount"):
            read_money(wrong)
    with pytest.raises(InvalidArgument, match="month"):
        read_month("2026-13")


class World:
    """An organisation with a project, and time that one sets."""

    def __init__(self) -> None:
        self.ms = int(datetime(2023, 11, 14, 22, tzinfo=UTC).timestamp()) * 1000
        self.disk = FakeDisk()
        self.open()
        self.tenants.put(RED, WEB)

    def open(self) -> None:
        self.registry = Registry(FakeStore(self.disk))
        self.tenants = Tenants(self.registry.journal)
        payer = lambda tenant: "o1" if tenant else ""  # noqa: E731
        self.meter = Meter(self.registry.journal, Sources(lambda: True, lambda tenant: True, payer=payer))
        self.registry.meter = self.meter
        self.meter.open()
        names = {"o1": "red", "p1": "web"}
        sums = Sums(self.registry.journal.database, self.meter, lambda id_: names.get(id_, id_))
        self.bills = Bills(self.registry.journal, self.tenants, self.meter, sums)

    def passes(self, seconds: float) -> None:
        self.ms += int(seconds * 1000)

    def start(self, id_: str, size: str = "S4") -> None:
        pod = Pod(
            id=id_, name=id_, created_at="", hostname="", vcpus=1, memory=512 * MIB, vm=VM, tenant="p1", size=size
        )
        self.registry.put_pod(pod)

    def stop(self, id_: str) -> None:
        self.registry.erase(self.registry.pod(id_))


@pytest.fixture
def world() -> Iterator[World]:
    with contextlib.ExitStack() as stack:
        source = [World.__new__(World)]
        stack.enter_context(clock.told_by(lambda: source[0].ms * 10**6))
        source[0].ms = 0
        source[0].__init__()  # type: ignore[misc]
        yield source[0]


def test_an_account_is_opened_with_its_credit_and_pays_what_is_used(world: World) -> None:
    with pytest.raises(NotFound, match="price list"):
        world.bills.account(RED)
    world.bills.put_prices(PRICES)
    assert world.bills.info(RED).balance == 20_000_000
    world.start("a")
    world.passes(1000)
    found = world.bills.info(RED)
    assert (found.this_month, found.balance) == (2000, 20_000_000 - 2000)
    assert asyncio.run(world.bills.costs()) == {"o1": 2000}
    world.stop("a")
    world.start("b")
    world.passes(1)
    world.stop("b")
    assert world.bills.info(RED).this_month == 2000 + 2 + 18  # at least ten seconds
    world.bills.credit(RED, CreditRequest(amount=5_000_000, reason="thanks"))
    assert world.bills.info(RED).balance == 25_000_000 - 2020
    world.open()  # another daemon
    found = world.bills.info(RED)
    assert found.balance == 25_000_000 - 2020 and [c.reason for c in found.credits] == ["opening credit", "thanks"]


def test_a_month_that_is_over_is_billed_and_never_changes(world: World) -> None:
    world.bills.put_prices(PRICES)
    world.registry.put_volume(Volume(name="v", created_at="", driver="block", path="/", size=1 << 30, tenant="p1"))
    world.start("a")
    world.bills.accounts()
    end = int(datetime(2023, 12, 1, tzinfo=UTC).timestamp()) * 1000
    first = end - world.ms
    world.passes((first + 5000) / 1000)
    assert world.bills.issue() == []  # what was used until now is not in the ledger yet
    world.meter.mark()
    (issued,) = world.bills.issue()
    amounts = {line.what: line.amount for line in issued.lines}
    assert amounts == {"pod": cost("pod", first, "0.000002"), "volume": cost("volume", 1024 * first, "0.1")}
    assert (issued.number, issued.month, issued.total) == (1, "2023-11", sum(amounts.values()))
    assert world.bills.issue() == []
    world.bills.put_prices(msgspec.structs.replace(PRICES, valid_from="2023-12-02", sizes={"S4": "9"}))
    world.ms -= 3 * DAY  # somebody sets the clock
    world.stop("a")
    world.open()
    assert world.bills.invoice(RED, "2023-11") == issued
    world.ms += 3 * DAY
    assert world.bills.invoice(RED, "2023-12").lines
    with pytest.raises(InvalidArgument, match="yet to come"):
        world.bills.invoice(RED, "2024-01")


def test_a_month_is_not_billed_while_what_was_used_waits_for_the_disk(world: World) -> None:
    world.bills.put_prices(PRICES)
    world.start("a")
    world.bills.accounts()
    end = int(datetime(2023, 12, 1, tzinfo=UTC).timestamp()) * 1000
    first = end - world.ms
    world.passes(first / 1000)
    world.disk.full = True
    world.stop("a")
    world.disk.full = False
    assert world.bills.issue() == []
    world.registry.journal.write()  # it is tried again
    (issued,) = world.bills.issue()
    assert issued.total == cost("pod", first, "0.000002")


def test_an_organisations_month_waits_for_no_other_and_closes_no_other(world: World) -> None:
    """Of one a machine is not in the ledger yet: it has not answered for long."""
    world.bills.put_prices(PRICES)
    world.tenants.put(Organisation(id="o2", name="blue", created_at=""))
    world.start("a")
    world.bills.accounts()
    world.passes(20 * 86400)
    assert [i.organisation for i in world.bills.issue()] == ["o2"]
    world.open()
    world.start("a")  # it answers
    world.stop("a")
    (issued,) = world.bills.issue()
    end, began = day("2023-12-01") * DAY, day("2023-11-14") * DAY + 22 * 3_600_000
    assert (issued.organisation, sum(line.quantity for line in issued.lines)) == ("o1", end - began)


def test_another_price_list_of_an_account_holds_from_the_next_day_on(world: World) -> None:
    dear = msgspec.structs.replace(PRICES, name="dear", sizes={"S4": "0.001"})
    world.bills.put_prices(PRICES)
    world.passes(1)
    for other in (dear, msgspec.structs.replace(dear, name="dearer", valid_from="2024-01-01")):
        world.bills.put_prices(other)
    world.bills.change(RED, AccountRequest(prices="dear"))  # nothing was used yet: at once
    world.bills.change(RED, AccountRequest(prices="standard"))
    assert world.bills.account(RED).former == []
    world.start("a")
    world.passes(1000)
    for name in ("dearer", "standard", "dear"):
        world.bills.change(RED, AccountRequest(prices=name))
    assert world.bills.info(RED).this_month == 2000
    first = (DAY - world.ms % DAY) // 1000
    world.passes(first + 100)
    cost = (1000 + first) * 2 + 100 * 1000
    assert world.bills.info(RED).this_month == cost == asyncio.run(world.bills.costs())["o1"]
    world.bills.change(RED, AccountRequest(prices="dearer"))  # which costs nothing before it holds
    rest = (DAY - world.ms % DAY) // 1000
    world.passes(rest + 86400)
    world.open()
    world.start("a")
    assert world.bills.info(RED).this_month == cost + rest * 1000


def test_prices_that_hold_do_not_change(world: World) -> None:
    world.bills.put_prices(PRICES)
    with pytest.raises(Conflict, match="holds already"):
        world.bills.put_prices(PRICES)
    for day_before in ("2022-01-01", "2023-11-10", "2023-11-14"):  # it would change what was used since
        with pytest.raises(Conflict, match="2023-01-01, which holds already"):
            world.bills.put_prices(msgspec.structs.replace(PRICES, valid_from=day_before, volume_month="9"))
    with pytest.raises(Conflict, match="currency"):
        world.bills.put_prices(msgspec.structs.replace(PRICES, valid_from="2024-01-01", currency="EUR"))
    with pytest.raises(InvalidArgument, match="no day"):
        world.bills.put_prices(msgspec.structs.replace(PRICES, valid_from="2023-02-30"))
    later = msgspec.structs.replace(PRICES, valid_from="2024-01-01")
    world.bills.put_prices(later)
    world.bills.put_prices(msgspec.structs.replace(later, volume_month="1"))
    assert [(p.valid_from, p.volume_month) for p in world.bills.prices()] == [
        ("2023-01-01", "0.1"),
        ("2024-01-01", "1"),
    ]
    with pytest.raises(NotFound, match="no such price list"):
        world.bills.change(RED, AccountRequest(prices="dear"))
    with pytest.raises(InvalidArgument, match="credit of 0"):
        world.bills.credit(RED, CreditRequest(amount=0))


def test_documents(world: World) -> None:
    made = lines([part("pod", 3_600_000, size="S4", tenant=f"project-{n}") for n in range(100)], versions(PRICES), str)
    invoice = Invoice(
        id="i", number=7, organisation="o1", organisation_name="red", month="2023-11", currency="USD",
        issued_at="2023-12-01T00:00:00Z", lines=made, total=sum(line.amount for line in made) + 10**15,
    )  # fmt: skip
    rows = list(csv.DictReader(io.StringIO(as_csv(invoice))))
    assert len(rows) == 101 and sum(Fraction(r["amount"]) for r in rows[:100]) + 10**9 == Fraction(rows[100]["amount"])
    pdf = as_pdf(invoice)
    assert pdf.startswith(b"%PDF") and b"/Count 3" in pdf
    streams = [p.partition(b"endstream")[0].strip(b"\r\n") for p in pdf.split(b"stream\n")[1::2]]
    text = b"".join(zlib.decompress(s) for s in streams if s[:1] == b"\x78")
    assert b"Invoice of red, 2023-11" in text and b"No. 7" in text and b"1000000000.720000 USD" in text
