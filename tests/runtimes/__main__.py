# SPDX-License-Identifier: Apache-2.0
"""Run the same commands with both runtimes, and write the page; it fails where a difference has no reason."""

from __future__ import annotations

import sys
from pathlib import Path

from tests.beside.page import ROOT, cell, reasons, unused, why
from tests.beside.steps import Difference, compared
from tests.transcript import read

from .podman import both

HERE = Path(__file__).parent
PAGE = ROOT / "docs/oci-beside-runc.md"
_INTRODUCTION = (
    "# hyper-runtime beside runc",
    "",
    "`make oci-compare` runs the same commands of Debian's podman with `--runtime runc` and with [hyper-runtime]"
    "(oci-runtime.md), each in a network namespace and with directories of its own:",
    "those of `tests/runtimes/commands.txt`. What is printed and the exit status are compared. This page is written by "
    "that; a difference without a reason in `tests/runtimes/reasons.toml`, and a",
    "reason without a difference, fail it.",
    "",
)


def _differences(numbers: slice) -> tuple[list[Difference], int]:
    steps = read(HERE / "commands.txt")[numbers]
    with both() as (theirs, ours):
        return compared(steps, theirs, ours), len(steps)


def _write(found: list[Difference], count: int) -> None:
    known = reasons("commands", HERE / "reasons.toml")
    lines = [f"The last run: {count - len(found)} of {count} commands are the same, {len(found)} differ.", "",
             "| command | runc | hyper-runtime | why |", "| --- | --- | --- | --- |"]  # fmt: skip
    for d in found:
        command = d.what.replace("|", "\\|")
        lines.append(f"| `{command}` | {cell(d.docker)} | {cell(d.here)} | {why(d.what, known)} |")
    PAGE.write_text("\n".join([*_INTRODUCTION, *lines]) + "\n")


def main() -> int:
    """`FIRST-LAST` are some of the commands, by their numbers; the page is written for all."""
    first, _, last = (sys.argv[1] if len(sys.argv) > 1 else "1-").partition("-")
    found, count = _differences(slice(int(first) - 1, int(last) if last else None))
    known, missing = reasons("commands", HERE / "reasons.toml"), 0
    for d in found:
        if not why(d.what, known):
            missing += 1
            print(f"no reason: {d.what}\n  runc:          {d.docker}\n  hyper-runtime: {d.here}")
    if len(sys.argv) == 1:
        for old in unused(known, found):
            missing += 1
            print(f"a reason for what does not differ: {old}")
    print(f"{count} commands, {len(found)} differ, {missing} to do")
    if not missing and len(sys.argv) == 1:
        _write(found, count)
    return 1 if missing else 0


if __name__ == "__main__":
    sys.exit(main())
