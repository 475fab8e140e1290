# SPDX-License-Identifier: Apache-2.0
"""Which system calls a hypervisor makes while it works, beside the list of those that its jail allows."""

from __future__ import annotations

import re
from collections import Counter
from collections.abc import Iterator
from dataclasses import dataclass

from hypercontainer.jail.seccomp import Rule

_CALL = re.compile(r"^(?:\d+ +)?(?:<\.\.\. (\w+) resumed|(\w+)\()")  # a line of `strace -f`
# What a jailed QEMU does not open under its filter: glib's random numbers, which hyperjail/filter/filter.c has it open
# before; and the number of processors, which glibc looks at where MALLOC_ARENA_MAX is not set, as it is in the jail.
_NOT_JAILED = re.compile(r'^(?:\d+ +)?openat\(AT_FDCWD, "(?:/dev/urandom|/sys/devices/system/cpu/online)"')


def calls_of(trace: str) -> Counter[str]:
    """How often each was made. One that another thread's line interrupts is told twice, and counted once."""
    found: Counter[str] = Counter()
    for line in trace.splitlines():
        if (match := _CALL.match(line)) and match[2] and not _NOT_JAILED.match(line):
            found[match[2]] += 1
    return found


_FILTER = re.compile(r"prctl\(PR_SET_SECCOMP, .*= 0$")
_THREAD = re.compile(r"(?:clone3?\(|<\.\.\. clone3? resumed>).* = (\d+)")


@dataclass(frozen=True)
class Difference:
    """A trace beside a list."""

    forbidden: tuple[str, ...]  # made, and not allowed: the jail would have ended the process
    unseen: tuple[str, ...]  # allowed, and not made this time: rare ones, and twins of other versions

    def text(self) -> str:
        lines = [f"+ {name}" for name in self.forbidden] + [f"- {name}" for name in self.unseen]
        return "\n".join(lines) or "the same"


def difference(made: Counter[str], rules: tuple[Rule, ...]) -> Difference:
    """Those answered as if the kernel had them not count as allowed: they end nothing."""
    known, allowed = {r.name for r in rules}, {r.name for r in rules if not r.missing}
    return Difference(tuple(sorted(set(made) - known)), tuple(sorted(allowed - set(made))))


def filtered_lines(trace: str) -> Iterator[str]:
    """Of `strace -f`: what processes do that have put a filter on themselves, and their threads."""
    filtered: set[str] = set()
    for line in trace.splitlines():
        who, _, what = line.partition(" ")
        if who in filtered:
            yield line
            if (match := _THREAD.match(what.strip())) and match[1] != "0":
                filtered.add(match[1])
            if what.strip().startswith("+++"):
                filtered.discard(who)
        elif _FILTER.match(what.strip()):
            filtered.add(who)
