# SPDX-License-Identifier: Apache-2.0
"""Where this host's control groups are, and how their files are written.

There are hosts with one hierarchy for each controller (version 1), with one for all (version 2), and with both, where
each controller is in one of them: Documentation/admin-guide/cgroup-v1 and cgroup-v2.rst of Linux. Controllers have
version 1's names here; `blkio` is `io` in version 2, which counts processor time with `cpu` or without.
"""

from __future__ import annotations

import contextlib
import os
from collections.abc import Iterator
from dataclasses import dataclass
from pathlib import Path

from .control_groups import Budget

WANTED = ("cpu", "cpuacct", "memory", "pids", "blkio")
NAMES = {"cpu": "processors", "memory": "memory", "pids": "processes", "blkio": "input and output"}
PERIOD = 100_000  # microseconds in which a quota is used; the kernel's own
_LEAST_QUOTA = 1000  # microseconds, the kernel's
_SECOND_NAMES = {"blkio": "io"}
_NO_LIMIT = {1: "-1", 2: "max"}
_WEIGHTS = {1: ("cpu.shares", 1024, 2, 262_144), 2: ("cpu.weight", 100, 1, 10_000)}


@dataclass(frozen=True)
class IoLimits:
    """Of each machine: a share of a busy disk, and a rate on the disk where the state is. 0 is none."""

    weight: int = 0  # 1 to 1000, beside others' 100
    rate: int = 0  # bytes per second that are read, and as many that are written
    device: str = ""  # MAJOR:MINOR, of the whole disk; "": it is none that can be limited


def whole_disk(path: Path, sys: Path = Path("/sys/dev/block")) -> str:
    """MAJOR:MINOR of the disk that a file lies on; "" where that is none, or several, as with btrfs."""
    number = os.stat(path).st_dev
    node = sys / f"{os.major(number)}:{os.minor(number)}"
    with contextlib.suppress(OSError):
        return ((node / "..") if (node / "partition").exists() else node).joinpath("dev").read_text().strip()
    return ""


@dataclass(frozen=True)
class Hierarchy:
    """One that is mounted: the directory of a group in it, and what it controls there."""

    group: Path
    version: int
    controllers: tuple[str, ...]


def _mounts(mountinfo: str) -> Iterator[tuple[int, str, Path, set[str]]]:
    """Version, root of what is mounted, place and options; proc(5)."""
    for line in mountinfo.splitlines():
        first, _, second = line.partition(" - ")
        words, kinds = first.split(), second.split()
        if len(words) > 4 and kinds and kinds[0] in ("cgroup", "cgroup2"):
            place = words[4].encode().decode("unicode_escape")  # \040 for a space
            yield 1 if kinds[0] == "cgroup" else 2, words[3], Path(place), set(kinds[2].split(","))


def _own_groups(text: str) -> dict[frozenset[str], str]:
    """Controllers of each hierarchy, none for version 2's, and our group in it; cgroups(7)."""
    lines = (line.split(":", 2) for line in text.splitlines() if line.count(":") >= 2)
    return {frozenset(filter(None, names.split(","))): path for _, names, path in lines}


def _place(mount: Path, root: str, group: str, parent: str) -> Path | None:
    """The directory that a parent group begins from; None where it is not to be seen."""
    if parent.startswith("/"):
        return mount
    inner = "/" if group == root else group.removeprefix(root.rstrip("/"))
    if not group.startswith(root.rstrip("/")) or ".." in inner:
        return None
    return mount / inner.lstrip("/")


def find(own: str, mountinfo: str, parent: str) -> list[Hierarchy]:
    """The hierarchies that have what is wanted, by our /proc/self/cgroup and mountinfo.

    Each with the directory that the parent group begins from: the top where it is absolute, else our own group.
    """
    groups, left, found = _own_groups(own), list(WANTED), []
    for version, root, mount, options in sorted(_mounts(mountinfo), key=lambda m: m[0]):
        if version == 1:
            names = next((n for n in groups if n and n <= options and n & set(left)), frozenset())
            place = _place(mount, root, groups.get(names, ""), parent) if names else None
            controllers = tuple(c for c in WANTED if c in names and c in left)
        else:
            place = _place(mount, root, groups.get(frozenset(), ""), parent) if frozenset() in groups else None
            controllers = _controllers_of_second(place, left)
        if place is None or not controllers:
            continue
        left = [c for c in left if c not in controllers]
        found.append(Hierarchy(place, version, controllers))
    return found


