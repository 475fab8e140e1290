# SPDX-License-Identifier: Apache-2.0
"""`python -m bench.sessions [RUNS]`, as root: a sandbox that is made, runs a command and is ended, by the SDK; beside
the same with podman and runc: `run -d`, `exec`, `rm -f`.
"""

from __future__ import annotations

import functools
import json
import statistics
import sys
import tempfile
from pathlib import Path

from hypercontainer.hyperctl.output import print_table
from hypercontainer.model.specs import ContainerSpec
from hypercontainer.sdk import Sandbox

from .measure import HEAD, Figure, in_turns, seconds
from .peers import Hyper, Podman, daemon, machines, memory, namespace

_RUNS = 5
_IMAGE = "localhost/bench-busybox"
_NAME = "bench-session"
_PRIVATE = ("Private_Clean", "Private_Dirty")
_MB = 1000.0  # kilobytes


def ours(hyper: Hyper, cold: bool) -> float:
    """Seconds; a cold one boots, others come from the pool."""
    spec = ContainerSpec(image="busybox", isolation="fresh") if cold else None

    def life() -> None:
        with Sandbox.create("busybox", spec=spec, host=str(hyper.socket)) as sandbox:
            assert sandbox.run(["echo", "here"]).stdout == "here\n"

    return seconds(life)


def begin(podman: Podman) -> None:
    podman.run("-d", "--name", _NAME, "--network", "none", _IMAGE, "sleep", "100000")


def theirs(podman: Podman) -> float:
    def life() -> None:
        begin(podman)
        assert podman("exec", _NAME, "echo", "here").stdout == b"here\n"
        podman("rm", "-f", "-t", "0", _NAME)

    return seconds(life)


def memories(hyper: Hyper, podman: Podman) -> tuple[float, float]:
    """Private megabytes of an idle one: of its hypervisor; of its program and of podman's monitor of it."""
    before = set(machines(hyper))
    with Sandbox.create("busybox", host=str(hyper.socket)):
        (pid,) = set(machines(hyper)) - before
        mine = memory(pid, *_PRIVATE)
    begin(podman)
    try:
        (found,) = json.loads(podman("inspect", _NAME).stdout)
        monitor = int(Path(found["ConmonPidFile"]).read_text())
        peer = memory(found["State"]["Pid"], *_PRIVATE) + memory(monitor, *_PRIVATE)
    finally:
        podman("rm", "-f", "-t", "0", _NAME)
    return mine / _MB, peer / _MB


def figures(hyper: Hyper, podman: Podman, runs: int) -> list[Figure]:
    podman.load(f"{hyper.root}/images:docker.io/library/busybox:latest", _IMAGE)
    try:
        ours(hyper, cold=False)  # which machines wait is known by what was asked for
        ways = (
            functools.partial(ours, hyper, False),
            functools.partial(ours, hyper, True),
            functools.partial(theirs, podman),
        )
        warm, cold, peer = (statistics.median(t) for t in in_turns(ways, runs, before=hyper.pool_ready))
        private, beside = memories(hyper, podman)
    finally:
        podman("rmi", "-f", _IMAGE)
    return [
        Figure("made, a command, ended: from the pool", warm, "s", peer),
        Figure("made, a command, ended: booted", cold, "s", peer),
        Figure("private memory of an idle one", private, "MB", beside),
    ]


def main() -> int:
    runs = int(sys.argv[1]) if len(sys.argv) > 1 else _RUNS
    with (
        tempfile.TemporaryDirectory(prefix="hyf") as directory, namespace() as space,
        daemon(Path(directory) / "d", space) as hyper,
    ):  # fmt: skip
        found = figures(hyper, Podman(space), runs)
    print_table(HEAD, [figure.row() for figure in found])
    return 0


if __name__ == "__main__":
    sys.exit(main())
