# SPDX-License-Identifier: Apache-2.0
"""When a job is due: schedules of cron(5) in a time zone, by cronsim, which does as Debian's cron does.

Where a clock is put forward, what is due at an hour that is left out runs at the change; where it is put back, what is
due at an hour that comes twice runs once; what is due every so many minutes runs by the time that passes.
"""

from __future__ import annotations

import zoneinfo
from datetime import UTC, datetime, timedelta

from cronsim import CronSim, CronSimError

from ...errors import InvalidArgument

_WORDS = {
    "@yearly": "0 0 1 1 *", "@annually": "0 0 1 1 *", "@monthly": "0 0 1 * *", "@weekly": "0 0 * * 0",
    "@daily": "0 0 * * *", "@midnight": "0 0 * * *", "@hourly": "0 * * * *",
}  # fmt: skip

_WINDOWS = [timedelta(minutes=2), timedelta(hours=2), *(timedelta(days=d) for d in (2, 62, 400, 100 * 366))]


def check(schedule: str, timezone: str) -> None:
    """:raise InvalidArgument: one of them cannot be read, or the schedule is never due."""
    zone = _zone(timezone)
    if "\0" in schedule:
        raise InvalidArgument("invalid schedule: it has a byte of zero in it")
    try:
        next(CronSim(_fields(schedule), datetime(2024, 1, 1, tzinfo=zone)))  # a leap year
    except CronSimError as error:
        raise InvalidArgument(
            f"invalid schedule {schedule!r}: {str(error)[:1].lower()}{str(error)[1:]}",
            hint="give minute, hour, day of the month, month and day of the week, for example '*/5 * * * *', or @daily",
        ) from None
    except StopIteration:
        raise InvalidArgument(f"invalid schedule {schedule!r}: no day is like that") from None


def after(schedule: str, timezone: str, moment: datetime) -> datetime | None:
    """The first time later than `moment` that it is due, in UTC; None: never again."""
    return _first(CronSim(_fields(schedule), moment.astimezone(_zone(timezone))))


def last(schedule: str, timezone: str, moment: datetime, since: datetime) -> datetime | None:
    """The last time that it was due after `since`, and not after `moment`, in UTC; None: it was not.

    It may have been due a million times: what is longer ago is looked at only where nothing was of late.
    """
    for window in _WINDOWS:
        begin = at = max(since, moment - window)
        while (coming := after(schedule, timezone, at)) and coming <= moment:
            at = coming
        if at > begin:
            return at
        if begin == since:
            break
    return None


def _first(times: CronSim) -> datetime | None:
    try:
        return next(times).astimezone(UTC)
    except StopIteration:
        return None


def _fields(schedule: str) -> str:
    return _WORDS.get(schedule.strip().lower(), schedule)


def _zone(name: str) -> zoneinfo.ZoneInfo:
    """:raise InvalidArgument: this host knows none of this name."""
    try:
        return zoneinfo.ZoneInfo(name)
    except (zoneinfo.ZoneInfoNotFoundError, ValueError, OSError):
        raise InvalidArgument(
            f"this host knows no time zone {name!r}", hint="give one like Europe/Berlin; Debian's are in tzdata"
        ) from None
