# SPDX-License-Identifier: Apache-2.0
"""When jobs are due: schedules as in crontab(5), time zones, and clocks that are put forward and back."""

from __future__ import annotations

from datetime import UTC, datetime, timedelta

import pytest
from hypothesis import given
from hypothesis import strategies as st

from hypercontainer.engine.cron.schedule import after, check, last
from hypercontainer.errors import InvalidArgument

BERLIN = "Europe/Berlin"  # forward on 2026-03-29 at 01:00 UTC, back on 2026-10-25 at 01:00 UTC


def at(text: str) -> datetime:
    return datetime.fromisoformat(text).replace(tzinfo=UTC)


@pytest.mark.parametrize(
    ("schedule", "zone", "moment", "expected"),
    [
        ("*/5 * * * *", "UTC", "2026-03-01 10:02:30", "2026-03-01 10:05:00"),
        ("*/5 * * * *", "UTC", "2026-03-01 10:05:00", "2026-03-01 10:10:00"),
        ("30 3 * * *", BERLIN, "2026-01-10 00:00:00", "2026-01-10 02:30:00"),
        ("30 3 * * *", BERLIN, "2026-07-10 00:00:00", "2026-07-10 01:30:00"),
        ("0 9 * * MON-FRI", "UTC", "2026-11-27 10:00:00", "2026-11-30 09:00:00"),
        ("0 0 29 2 *", "UTC", "2026-03-01 00:00:00", "2028-02-29 00:00:00"),
        ("0 0 L * *", "UTC", "2026-02-10 00:00:00", "2026-02-28 00:00:00"),
        ("*/10 * * * * *", "UTC", "2026-03-01 10:02:31", "2026-03-01 10:02:40"),
        ("@daily", BERLIN, "2026-03-01 10:00:00", "2026-03-01 23:00:00"),
        (" @Hourly ", "UTC", "2026-03-01 10:00:00", "2026-03-01 11:00:00"),
        ("@weekly", "UTC", "2026-11-30 00:00:00", "2026-12-06 00:00:00"),
        ("30 2 * * *", BERLIN, "2026-03-28 12:00:00", "2026-03-29 01:00:00"),  # 02:30 is left out: at the change
        ("30 2 * * *", BERLIN, "2026-03-29 01:00:00", "2026-03-30 00:30:00"),
        ("30 2 * * *", BERLIN, "2026-10-24 12:00:00", "2026-10-25 00:30:00"),  # 02:30 comes twice: once
        ("30 2 * * *", BERLIN, "2026-10-25 00:30:00", "2026-10-26 01:30:00"),
        ("*/30 * * * *", BERLIN, "2026-03-29 00:30:00", "2026-03-29 01:00:00"),
        ("*/30 * * * *", BERLIN, "2026-10-25 00:30:00", "2026-10-25 01:00:00"),
    ],
)
def test_it_is_due_then(schedule: str, zone: str, moment: str, expected: str) -> None:
    check(schedule, zone)
    assert after(schedule, zone, at(moment)) == at(expected)


@pytest.mark.parametrize(
    ("schedule", "zone", "says"),
    [
        ("", "UTC", "wrong number of fields"),
        ("* * * *", "UTC", "wrong number of fields"),
        ("60 * * * *", "UTC", "bad minute"),
        ("*/0 * * * *", "UTC", "bad minute"),
        ("0 0 30 2 *", "UTC", "no day is like that|bad day"),
        ("@reboot", "UTC", "wrong number of fields"),
        ("a\0b", "UTC", "byte of zero"),
        ("* * * * *", "Mars/Base", "no time zone 'Mars/Base'"),
        ("* * * * *", "../etc/passwd", "no time zone"),
        ("* * * * *", "Europe", "no time zone"),
        ("* * * * *", "", "no time zone"),
    ],
)
def test_what_means_nothing_is_refused(schedule: str, zone: str, says: str) -> None:
    with pytest.raises(InvalidArgument, match=says):
        check(schedule, zone)


SCHEDULES = st.sampled_from(
    ["* * * * *", "*/7 * * * *", "30 2 * * *", "0 3 * * 1", "15 */2 * * *", "5 4 1 * *", "*/20 * * * * *", "0 0 29 2 *"]
)
MOMENTS = st.datetimes(datetime(2026, 3, 28), datetime(2026, 3, 31)) | st.datetimes(
    datetime(2026, 10, 24), datetime(2026, 10, 27)
)


@given(SCHEDULES, st.sampled_from(["UTC", BERLIN, "Australia/Lord_Howe"]), MOMENTS,
       st.timedeltas(timedelta(0), timedelta(hours=30)))  # fmt: skip
def test_the_last_time_is_the_last_of_all(schedule: str, zone: str, naive: datetime, length: timedelta) -> None:
    since = naive.replace(tzinfo=UTC)
    moment, found, step = since + length, None, after(schedule, zone, since)
    while step and step <= moment:
        found, step = step, after(schedule, zone, step)
    assert last(schedule, zone, moment, since) == found
