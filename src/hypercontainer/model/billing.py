# SPDX-License-Identifier: Apache-2.0
"""Prices, credits, invoices, budgets: docs/metering.md.

Money is whole numbers of 10^-6 of the currency. A price may be of less: it is a decimal number in a text, with at most
twelve decimals. A line of an invoice is rounded once, and nothing else is.
"""

from __future__ import annotations

import re
from decimal import Decimal
from typing import Annotated, Literal

from msgspec import UNSET, Meta, field

from ..errors import InvalidArgument
from .base import Model
from .metering import GIB_HOUR, SHORT
from .principal import Tenant

MICRO = 10**6  # parts of the currency
_MONEY = re.compile(r"-?[0-9]{1,12}(\.[0-9]{1,6})?", re.ASCII)

Price = Annotated[str, Meta(pattern=r"^[0-9]{1,9}(\.[0-9]{1,12})?\Z")]
Name = Annotated[str, Meta(pattern=r"^[a-zA-Z0-9][a-zA-Z0-9_.-]{0,62}\Z")]
Day = Annotated[str, Meta(pattern=r"^[0-9]{4}-[0-9]{2}-[0-9]{2}\Z")]
Month = Annotated[str, Meta(pattern=r"^[0-9]{4}-(0[1-9]|1[0-2])\Z")]
Amount = Annotated[int, Meta(ge=-(10**15), le=10**15)]  # of 10^-6
Policy = Literal["suspend", "stop"]


class Prices(Model, frozen=True, kw_only=True):
    """A version of a price list, as an administrator writes it; what is left out costs nothing.

    A month is 730 hours, a GB 2^30 bytes.
    """

    name: Name
    currency: Annotated[str, Meta(pattern=r"^[A-Z]{3}\Z")]
    valid_from: Day  # from its beginning on, by UTC, until that of the next version
    minimum_seconds: Annotated[int, Meta(ge=0, le=SHORT)] = 0  # that a start of a pod costs
    sizes: dict[str, Price] = field(default_factory=dict)  # a second of a pod of that size
    vcpu_second: Price = "0"  # of pods whose size has no price
    gb_second: Price = "0"  # of their memory
    volume_month: Price = "0"  # a GB
    snapshot_month: Price = "0"
    suspended_month: Price = "0"
    image_month: Price = "0"
    address_month: Price = "0"  # a floating address
    egress: Price = "0"  # a GB
    opening_credit: Price = "0"  # of a new account
    prepaid: bool = False  # new accounts pay before: at zero their pods are suspended


class PriceList(Model, frozen=True, kw_only=True):
    """A record."""

    id: str
    created_at: str
    prices: Prices
    owner: str = ""  # the principal that brought it

    @property
    def name(self) -> str:
        """A list has one version for a day."""
        return f"{self.prices.name} {self.prices.valid_from}"

    @property
    def tenant(self) -> Tenant:
        """It is the daemon's."""
        return UNSET


class Credit(Model, frozen=True, kw_only=True):
    """Something that was paid, given, or (below 0) taken back. A record that never changes."""

    id: str
    organisation: str  # id
    created_at: str
    amount: Amount  # of 10^-6
    reason: str = ""
    owner: str = ""

    @property
    def name(self) -> str:
        """It has none but its id."""
        return self.id

    @property
    def tenant(self) -> Tenant:
        """The organisation's."""
        return self.organisation


class CreditRequest(Model, frozen=True, kw_only=True):
    """A credit to give."""

    amount: Amount
    reason: Annotated[str, Meta(max_length=200)] = ""


class Line(Model, frozen=True, kw_only=True):
    """Of an invoice: what one project used of one kind, at one price."""

    project: str  # name, or id when it is no more
    what: str  # pod, volume, ..., or minimum: what starts that were shorter than it lack
    size: str = ""
    first: str  # day
    last: str
    quantity: int
    unit: str  # as in `usage`
    price: str  # as the price list has it, of a second, GB-month, address-month or GB
    amount: int  # of 10^-6 of the currency

    @property
    def used(self) -> str:
        """Its quantity in the unit that people read."""
        if self.unit == "ms":
            return f"{self.quantity / 1000:.3f} s"
        if self.unit == "bytes":
            return f"{self.quantity / (1 << 30):.6f} GB"
        return f"{self.quantity / GIB_HOUR:.4f} GB-hours"


class Invoice(Model, frozen=True, kw_only=True):
    """What an organisation used in a month. A record once it is issued, which never changes."""

    id: str
    number: int  # 0: it is not issued yet, since its month is not over
    organisation: str  # id
    organisation_name: str
    month: str
    currency: str
    issued_at: str = ""
    lines: list[Line] = field(default_factory=list)
    total: int = 0  # of 10^-6
    owner: str = ""

    @property
    def name(self) -> str:
        """One for a month."""
        return self.month

    @property
    def tenant(self) -> Tenant:
        """The organisation's."""
        return self.organisation


class FormerPrices(Model, frozen=True, kw_only=True):
    """By which an account paid before."""

    prices: str  # name of a price list
    until: Day  # the first day, by UTC, on which it held no more


class Account(Model, frozen=True, kw_only=True):
    """How an organisation pays. A record."""

    id: str  # the organisation's
    opened_at: str
    prices: str  # name of its price list
    former: list[FormerPrices] = field(default_factory=list)  # the lists before it, in their order
    prepaid: bool = False  # what is at zero is suspended
    policy: Policy = "suspend"  # what becomes of its pods then; those that cannot be suspended are stopped
    grace: float = 3600.0  # seconds from zero to then
    budget: int = 0  # of a month, of 10^-6; 0: none
    told: dict[str, int] = field(default_factory=dict)  # month -> of how many percent of the budget an event told
    empty_since: str = ""  # it was at zero then, and is still
    suspended: bool = False
    put_to_rest: list[str] = field(default_factory=list)  # ids of pods that were suspended for it
    owner: str = ""

    @property
    def name(self) -> str:
        """It has none but its id."""
        return self.id

    @property
    def tenant(self) -> Tenant:
        """The daemon's."""
        return UNSET


class AccountRequest(Model, frozen=True, kw_only=True):
    """What is to change of an account; None is left as it is."""

    prices: Name | None = None
    prepaid: bool | None = None
    policy: Policy | None = None
    grace: Annotated[float, Meta(ge=0, le=31 * 86400)] | None = None  # seconds
    budget: Annotated[int, Meta(ge=0, le=10**15)] | None = None


class AccountInfo(Model, frozen=True, kw_only=True):
    """An account, and what is in it now: amounts are of 10^-6 of the currency."""

    organisation: str  # name
    currency: str
    prices: str
    balance: int  # credits without what was used
    month: str
    this_month: int  # what was used in it so far
    budget: int
    prepaid: bool
    policy: Policy
    grace: float
    suspended: bool
    credits: list[Credit] = field(default_factory=list)
    invoices: list[str] = field(default_factory=list)  # months


def read_money(text: str) -> int:
    """Of 10^-6, from a decimal number.

    :raise InvalidArgument: it is none, or has more than six decimals.
    """
    if not _MONEY.fullmatch(text):
        raise InvalidArgument(f"invalid amount {text!r}", hint="write it like 20 or 0.50, with at most six decimals")
    return int(Decimal(text) * MICRO)


def write_money(amount: int, decimals: int = 6) -> str:
    """As a decimal number; of fewer decimals than six it is a rounded one, for people."""
    number = Decimal(amount) / MICRO
    return f"{number:.{decimals}f}"
