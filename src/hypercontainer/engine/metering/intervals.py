# SPDX-License-Identifier: Apache-2.0
"""An interval of one thing's use, as entries of the ledger: each is within one day of UTC.

An interval begins when its beginning was by the wall clock and lasts as long as the monotonic clock says; a wall clock
that is set meanwhile changes neither. Its end by the wall clock follows, and is not looked at.
"""

from __future__ import annotations

from collections.abc import Iterator

from ...model.metering import ANY, DAY, LASTING, Moment, Open, Subject, Use
from ...sys import clock

_MS = 1_000_000  # nanoseconds


def now() -> Moment:
    """By both clocks."""
    return Moment(wall=clock.now_ns() // _MS, boot=clock.boot_ns() // _MS, boot_id=clock.boot_id())


def day_of(wall: int) -> int:
    """Of UTC, since the epoch."""
    return wall // DAY


def entries(
    subject: Subject, since: Moment, lasted: int, *, number: int, not_before: int = 0, run: int = ANY
) -> Iterator[Use]:
    """The parts of an interval of so many milliseconds, numbered from `number` on.

    Days that are accounted for and closed end at `not_before` (milliseconds since the epoch): what an entry would add
    to them counts from there on. `run` are the milliseconds of the whole run, if it ends with this interval.
    """
    if lasted == 0 and run == ANY and subject.kind != "egress":
        return
    began, boot = max(since.wall, not_before), since.boot
    while True:
        part = lasted if subject.kind == "egress" else min(lasted, (day_of(began) + 1) * DAY - began)
        last = part == lasted
        yield Use(
            number=number, subject=subject, day=day_of(began), began=began, lasted=part, boot=boot,
            boot_id=since.boot_id, run=run if last else ANY,
        )  # fmt: skip
        if last:
            return
        number, began, boot, lasted = number + 1, began + part, boot + part, lasted - part


def latest(of: Open, mark: Moment | None) -> Moment:
    """When it is known for the last time that it was used: no later daemon has written of it."""
    if of.known:
        return of.known
    if mark and mark.boot_id == of.since.boot_id and mark.boot >= of.since.boot:
        return mark
    return of.since


def is_lasting(of: Open) -> bool:
    """Whether it is there while the host is not."""
    return of.subject.kind in LASTING


def this_month() -> int:
    """When it began, by UTC: nanoseconds since the epoch."""
    first = clock.now().replace(day=1, hour=0, minute=0, second=0, microsecond=0)
    return int(first.timestamp()) * 1_000_000_000
