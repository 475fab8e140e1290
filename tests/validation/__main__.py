# SPDX-License-Identifier: Apache-2.0
"""Run runtime-tools' programs with both runtimes, and write the page.

It fails where what fails with hyper-runtime has no reason, and where a reason is of what does not fail.
"""

from __future__ import annotations

import contextlib
import json
import os
import re
import subprocess
import sys
import tempfile
from dataclasses import dataclass
from pathlib import Path

from tests.beside.page import ROOT, Reason, cell, reasons, unused, why
from tests.beside.steps import Difference
from tests.e2e.conftest import BIN, launched
from tests.e2e.test_networks import namespaces_again

from .source import PROGRAMS, built

HERE = Path(__file__).parent
PAGE = ROOT / "docs/oci-validation.md"
_DEADLINE = 400.0  # seconds for one program
_LINE = re.compile(r"^(ok|not ok) \d+ *(?:- )?(.*)$", re.M)  # of the Test Anything Protocol
_INTRODUCTION = (
    "# hyper-runtime in runtime-tools' validation",
    "",
    "`make oci-validate` builds the validation programs of the Open Container Initiative's runtime-tools (Debian's "
    "source package) and runs each of them with runc and with",
    "[hyper-runtime](oci-runtime.md). This page is written by that; what fails with hyper-runtime without a reason in "
    "`tests/validation/reasons.toml`, and a reason of what does not fail, fail it.",
    "Beside each failure stands what runc did.",
    "",
)


@dataclass(frozen=True)
class Outcome:
    """Of one program with one runtime: what failed, and how many others did not, or were left out."""

    failed: tuple[str, ...]
    passed: int
    skipped: tuple[str, ...]

    @property
    def word(self) -> str:
        if self.failed:
            return "failed"
        return "passed" if self.passed else "skipped"

    def __str__(self) -> str:
        """With how much of it, where that is not all."""
        return f"{self.passed} of {self.passed + len(self.failed)} passed" if self.failed else self.word


@dataclass(frozen=True)
class Side:
    """A runtime, in a network namespace."""

    runtime: Path
    namespace: str
    place: Path

    def run(self, tools: Path, program: str) -> Outcome:
        command = ["nsenter", f"--net=/run/netns/{self.namespace}", tools / PROGRAMS / program]
        environment = {**os.environ, "RUNTIME": str(self.runtime), "TMPDIR": str(self.place)}
        try:
            done = subprocess.run(command, cwd=tools, env=environment, capture_output=True, text=True, check=False,
                                  timeout=_DEADLINE)  # fmt: skip
        except subprocess.TimeoutExpired:
            return Outcome(("it did not end",), 0, ())
        return _outcome(done)


def _outcome(done: subprocess.CompletedProcess[str]) -> Outcome:
    failed, skipped, passed = [], [], 0
    for word, description in _LINE.findall(done.stdout):
        if "# TODO" in description:
            continue
        if word == "not ok":
            failed.append(re.sub(r"[0-9a-f]{8}-[0-9a-f-]{27}", "ID", description))
        elif "# SKIP" in description:
            skipped.append(description.partition("# SKIP ")[2])
        else:
            passed += 1
    if done.returncode:
        words = (done.stderr.strip().splitlines() or [""])[-1]
        failed.append(f"exit status {done.returncode}: {re.sub(r'/[^ ]*/ocitest[0-9]+', 'BUNDLE', words)}")
    return Outcome(tuple(dict.fromkeys(failed)), passed, tuple(skipped))


def _script(path: Path, command: list[str | Path]) -> Path:
    path.write_text("#!/bin/sh\nexec " + " ".join(map(str, command)) + ' "$@"\n')
    path.chmod(0o755)
    return path


