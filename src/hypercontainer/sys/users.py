# SPDX-License-Identifier: Apache-2.0
"""User numbers that nothing else on a host has: for processes that serve one machine each, or look into one image.

Those of machines are allocated and recorded (engine/user_numbers.py); here is where they come from.

The configuration may name the range (`users`); like the umask it is one for the whole process.
"""

from __future__ import annotations

import collections
import contextlib
import itertools
import os
import random
import shutil
from dataclasses import dataclass
from pathlib import Path

from ..errors import Conflict, InvalidArgument

FIRST, LAST = 0x70000000, 0x73FFFFFF  # beyond systemd's (https://systemd.io/UIDS-GIDS)
_LEAST = 4096
_MOST = 0xFFFFFFFE  # -1 means none
_SPECIAL = (range(1000), range(65534, 65536))  # the system's own, nobody, and -1 in 16 bits
_ACCOUNTS = ("passwd", "group", "subuid", "subgid")  # of /etc: files, as a directory service may be slow, or away
_REMEMBERED = 256  # of those that were given out last: a process may yet have to become one


@dataclass(frozen=True)
class Ranges:
    """A range in four parts."""

    fenced: range  # kept from the host's loopback (network/fence.py)
    open: range
    conversions: range
    groups: range  # of conversions

    @property
    def strangers(self) -> range:
        """Of conversions, those that are kept from the host's loopback too."""
        return self.conversions[len(self.conversions) // 2 :]


def parse(text: str) -> tuple[int, int]:
    """First and last of `FIRST-LAST`.

    :raise InvalidArgument: it is none, too small, or holds numbers that mean something everywhere.
    """
    first, dash, last = text.partition("-")
    if not (dash and first.isascii() and first.isdecimal() and last.isascii() and last.isdecimal()):
        raise InvalidArgument(f"users: {text!r} is no range of user numbers", hint=f"write it like {FIRST}-{LAST}")
    ends = int(first), int(last)
    if ends[1] - ends[0] + 1 < _LEAST or ends[1] > _MOST:
        raise InvalidArgument(f"users: {text} must have {_LEAST} numbers at least, none above {_MOST}")
    if any(ends[0] < special.stop and special.start <= ends[1] for special in _SPECIAL):
        raise InvalidArgument(f"users: {text} has numbers below 1000, or 65534, 65535", hint="those have a meaning")
    return ends


def split(first: int, last: int) -> Ranges:
    quarter = (last - first + 1) // 4
    return Ranges(*(range(first + i * quarter, first + (i + 1) * quarter) for i in range(4)))


_ranges = split(FIRST, LAST)
_next: dict[range, int] = {}  # where the search begins, in each part; at first anywhere: other daemons search too
_given: collections.deque[int] = collections.deque(maxlen=_REMEMBERED)


def use(first: int, last: int, etc: Path = Path("/etc")) -> None:
    """Take numbers from this range from now on, all ends included.

    :raise Conflict: an account of this host has one of them.
    """
    for name in _ACCOUNTS:
        for owner, taken in _accounts(etc / name):
            if taken.start <= last and first < taken.stop:
                numbers = str(taken.start) if len(taken) == 1 else f"{taken.start}-{taken.stop - 1}"
                raise Conflict(
                    f"users {first}-{last} are not free: {owner} has {numbers} in {etc / name}",
                    hint="set `users` in hyperd's configuration to a range that nobody has",
                )
    global _ranges
    _ranges = split(first, last)


def _accounts(path: Path) -> list[tuple[str, range]]:
    """Owners and numbers of passwd(5), group(5), subuid(5); lines that are none of these are passed over."""
    found = []
    with contextlib.suppress(OSError):
        for line in path.read_text(errors="replace").splitlines():
            owner, *rest = line.split(":")
            with contextlib.suppress(ValueError, IndexError):
                start, count = (int(rest[0]), int(rest[1])) if path.name.startswith("sub") else (int(rest[1]), 1)
                found.append((owner, range(start, start + count)))
    return found


def ranges() -> Ranges:
    """Those in use."""
    return _ranges


def is_ours(number: int) -> bool:
    """Whether it is of the range, or of the one that is taken where none is named, as by an earlier daemon."""
    return _ranges.fenced.start <= number < _ranges.groups.stop or FIRST <= number <= LAST


def given_out(number: int) -> bool:
    """Whether it is one that a machine may have."""
    return number in _ranges.fenced or number in _ranges.open


def pick() -> int:
    """One as which no process of this host runs, nor is just being started: for what runs for a moment."""
    return _free(_ranges.conversions[: len(_ranges.conversions) // 2])


def pick_stranger() -> int:
    """The same, for what speaks to whomever somebody names that may not have all of this host."""
    return _free(_ranges.strangers)


def pick_for_conversion() -> tuple[int, int]:
    """User and group."""
    uid = pick()
    return uid, _ranges.groups[uid - _ranges.conversions.start]


def _free(numbers: range) -> int:
    """The one after that which was given out last: none comes again before all others."""
    taken = in_use().union(_given)
    begin = _next.get(numbers) or random.choice(numbers)
    uid = next(n for n in itertools.chain(range(begin, numbers.stop), range(numbers.start, begin)) if n not in taken)
    _next[numbers] = uid + 1
    _given.append(uid)
    return uid


def in_use() -> set[int]:
    """Those as which processes of this host run."""
    found = set()
    for name in os.listdir("/proc"):
        if name.isdecimal():
            with contextlib.suppress(OSError):  # it may have ended
                found.add(os.stat(f"/proc/{name}").st_uid)
    return found


def have_subordinates(etc: Path = Path("/etc")) -> bool:
    """Whether this user has numbers besides its own, and the program that hands them out is there."""
    import getpass

    if not shutil.which("newuidmap"):
        return False
    with contextlib.suppress(OSError, KeyError):
        names = (getpass.getuser(), str(os.getuid()))
        return any(line.split(":")[0] in names for line in (etc / "subuid").read_text().splitlines())
    return False
