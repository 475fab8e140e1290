# SPDX-License-Identifier: Apache-2.0
"""docs/docker-beside.md: every difference with its reason. It is written by the comparison, of what it found."""

from __future__ import annotations

import tomllib
from collections.abc import Iterable
from dataclasses import dataclass
from fnmatch import fnmatchcase
from pathlib import Path

from .steps import Difference

ROOT = Path(__file__).parents[2]
PAGE = ROOT / "docs/docker-beside.md"
REASONS = Path(__file__).parent / "reasons.toml"
_WIDTH = 160  # characters of what was printed
_INTRODUCTION = (
    "# hyperd beside dockerd",
    "",
    "`make docker-compare` starts Debian's dockerd (26.1, of [the builder](build.md)) beside hyperd, in namespaces of "
    "its own, and runs the same commands of the same client on both: those of",
    "`tests/e2e/transcripts` and `tests/beside/more.txt`. It makes the same containers, networks and volumes in both "
    "by the API 1.45 and compares the documents that tell of them,",
    "field by field: what is there, of which type, null or empty, and what plain values say. This page is written by "
    "that; a difference without a reason in `tests/beside/reasons.toml`, and",
    "a reason without a difference, fail it.",
    "",
)


@dataclass(frozen=True)
class Reason:
    """Why what matches is not the same."""

    of: tuple[str, ...]  # patterns of the shell
    why: str


def reasons(kind: str, path: Path = REASONS) -> list[Reason]:
    """Of `commands` or `fields`."""
    found = tomllib.loads(path.read_text()).get(kind, [])
    return [Reason(tuple(each["of"]), each["why"]) for each in found]


def why(what: str, known: Iterable[Reason]) -> str:
    """The first reason that fits; "" where none does. Brackets are taken as they are."""
    plain = what.replace("[", "(").replace("]", ")")
    for reason in known:
        if any(fnmatchcase(plain, pattern.replace("[", "(").replace("]", ")")) for pattern in reason.of):
            return reason.why
    return ""


def unused(known: Iterable[Reason], found: Iterable[Difference]) -> list[str]:
    """Reasons of which no pattern fits anything."""
    differences = list(found)
    return [r.why for r in known if not any(why(d.what, [r]) for d in differences)]


def cell(text: str) -> str:
    """What was printed, in a table."""
    joined = " ⏎ ".join(line for line in text.splitlines() if line != "? 0").replace("|", "\\|")
    if not joined:
        return "nothing"
    return f"`{joined}`" if len(joined) <= _WIDTH else f"`{joined[:_WIDTH]}…`"


def write(commands: list[Difference], fields: list[Difference], counted: tuple[int, int]) -> None:
    """The page, of differences that have reasons."""
    steps, values = counted
    lines = [f"The last run: {steps - len(commands)} of {steps} commands are the same, {len(commands)} differ; of "
             f"{values} values {len(fields)} differ.", "", "## Commands", "",
             "| command | dockerd | hyperd | why |", "| --- | --- | --- | --- |"]  # fmt: skip
    known = reasons("commands")
    for d in commands:
        command = d.what.replace("|", "\\|")
        lines.append(f"| `{command}` | {cell(d.docker)} | {cell(d.here)} | {why(d.what, known)} |")
    lines += ["", "## Fields", "", "| fields | why |", "| --- | --- |"]
    known = reasons("fields")
    by_reason: dict[str, list[str]] = {}
    for d in fields:
        by_reason.setdefault(why(d.what, known), []).append(d.what)
    for reason, names in by_reason.items():
        lines.append(f"| {', '.join(f'`{name}`' for name in _short(names))} | {reason} |")
    PAGE.write_text("\n".join([*_INTRODUCTION, *lines]) + "\n")


def _short(names: list[str]) -> list[str]:
    """The same field of several documents once."""
    return list(dict.fromkeys(name.partition(".body")[2].lstrip(".") or name for name in names))
