# SPDX-License-Identifier: Apache-2.0
"""Moments to the nanosecond, as whole nanoseconds since the epoch: what floating point and `datetime` cannot hold."""

from __future__ import annotations

import re
from datetime import UTC, datetime, timedelta

from ..errors import InvalidArgument
from .units import parse_time

SECOND = 10**9
LAST = 2**63 - 2  # in the year 2262: what SQLite can hold, and one more
_EPOCH = datetime(1970, 1, 1, tzinfo=UTC)
_UNIX = re.compile(r"([0-9]{1,11})(?:\.([0-9]+))?", re.ASCII)
_FRACTION = re.compile(r"(?<=:[0-9]{2})\.([0-9]+)", re.ASCII)


def write_moment(nanoseconds: int) -> str:
    """RFC 3339 in UTC with all nine digits, so that the order of texts is that of moments."""
    seconds, fraction = divmod(nanoseconds, SECOND)
    return f"{_EPOCH + timedelta(seconds=seconds):%Y-%m-%dT%H:%M:%S}.{fraction:09}Z"


def read_moment(text: str) -> int:
    """From RFC 3339, seconds since the epoch (Docker's form has nine decimals), or a duration before now (`10m`).

    What is before the epoch is the epoch, and what is after the year 2262 is in it.

    :raise InvalidArgument: when it is none of these.
    """
    if unix := _UNIX.fullmatch(text):
        return min(int(unix[1]) * SECOND + _nanoseconds(unix[2]), LAST)
    found = _FRACTION.search(text)
    whole = text[: found.start()] + text[found.end() :] if found else text
    try:
        since = parse_time(whole) - _EPOCH
    except OverflowError:
        raise InvalidArgument(
            f"invalid time {text!r}", hint="write 2026-01-31T12:00:00Z, 10m or epoch seconds"
        ) from None
    seconds = since.days * 86400 + since.seconds
    moment = seconds * SECOND + since.microseconds * 1000 + _nanoseconds(found[1] if found else "")
    return max(0, min(moment, LAST))


def _nanoseconds(decimals: str | None) -> int:
    return int((decimals or "")[:9].ljust(9, "0"))
