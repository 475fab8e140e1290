# SPDX-License-Identifier: Apache-2.0
"""What is used, by whom and for how long: the ledger's entries, and what `usage` tells of them.

Times are whole milliseconds: of the wall clock since the epoch, and of CLOCK_BOOTTIME since the host's boot, which no
one sets. Durations are differences of the second. Sizes of storage are whole MiB, rounded up.
"""

from __future__ import annotations

from typing import Literal, NamedTuple

from .base import Model

# pod         a machine that is there
# suspended   the memory of a suspended pod, on the disk
# volume, snapshot, image
#             what they may grow to, or take
# address     a floating address that a project has, whether it leads to a pod or not
# egress      bytes that a pod has sent
Kind = Literal["pod", "suspended", "volume", "snapshot", "image", "address", "egress"]
KINDS: tuple[Kind, ...] = ("pod", "suspended", "volume", "snapshot", "image", "address", "egress")
STORAGE: frozenset[Kind] = frozenset(("suspended", "volume", "snapshot", "image"))
LASTING: frozenset[Kind] = STORAGE | {"address"}  # there while the host is not
UNITS: dict[Kind, str] = {"pod": "ms", **dict.fromkeys(STORAGE, "MiB*ms"), "address": "ms", "egress": "bytes"}

DAY = 86_400_000  # milliseconds
MIB = 1 << 20
GIB_HOUR = 1024 * 3_600_000  # MiB * ms
SHORT = 60  # seconds: the lengths of runs below are kept, for prices that have a minimum for each start
ANY = -1  # in the place of a run's length: of all of them


class Moment(Model, frozen=True, kw_only=True):
    """By both clocks, in milliseconds; `boot_id` is Linux's name for this boot of the host."""

    wall: int
    boot: int
    boot_id: str


class Subject(Model, frozen=True, kw_only=True):
    """What is used. A new one of the same thing begins a new entry."""

    kind: Kind
    id: str
    name: str = ""
    tenant: str = ""  # the project; "" where there are none
    payer: str = ""  # its organisation at that time
    size: str = ""  # the named size of a pod, "" where it has none; ipv4 or ipv6
    vcpus: int = 0
    memory: int = 0  # MiB
    amount: int = 0  # MiB of storage

    @property
    def key(self) -> str:
        return f"{self.kind}:{self.tenant}:{self.id}"


class Open(Model, frozen=True, kw_only=True):
    """A use that goes on: a row that is replaced by entries of the ledger."""

    subject: Subject
    since: Moment
    run: int = 0  # milliseconds of this run that are entries already
    known: Moment | None = None  # an earlier daemon saw it then for the last time, and nobody has since


class Use(Model, frozen=True, kw_only=True):
    """An entry of the ledger: one part of one thing's use, within one day of UTC. None is ever changed."""

    number: int  # without gaps
    subject: Subject
    day: int  # since the epoch
    began: int  # milliseconds since the epoch
    lasted: int  # milliseconds
    boot: int  # when it began, since the host's boot
    boot_id: str
    run: int = ANY  # milliseconds of the whole run that ended with it; ANY: it went on, or is none

    @property
    def quantity(self) -> int:
        """In the unit of its kind."""
        return quantity(self.subject, self.lasted)


def mib(size: int) -> int:
    """Of bytes: whole MiB, rounded up."""
    return -(-size // MIB)


def quantity(subject: Subject, lasted: int) -> int:
    """In the unit of its kind: time, or storage by time, or bytes, which have come about at once."""
    if subject.kind == "egress":
        return subject.amount
    return subject.amount * lasted if subject.kind in STORAGE else lasted


class DaySum(NamedTuple):
    """The entries of a day that have all of this in common.

    With a `short` of ANY it is all of them, and `runs` the number of runs that ended; else the runs that ended, of
    so many whole seconds each, and `quantity` is their milliseconds together.
    """

    day: int
    tenant: str
    payer: str
    kind: str
    size: str
    vcpus: int
    memory: int
    short: int
    quantity: int
    runs: int


class Whose(NamedTuple):
    """Whose use is asked for; None is everybody's."""

    payer: str | None = None
    tenant: str | None = None

    def has(self, payer: str, tenant: str) -> bool:
        return self.payer in (None, payer) and self.tenant in (None, tenant)


EVERYBODY = Whose()


class UsageRow(Model, frozen=True, kw_only=True):
    """What was used of one kind; fields by which nobody asked to divide are empty."""

    kind: Kind
    unit: str  # ms, MiB*ms, bytes
    quantity: int
    starts: int = 0  # runs of machines that have ended
    organisation: str = ""
    project: str = ""
    size: str = ""  # S4; 2x1024 for a pod of 2 processors and 1024 MiB that has no named size; ipv4
    day: str = ""  # 2026-01-31


class Usage(Model, frozen=True, kw_only=True):
    """All that was used between two moments; what is used now counts until `until`, or now."""

    since: str
    until: str
    rows: list[UsageRow]


class LedgerCheck(Model, frozen=True, kw_only=True):
    """Whether the ledger is whole."""

    entries: int
    wrong: list[str]  # a sentence each: gaps in the numbers, days whose sums are not those of their entries
