# SPDX-License-Identifier: Apache-2.0
"""Where the private memory of a process lies, by what is mapped: /proc/PID/smaps of proc(5)."""

from __future__ import annotations

import re
from collections import Counter
from collections.abc import Iterable
from pathlib import Path

_HEAD = re.compile(r"[0-9a-f]+-[0-9a-f]+ (?P<flags>\S{4}) \S+ \S+ \d+ *(?P<path>.*)")
_PRIVATE = ("Private_Clean:", "Private_Dirty:")


def private_by_mapping(lines: Iterable[str]) -> Counter[str]:
    """Kilobytes that only this process holds, by the name of what is mapped there."""
    found: Counter[str] = Counter()
    name = ""
    for line in lines:
        if head := _HEAD.fullmatch(line.rstrip()):
            name = _name(head["flags"], head["path"])
        elif line.startswith(_PRIVATE):
            found[name] += int(line.split()[1])
    return found


def _name(flags: str, path: str) -> str:
    """A file's own name; code that was made as it ran (`anonymous, executable`) is an emulator's."""
    if not path:
        return "anonymous, executable" if "x" in flags else "anonymous"
    if path.startswith("/memfd:"):
        return path.removesuffix(" (deleted)").removeprefix("/")
    return Path(path.removesuffix(" (deleted)")).name


def rows(pid: int, least: int = 64) -> list[list[str]]:
    """Of a table: megabytes and names, the largest first; what holds less than `least` kilobytes is one row."""
    found = private_by_mapping(Path(f"/proc/{pid}/smaps").read_text().splitlines())
    large = [(size, name) for name, size in found.most_common() if size >= least]
    rest = sum(found.values()) - sum(size for size, _ in large)
    return [[f"{size / 1024:.2f} MB", name] for size, name in [*large, (rest, "all others")] if size]
