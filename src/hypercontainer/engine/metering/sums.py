# SPDX-License-Identifier: Apache-2.0
"""What `usage` answers: sums of days, entries of days of which only a part is asked for, and what is used now.

Sums are whole numbers of the unit of their kind, so nothing is rounded here.
"""

from __future__ import annotations

from collections import defaultdict
from collections.abc import Callable, Collection, Iterable, Iterator
from datetime import UTC, datetime, timedelta
from typing import Literal

from ...errors import InvalidArgument
from ...model.metering import ANY, DAY, EVERYBODY, UNITS, DaySum, Kind, Usage, UsageRow, Whose
from ...model.moments import write_moment
from ...state.ledger import clipped
from ...state.store import Store
from .intervals import entries, now
from .meter import Meter

By = Literal["organisation", "project", "size", "day"]
BY: tuple[By, ...] = ("organisation", "project", "size", "day")
_EPOCH = datetime(1970, 1, 1, tzinfo=UTC)
_MS = 1_000_000


class Sums:
    """Reads the ledger."""

    def __init__(self, store: Store, meter: Meter, names: Callable[[str], str] = lambda id_: id_) -> None:
        """`names` gives the name of a project or an organisation, and its id when it is no more."""
        self._store = store
        self._meter = meter
        self.names = names

    def usage(self, since: int, until: int | None, by: Collection[By], whose: Whose = EVERYBODY) -> Usage:
        """From `since` until `until` (nanoseconds since the epoch; None: until now).

        :raise InvalidArgument: it ends before it begins, or is to be divided by what it has not.
        """
        if unknown := set(by) - set(BY):
            raise InvalidArgument(f"usage cannot be divided by {', '.join(sorted(unknown))}",
                                  hint=f"give some of {', '.join(BY)}")  # fmt: skip
        end = now().wall if until is None else until // _MS
        if end < since // _MS:
            raise InvalidArgument("`until` is before `since`", hint="swap them")
        rows = _grouped(self.parts(since // _MS, end, whose), by, self.names)
        return Usage(since=write_moment(since), until=write_moment(end * _MS), rows=rows)

    def parts(self, since: int, until: int, whose: Whose = EVERYBODY, *, short: bool = False) -> Iterator[DaySum]:
        """All that was used between these milliseconds since the epoch; with `short` the lengths of short runs of
        whole days, too.
        """
        first, end = -(-since // DAY), until // DAY
        if first > end:  # within one day
            yield from self._store.day_part(since, until, whose)
        else:
            yield from self._store.day_sums(first, end, whose, short=short)
            for part in ((since, first * DAY), (end * DAY, until)):
                if part[0] < part[1]:
                    yield from self._store.day_part(*part, whose)
        yield from self._now(since, until, whose)

    def _now(self, since: int, until: int, whose: Whose) -> Iterator[DaySum]:
        moment = now()
        for of in [o for o in self._meter.used_now() if whose.has(o.subject.payer, o.subject.tenant)]:
            lasted = self._meter.lasted(of, moment)
            closed = self._meter.closed(of.subject.payer)
            for use in entries(of.subject, of.since, lasted, number=0, not_before=closed):
                yield from clipped(use, since, until)


def size_name(found: DaySum) -> str:
    """By which a pod's size is told; "" of what has none."""
    return found.size or (f"{found.vcpus}x{found.memory}" if found.kind == "pod" else "")


def date_of(day: int) -> str:
    """As 2026-01-31."""
    return f"{_EPOCH + timedelta(days=day):%Y-%m-%d}"


def _grouped(parts: Iterable[DaySum], by: Collection[By], names: Callable[[str], str]) -> list[UsageRow]:
    sums: dict[tuple[str, ...], list[int]] = defaultdict(lambda: [0, 0])
    for part in parts:
        if part.short == ANY:
            told = {"organisation": part.payer, "project": part.tenant, "size": size_name(part), "day": str(part.day)}
            found = sums[(*(told[b] if b in by else "" for b in BY), part.kind)]
            found[0] += part.quantity
            found[1] += part.runs
    return [_row(key, (sums[key][0], sums[key][1]), names) for key in sorted(sums, key=_order)]


def _order(key: tuple[str, ...]) -> tuple[object, ...]:
    """By day, then whose, then what."""
    payer, tenant, size, day, kind = key
    return (int(day or 0), payer, tenant, list(UNITS).index(kind), size)  # type: ignore[arg-type]


def _row(key: tuple[str, ...], found: tuple[int, int], names: Callable[[str], str]) -> UsageRow:
    payer, tenant, size, day, kind = key
    known: Kind = kind  # type: ignore[assignment]
    return UsageRow(
        kind=known, unit=UNITS[known], quantity=found[0], starts=found[1], organisation=names(payer),
        project=names(tenant), size=size, day=date_of(int(day)) if day else "",
    )  # fmt: skip