def _leave_nothing(place: Path, runtimes: tuple[Path, ...]) -> None:
    """Programs that fail leave containers, and mounts that have come out of them."""
    for runtime in runtimes:
        for id_ in subprocess.run([runtime, "list", "-q"], capture_output=True, text=True, check=True).stdout.split():
            subprocess.run([runtime, "delete", "-f", id_], check=False)
    mounts = [line.split()[4] for line in Path("/proc/self/mountinfo").read_text().splitlines()]
    for mount in reversed([m for m in mounts if m.startswith(f"{place}/ocitest")]):
        subprocess.run(["umount", "-l", mount], check=False)


def _outcomes(names: list[str], tools: Path) -> dict[str, tuple[Outcome, Outcome]]:
    """Of both runtimes, one after the other."""
    with contextlib.ExitStack() as stack:
        place = Path(stack.enter_context(tempfile.TemporaryDirectory(prefix="ocv")))
        namespace = stack.enter_context(namespaces_again("v"))
        daemon = stack.enter_context(
            launched(place / "d", "--network", "none", prefix=("nsenter", f"--net=/run/netns/{namespace}"))
        )
        options: list[str | Path] = ["--root", place / "ours", "--hyper-host", daemon.socket]
        theirs = _script(place / "theirs.sh", ["/usr/sbin/runc", "--root", place / "theirs"])
        ours = _script(place / "ours.sh", [BIN / "hyper-runtime", *options])
        stack.callback(_leave_nothing, place, (theirs, ours))
        found = {}
        for name in names:
            found[name] = tuple(Side(r, namespace, place).run(tools, name) for r in (theirs, ours))
            print(f"{name:34} runc {found[name][0].word:8} hyper-runtime {found[name][1].word}", flush=True)
        return found  # type: ignore[return-value]


def _differences(found: dict[str, tuple[Outcome, Outcome]]) -> list[Difference]:
    """What fails with hyper-runtime, and what runc did."""
    return [
        Difference(f"{name}: {each}", "failed" if each in theirs.failed else theirs.word, each)
        for name, (theirs, ours) in found.items()
        for each in ours.failed
    ]


def _write(found: dict[str, tuple[Outcome, Outcome]], known: list[Reason]) -> None:
    words = [ours.word for _, ours in found.values()]
    lines = [f"The last run: of {len(words)} programs {words.count('passed')} passed, {words.count('failed')} failed "
             f"in part or whole, {words.count('skipped')} have nothing to say; with runc "
             f"{sum(theirs.word == 'passed' for theirs, _ in found.values())} passed.", "",
             "| program | runc | hyper-runtime | checks that it leaves out itself |",
             "| --- | --- | --- | --- |"]  # fmt: skip
    for name, (theirs, ours) in found.items():
        lines.append(f"| {name} | {theirs} | {ours} | {len(set(ours.skipped)) or ''} |")
    lines += ["", "## What fails", "", "| program: what | runc | why |", "| --- | --- | --- |"]
    lines += [f"| {cell(d.what)} | {d.docker} | {why(d.what, known)} |" for d in _differences(found)]
    PAGE.write_text("\n".join([*_INTRODUCTION, *lines]) + "\n")


def main() -> int:
    """Names are of some of the programs; the page is written for all."""
    tools = built()
    names = sys.argv[1:] or sorted(os.listdir(tools / PROGRAMS))
    found = _outcomes(names, tools)
    always, missing, differences = reasons("validation", HERE / "reasons.toml"), 0, _differences(found)
    known = [*always, *reasons("sometimes", HERE / "reasons.toml")]
    for d in differences:
        if not why(d.what, known):
            missing += 1
            print(f"no reason: {json.dumps(d.what)} (runc: {d.docker})")
    if len(sys.argv) == 1:
        for old in unused(always, differences):
            missing += 1
            print(f"a reason for what does not fail: {old}")
        if not missing:
            _write(found, known)
    print(f"{len(names)} programs, {len(differences)} failures, {missing} to do")
    return 1 if missing else 0


if __name__ == "__main__":
    sys.exit(main())
