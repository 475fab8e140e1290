# SPDX-License-Identifier: Apache-2.0
"""Run them with both runtimes, and write the page.

What fails with runc here too does not count. It fails where another one fails with hyper-runtime and has no reason, and
where a reason is of what does not fail.
"""

from __future__ import annotations

import contextlib
import re
import subprocess
import sys
import tempfile
import tomllib
from collections.abc import Iterator
from pathlib import Path

from hypercontainer.sys import caches
from tests import debian
from tests.beside.page import ROOT, cell, reasons, unused, why
from tests.beside.steps import Difference
from tests.runtimes.podman import Podman, both

from .image import NAME, write_layer

HERE = Path(__file__).parent
PAGE = ROOT / "docs/podman-system.md"
_DEADLINE = 1800.0  # seconds for the tests of one file
_LINE = re.compile(r"^(ok|not ok) \d+ (.*?)(?: in \d+\w*)?(?: # (skip.*))?$", re.M)  # of the Test Anything Protocol
_INTRODUCTION = (
    "# podman's system tests with hyper-runtime",
    "",
    "`make podman-system` runs the tests of podman's source package that need only a runtime, by Debian's podman, "
    "with runc and with [hyper-runtime](oci-runtime.md): the files of",
    "`tests/podman_system/files.toml`, which says why the others are left out. This page is written by that. What "
    "fails with runc too does not count; another failure without a reason in",
    "`tests/podman_system/reasons.toml`, and a reason of what does not fail, fail it.",
    "",
)
Results = dict[str, str]  # test -> passed, failed or skipped


def fetch() -> tuple[Path, Path]:
    """The directory of the tests, and bats, which runs them: of Debian's packages, kept."""
    place = caches.cache_directory("podman-system")
    place.mkdir(parents=True, exist_ok=True)
    tests, bats = place / "libpod", place / "bats"
    for wanted, get in ((tests, _source), (bats, _bats)):
        if not wanted.exists():
            with tempfile.TemporaryDirectory(dir=place) as scratch:
                get(Path(scratch)).rename(wanted)
    return tests / "test/system", bats / "usr/bin/bats"


def _source(scratch: Path) -> Path:
    archive = debian.source("libpod", scratch)
    tree = scratch / "tree"
    tree.mkdir()
    command = ["tar", "-xf", archive, "-C", tree, "--strip-components=1", "--wildcards", "*/test/system"]
    subprocess.run(command, check=True)
    return tree


def _bats(scratch: Path) -> Path:
    return debian.unpacked("bats", scratch)


def _run(side: Podman, tests: Path, bats: Path, name: str) -> Results:
    """The tests of one file."""
    environment = {**side.environment, "PODMAN": f"{side.place}/bin/podman", "TMPDIR": str(side.place / "tmp")}
    command = [bats, "--tap", f"{name}.bats"]
    log = side.place / f"{name}.log"
    with open(log, "wb") as out, contextlib.suppress(subprocess.TimeoutExpired):
        subprocess.run(command, cwd=tests, env=environment, stdin=subprocess.DEVNULL, stdout=out, stderr=out,
                       check=False, timeout=_DEADLINE)  # fmt: skip
    text = log.read_text(errors="replace")
    found = {}
    for word, test, skipped in _LINE.findall(text):
        state = "skipped" if skipped else "passed"
        found[f"{name}: {test}"] = "failed" if word == "not ok" else state
    return found


@contextlib.contextmanager
def _sides() -> Iterator[tuple[Podman, Podman]]:
    with both() as sides:
        for side in sides:
            (side.place / "tmp").mkdir()
            write_layer(side.place / "test.tar")
            changes = "-c 'WORKDIR /home/podman' -c 'CMD [\"/bin/echo\", \"for podman\"]'"
            status, said = side.run(f"podman import -q {changes} test.tar {NAME}")
            assert status == 0, said
        yield sides


def _differences(theirs: Results, ours: Results) -> list[Difference]:
    return [
        Difference(test, theirs.get(test, "failed"), state)
        for test, state in ours.items()
        if state == "failed" and theirs.get(test) != "failed"
    ]


def _write(theirs: Results, ours: Results, left_out: dict[str, str]) -> None:
    known, differences = reasons("tests", HERE / "reasons.toml"), _differences(theirs, ours)
    both = [t for t, state in ours.items() if state == "failed" and theirs.get(t) == "failed"]
    states = list(ours.values())
    lines = [f"The last run: of {len(ours)} tests {states.count('passed')} passed, {len(differences)} failed with "
             f"hyper-runtime alone, {len(both)} failed with runc here, too, {states.count('skipped')} were skipped by "
             "themselves.", "", "| fails with hyper-runtime alone | why |", "| --- | --- |"]  # fmt: skip
    lines += [f"| {cell(d.what)} | {why(d.what, known)} |" for d in differences]
    lines += ["", "| fails with runc, too |", "| --- |", *(f"| {cell(test)} |" for test in both)]
    lines += ["", "| left out | why |", "| --- | --- |", *(f"| {names} | {why_} |" for why_, names in left_out.items())]
    PAGE.write_text("\n".join([*_INTRODUCTION, *lines]) + "\n")


def main() -> int:
    """Names are of some of the files, without their endings; the page is written for all."""
    files = tomllib.loads((HERE / "files.toml").read_text())
    tests, bats = fetch()
    theirs: Results = {}
    ours: Results = {}
    with _sides() as (runc, here):
        for name in sys.argv[1:] or files["run"]:
            theirs |= _run(runc, tests, bats, name)
            found = _run(here, tests, bats, name)
            ours |= found
            states = list(found.values())
            print(f"{name:20} {states.count('passed'):3} passed {states.count('failed'):3} failed", flush=True)
            for d in _differences(theirs, found):
                print(f"  failed: {d.what}", flush=True)
                sys.stdout.write((here.place / f"{name}.log").read_text(errors="replace") if "-v" in sys.argv else "")
    differences = _differences(theirs, ours)
    known, missing = reasons("tests", HERE / "reasons.toml"), [d.what for d in differences]
    missing = [what for what in missing if not why(what, known)]
    for what in missing:
        print(f"no reason: {what}")
    old = unused(known, differences) if len(sys.argv) == 1 else []
    for reason in old:
        print(f"a reason for what does not fail: {reason}")
    print(f"{len(ours)} tests, {len(differences)} fail with hyper-runtime alone, {len(missing) + len(old)} to do")
    if len(sys.argv) == 1 and not missing and not old:
        _write(theirs, ours, {why_: ", ".join(names) for why_, names in files["left_out"].items()})
    return 1 if missing or old else 0


if __name__ == "__main__":
    sys.exit(main())
