# SPDX-License-Identifier: Apache-2.0
"""Sizes and durations as people write and read them."""

from __future__ import annotations

import contextlib
import re
from datetime import UTC, datetime, timedelta
from decimal import Decimal

from ..errors import InvalidArgument

SIZE_MAX = (1 << 63) - 1  # bytes; what the kernel's file sizes go up to
SECONDS_MAX = 10 * 365 * 86400
_DIGITS = 40  # more are no number that anybody wrote
_SIZE = re.compile(r"^([0-9]+(?:\.[0-9]+)?)\s*([bkmgtBKMGT]?)(?:i?[bB])?\Z")
_SHIFT = {"": 0, "b": 0, "k": 10, "m": 20, "g": 30, "t": 40}
_DURATION = re.compile(r"^(?:([0-9]+)d)?(?:([0-9]+)h)?(?:([0-9]+)m)?(?:([0-9]+(?:\.[0-9]+)?)s)?\Z")


def parse_size(text: str) -> int:
    """Bytes from `64m`, `1.5G`, `1048576`; units are powers of 1024, as Docker's.

    :raise InvalidArgument: when it is no size.
    """
    match = _SIZE.match(text.strip())
    if not match:
        raise InvalidArgument(f"invalid size {text!r}", hint="write a number and b, k, m or g, such as 256m")
    size = int(Decimal(match[1]) * (1 << _SHIFT[match[2].lower()])) if len(text) <= _DIGITS else SIZE_MAX + 1
    if size > SIZE_MAX:
        raise InvalidArgument(f"invalid size {text[:_DIGITS]!r}: it is too large", hint="give less than 8 EiB")
    return size


def parse_count(text: str, what: str) -> int:
    """A whole number of at least 0.

    :raise InvalidArgument: naming `what` it is.
    """
    if not re.fullmatch("[0-9]{1,9}", text):
        raise InvalidArgument(f"invalid {what} {text[:_DIGITS]!r}", hint="give a whole number of at least 0")
    return int(text)


def format_size(count: float) -> str:
    """`12.3MB`, powers of 1000, as Docker prints."""
    for unit in ("B", "kB", "MB", "GB"):
        if count < 1000:
            return f"{count:.3g}{unit}"
        count /= 1000
    return f"{count:.3g}TB"


def format_binary(count: float) -> str:
    """`12.3MiB`, powers of 1024."""
    for unit in ("B", "KiB", "MiB", "GiB"):
        if count < 1024:
            return f"{count:.4g}{unit}"
        count /= 1024
    return f"{count:.4g}TiB"


_SPAN = re.compile(
    r"^(?:(\d+(?:\.\d+)?)h)?(?:(\d+(?:\.\d+)?)m)?(?:(\d+(?:\.\d+)?)s)?"
    r"(?:(\d+(?:\.\d+)?)ms)?(?:(\d+(?:\.\d+)?)[uµ]s)?(?:(\d+)ns)?\Z",
    re.ASCII,
)


def parse_duration(text: str | float) -> float:
    """Seconds from `1m30s`, `500ms`, `2h`, or a number of seconds.

    :raise InvalidArgument: when it is none.
    """
    seconds = -1.0
    match = _SPAN.match(text.strip()) if isinstance(text, str) and len(text) <= _DIGITS else None
    with contextlib.suppress(ValueError, OverflowError):
        seconds = float(text)
    if match and text.strip():  # type: ignore[union-attr]
        seconds = sum(
            float(part or 0) * unit for part, unit in zip(match.groups(), (3600, 60, 1, 0.001, 1e-6, 1e-9), strict=True)
        )
    if not 0 <= seconds <= SECONDS_MAX:  # nor what is no number
        raise InvalidArgument(
            f"invalid duration {str(text)[:_DIGITS]!r}", hint="write it as 30s, 500ms or 1m30s, of at most ten years"
        )
    return seconds


def parse_time(text: str) -> datetime:
    """A moment: RFC 3339, seconds since the epoch, or a duration before now (`10m`, `1h30m`).

    :raise InvalidArgument: when it is none of these.
    """
    if re.fullmatch(r"[0-9]+(\.[0-9]+)?", text):
        return datetime.fromtimestamp(float(text), UTC)
    match = _DURATION.match(text)
    if text and match:
        d, h, m, s = (float(g or 0) for g in match.groups())
        return datetime.now(UTC) - timedelta(days=d, hours=h, minutes=m, seconds=s)
    try:
        moment = datetime.fromisoformat(text)
    except ValueError:
        raise InvalidArgument(
            f"invalid time {text!r}", hint="write 2026-01-31T12:00:00Z, 10m or epoch seconds"
        ) from None
    return moment if moment.tzinfo else moment.astimezone()


def format_age(moment: str, now: datetime | None = None) -> str:
    """`5 minutes`, as Docker rounds; "" for no time."""
    if not moment:
        return ""
    try:
        then = datetime.fromisoformat(moment)
    except ValueError:
        return ""
    if not then.tzinfo:
        then = then.replace(tzinfo=UTC)
    return format_span(((now or datetime.now(UTC)) - then).total_seconds())


def format_until(moment: str) -> str:
    """The time that is left, as `format_age` writes it; "" for no time, or one that is past."""
    left = (datetime.fromisoformat(moment) - datetime.now(UTC)).total_seconds() if moment else 0
    return format_span(left) if left > 0 else ""


def format_span(span: float) -> str:
    """Seconds as `5 minutes`, as Docker rounds."""
    seconds = int(span)
    if seconds < 1:
        return "Less than a second"
    for size, unit in ((31536000 * 2, "years"), (5184000, "months"), (1209600, "weeks"), (172800, "days")):
        if seconds >= size:
            per = {"years": 31536000, "months": 2592000, "weeks": 604800, "days": 86400}[unit]
            return f"{seconds // per} {unit}"
    if seconds < 60:
        return "1 second" if seconds == 1 else f"{seconds} seconds"
    if seconds < 3600:
        return "About a minute" if seconds < 120 else f"{seconds // 60} minutes"
    hours = round(seconds / 3600)
    return "About an hour" if hours == 1 else f"{hours} hours"
