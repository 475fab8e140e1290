# SPDX-License-Identifier: Apache-2.0
"""Run both daemons, compare them, write the page; the exit status is 1 where something differs without a reason.

`--again` takes what the last run found, for who writes reasons.
"""

from __future__ import annotations

import importlib.util
import json
import subprocess
import sys
import tempfile
from dataclasses import asdict
from pathlib import Path

from tests.e2e.conftest import launched
from tests.e2e.test_networks import namespaces
from tests.transcript import read

from . import page
from .dockerd import serving
from .documents import gather
from .fields import count, differences
from .steps import Difference, Side, compared

_TRANSCRIPTS = (*sorted((page.ROOT / "tests/e2e/transcripts").glob("*.txt")), page.ROOT / "tests/beside/more.txt")


_KEPT = page.ROOT / "build/docker-compare.json"


def _builder() -> Path:
    """The archive of the builder's image, in which dockerd is; made where it is not."""
    spec = importlib.util.spec_from_file_location("build", page.ROOT / "hyperbuilder/build.py")
    assert spec and spec.loader
    module = importlib.util.module_from_spec(spec)
    spec.loader.exec_module(module)
    return Path(module.build())


def _both(place: Path, beside: Path, namespace: str) -> tuple[list[Difference], list[Difference], tuple[int, int]]:
    (place / "hyperd").mkdir()
    (beside / "docker").mkdir()
    prefix = ("ip", "netns", "exec", namespace)
    with (
        serving(_builder(), beside / "docker") as socket,
        launched(place / "root", "--network", "bridge", prefix=prefix) as daemon,
    ):
        daemon.ctl("pull", "-q", "builtin:busybox")
        docker, here = Side(socket, beside / "docker"), Side(daemon.run / "docker.sock", place / "hyperd")
        subprocess.run(f"docker -H unix://{here.socket} save busybox | docker -H unix://{socket} load -q", shell=True,
                       check=True)  # fmt: skip
        theirs, ours = gather(docker), gather(here)
        fields = [d for what in theirs for d in differences(what, theirs[what], ours[what])]
        commands, steps = [], 0
        for path in _TRANSCRIPTS:
            steps += len(read(path))
            commands += compared(read(path), docker, here)
            daemon.remove_all()
    return commands, fields, (steps, sum(map(count, theirs.values())))


def _found() -> tuple[list[Difference], list[Difference], tuple[int, int]]:
    if "--again" in sys.argv:
        kept = json.loads(_KEPT.read_text())
        commands, fields = ([Difference(**d) for d in kept[kind]] for kind in ("commands", "fields"))
        return commands, fields, tuple(kept["counted"])
    # Two directories: what is left in hyperd's own is looked for at its end.
    with (
        tempfile.TemporaryDirectory(prefix="hyb") as place,
        tempfile.TemporaryDirectory(prefix="dockerd") as beside,
        namespaces("b") as namespace,
    ):
        commands, fields, counted = _both(Path(place), Path(beside), namespace)
    _KEPT.parent.mkdir(exist_ok=True)
    lists = {"commands": [asdict(d) for d in commands], "fields": [asdict(d) for d in fields], "counted": counted}
    _KEPT.write_text(json.dumps(lists, indent=1))
    return commands, fields, counted


def main() -> int:
    commands, fields, counted = _found()
    missing = 0
    for kind, found in (("commands", commands), ("fields", fields)):
        known = page.reasons(kind)
        for d in found:
            if not page.why(d.what, known):
                missing += 1
                print(f"no reason: {d.what}\n  dockerd: {d.docker}\n  hyperd:  {d.here}")
        for old in page.unused(known, found):
            missing += 1
            print(f"a reason for what does not differ: {old}")
    print(f"{counted[0]} commands, {len(commands)} differ; {counted[1]} values, {len(fields)} differ; {missing} to do")
    if not missing:
        page.write(commands, fields, counted)
    return 1 if missing else 0


sys.exit(main())