def _controllers_of_second(group: Path | None, left: list[str]) -> tuple[str, ...]:
    there: set[str] = set()
    if group:
        with contextlib.suppress(OSError):
            there = set((group / "cgroup.controllers").read_text().split())
    return tuple(c for c in left if _SECOND_NAMES.get(c, c) in there)


def switched_on(hierarchy: Hierarchy) -> str:
    """What is written into `cgroup.subtree_control` of version 2, for groups below to have the controllers."""
    return " ".join(f"+{_SECOND_NAMES.get(c, c)}" for c in hierarchy.controllers)


def values(budget: Budget, hierarchy: Hierarchy) -> list[tuple[str, str]]:
    """Files of a group and what is written into each, in this order."""
    found, first = [], hierarchy.version == 1
    none = _NO_LIMIT[hierarchy.version]
    if "cpu" in hierarchy.controllers and budget.cpus is not None:
        quota = str(max(round(budget.cpus * PERIOD), _LEAST_QUOTA)) if budget.cpus else none
        if first:
            found += [("cpu.cfs_period_us", str(PERIOD)), ("cpu.cfs_quota_us", quota)]
        else:
            found.append(("cpu.max", f"{quota} {PERIOD}"))
    if "cpu" in hierarchy.controllers and budget.share is not None:
        found.append(_weight(budget.share, hierarchy.version))
    if "memory" in hierarchy.controllers and budget.memory is not None:
        found.append(("memory.limit_in_bytes" if first else "memory.max", str(budget.memory or none)))
    if "pids" in hierarchy.controllers and budget.tasks is not None:
        found.append(("pids.max", str(budget.tasks or "max")))
    return found


def _weight(share: float, version: int) -> tuple[str, str]:
    """A processor's worth is what the kernel gives a group of which nothing is said; limits are the kernel's, too."""
    name, worth, least, most = _WEIGHTS[version]
    return name, str(min(max(round(share * worth), least), most))


def io_values(io: IoLimits, hierarchy: Hierarchy) -> list[tuple[str, str]]:
    """As `values`, once for a new group."""
    if "blkio" not in hierarchy.controllers:
        return []
    first, found = hierarchy.version == 1, []
    if io.weight:
        found.append(("blkio.bfq.weight", str(io.weight)) if first else ("io.weight", f"default {io.weight}"))
    if io.rate and io.device:
        found += (
            [(f"blkio.throttle.{way}_bps_device", f"{io.device} {io.rate}") for way in ("read", "write")]
            if first
            else [("io.max", f"{io.device} rbps={io.rate} wbps={io.rate}")]
        )
    return found


def count(group: Path, hierarchy: Hierarchy) -> int:
    """How many processes of a group the kernel has ended for want of memory."""
    name = "memory.oom_control" if hierarchy.version == 1 else "memory.events"
    for line in (group / name).read_text().splitlines():
        word, _, number = line.partition(" ")
        if word == "oom_kill":
            return int(number)
    return 0


_LIMITS = {
    1: {"cpu": "cpu.cfs_quota_us", "memory": "memory.limit_in_bytes", "pids": "pids.max"},
    2: {"cpu": "cpu.max", "memory": "memory.max", "pids": "pids.max"},
}
_ENDLESS = 1 << 62  # bytes: version 1 has no word for "as many as there are"


def unlimited(hierarchy: Hierarchy) -> list[str]:
    """The controllers of a group that limit nothing there.

    :raise OSError: it cannot be read.
    """
    found = []
    for controller, name in _LIMITS[hierarchy.version].items():
        if controller in hierarchy.controllers:
            value = (hierarchy.group / name).read_text().split()[0]
            if value in ("max", "-1") or int(value) >= _ENDLESS:
                found.append(controller)
    return found
