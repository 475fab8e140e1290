# SPDX-License-Identifier: Apache-2.0
"""Lines of an invoice. Each is computed exactly and rounded once, half up, to 10^-6 of the currency."""

from __future__ import annotations

from collections.abc import Callable, Iterable, Sequence
from dataclasses import dataclass
from decimal import Decimal
from fractions import Fraction
from math import floor

from msgspec.structs import replace

from ....model.billing import MICRO, Account, Line, PriceList, Prices
from ....model.metering import ANY, UNITS, DaySum
from ..sums import date_of, size_name

_MONTH = 730 * 3600 * 1000  # milliseconds
_MIB = 1024  # of a GB
_GB = 1 << 30  # bytes
_NEVER = "9999-12-32"  # after all days
_MINIMUM = "minimum"  # in the place of a kind: what short starts lack


@dataclass
class _Sum:
    """What has one price."""

    first: int
    last: int
    quantity: int = 0


def version_for(versions: Sequence[PriceList], day: int) -> Prices | None:
    """Of a list's versions, the one that holds on a day; None: there was none yet, and all was free."""
    date = date_of(day)
    valid = [v.prices for v in versions if v.prices.valid_from <= date]
    return max(valid, key=lambda p: p.valid_from, default=None)


def held(lists: Iterable[PriceList], account: Account) -> list[PriceList]:
    """The versions by which an account pays, of its price list and of those before it."""
    known, begin, found = list(lists), "", list[PriceList]()
    for name, end in [*((f.prices, f.until) for f in account.former), (account.prices, _NEVER)]:
        versions = [v for v in known if v.prices.name == name]
        found += [v for v in versions if begin <= v.prices.valid_from < end]
        if begin:
            first = max((v for v in versions if v.prices.valid_from <= begin), key=lambda v: v.prices.valid_from,
                        default=_free(name))  # fmt: skip
            found.append(replace(first, prices=replace(first.prices, valid_from=begin)))
        begin = end
    return found


def _free(name: str) -> PriceList:
    """In place of a list that has yet to hold, or cannot be read."""
    return PriceList(id="", created_at="", prices=Prices(name=name, currency="", valid_from=""))


def lines(parts: Iterable[DaySum], versions: Sequence[PriceList], names: Callable[[str], str]) -> list[Line]:
    """By project, kind, size and version of the price list; what costs nothing has none."""
    sums: dict[tuple[str, str, str, str, str], _Sum] = {}
    held: dict[int, Prices | None] = {}
    for part in parts:
        if part.day not in held:
            held[part.day] = version_for(versions, part.day)
        prices = held[part.day]
        if prices is None:
            continue
        what, quantity = part.kind, part.quantity
        if part.short != ANY:
            what, quantity = _MINIMUM, part.runs * prices.minimum_seconds * 1000 - part.quantity
            if part.short >= prices.minimum_seconds:
                continue
        key = (names(part.tenant), what, size_name(part), _price_of(part, prices), prices.valid_from)
        found = sums.setdefault(key, _Sum(part.day, part.day))
        found.first, found.last = min(found.first, part.day), max(found.last, part.day)
        found.quantity += quantity
    made = [_line(key, found) for key, found in sorted(sums.items())]
    return [line for line in made if line.quantity and line.price != "0"]


def _price_of(part: DaySum, prices: Prices) -> str:
    """Of its unit: a second of a pod, a month of a GB or an address, a GB."""
    if part.kind == "pod":
        if part.size in prices.sizes:
            return _text(Decimal(prices.sizes[part.size]))
        memory = Decimal(part.memory) / _MIB  # exact: 1/1024 has ten decimals
        return _text(part.vcpus * Decimal(prices.vcpu_second) + memory * Decimal(prices.gb_second))
    found: str = prices.egress if part.kind == "egress" else getattr(prices, f"{part.kind}_month")
    return _text(Decimal(found))


def _text(price: Decimal) -> str:
    text = f"{price:f}"
    return text.rstrip("0").rstrip(".") if "." in text else text


def _line(key: tuple[str, str, str, str, str], found: _Sum) -> Line:
    project, what, size, price, _ = key
    unit = UNITS["pod"] if what == _MINIMUM else UNITS[what]  # type: ignore[index]
    return Line(
        project=project, what=what, size=size, first=date_of(found.first), last=date_of(found.last),
        quantity=found.quantity, unit=unit, price=price, amount=cost(what, found.quantity, price),
    )  # fmt: skip


_PRICED: dict[str, int] = {"pod": 1000, _MINIMUM: 1000, "egress": _GB, "address": _MONTH}


def cost(what: str, quantity: int, price: str) -> int:
    """Of 10^-6 of the currency, for so much of a kind in the unit of `usage`."""
    divisor = _PRICED.get(what, _MIB * _MONTH)
    return floor(Fraction(quantity, divisor) * Fraction(price) * MICRO + Fraction(1, 2))
