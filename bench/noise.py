# SPDX-License-Identifier: Apache-2.0
"""`python -m bench.noise [RUNS]`, as root: what a project's pod has beside another project's that make noise.

Two projects on one daemon, real virtual machines. The victim counts in a shell, writes blocks to its disk that are
synchronised one by one, pings another of its pods, and is started. The neighbour burns processors, writes, floods its
network, forks, and starts pods without an end. That is measured alone, beside a neighbour without bounds (no control
groups, no quota), and beside one with them: control groups, a quota of virtual CPUs and starts, rates of its disk and
its network.
"""

from __future__ import annotations

import contextlib
import re
import statistics
import subprocess
import sys
import tempfile
import threading
from collections.abc import Callable, Iterator
from pathlib import Path

from hypercontainer.hyperctl.output import print_table

from .measure import seconds
from .peers import Hyper, daemon, namespace

_RUNS = 5
_COUNT = "i=0; while [ $i -lt 20000 ]; do i=$((i+1)); done"
_WRITE = "i=0; while [ $i -lt 32 ]; do dd if=/dev/zero of=/probe bs=4k count=1 conv=fsync 2>/dev/null; i=$((i+1)); done"
_FLOODS = 3  # pods of the neighbour that the unbounded one has
_BURN = "while :; do :; done & while :; do :; done"
_FILL = "while :; do dd if=/dev/zero of=/fill bs=1M count=64 conv=fsync 2>/dev/null; done"
_FORK = "f() { f & f & wait; }; while :; do (f) 2>/dev/null; done"
_NOISES = {
    "burns processors": _BURN,
    "writes": _FILL,
    "floods the network": "ping -q -s 1400 -A loud-0",
    "forks": _FORK,
}
_QUOTA = ("vcpus=2", "pods=4", "starts=12")
_RATES = ("--egress-rate", "10m", "--ingress-rate", "10m")
_IO_RATE = 'io_rate = "10m"\n'

Probe = Callable[[Hyper], float]


def victim(hyper: Hyper, *args: str) -> bytes:
    return hyper.ctl("--project", "victim", *args).stdout


def _inside(script: str) -> Probe:
    return lambda hyper: seconds(lambda: victim(hyper, "exec", "one", "sh", "-c", script))


def _ping(hyper: Hyper) -> float:
    """The mean of round trips, in seconds."""
    text = victim(hyper, "exec", "one", "ping", "-q", "-c", "20", "-i", "0.05", "two").decode()
    found = re.search(r"= [0-9.]+/([0-9.]+)/", text)
    if not found:
        raise RuntimeError(f"the victim's network does not answer: {text}")
    return float(found[1]) / 1000


def _start(hyper: Hyper) -> float:
    return seconds(lambda: victim(hyper, "run", "--rm", "busybox", "true"))


Measured = dict[str, dict[str, tuple[float, float]]]  # kind of noise -> probe -> seconds beside it, and alone
PROBES: dict[str, Probe] = {
    "20,000 rounds of a shell's loop": _inside(_COUNT),
    "32 blocks written, each synchronised": _inside(_WRITE),
    "round trip of a ping": _ping,
    "start of a pod": _start,
}


def _done(hyper: Hyper, *args: str) -> bool:
    return subprocess.run(hyper.command(*args), env=hyper.env, capture_output=True, check=False).returncode == 0


@contextlib.contextmanager
def noise(hyper: Hyper, kind: str, *, bounded: bool) -> Iterator[None]:
    """The neighbour's, for the time of the block."""
    if kind == "starts pods":
        with _starting(hyper):
            yield
        return
    words = ("--project", "loud", "run", "-d", "--network", "bridge", *(_RATES if bounded else ()))
    started: list[str] = []
    for name in (f"loud-{number}" for number in range(_FLOODS)):
        script = _NOISES[kind] if started or "loud-0" not in _NOISES[kind] else "sleep 100000"
        command = (*words, "--name", name, "busybox", "sh", "-c", script)
        if not started:  # with a quota of starts it waits for those of a minute ago
            Hyper.until(lambda command=command: _done(hyper, *command), "the neighbour's pod")
            started.append(name)
        elif _done(hyper, *command):  # the quota refuses the third
            started.append(name)
    try:
        yield
    finally:
        hyper.ctl("--project", "loud", "rm", "-f", *started)


@contextlib.contextmanager
def _starting(hyper: Hyper) -> Iterator[None]:
    """Eight clients, who start pods one after the other."""
    over = threading.Event()

    def again() -> None:
        while not over.is_set():
            done = subprocess.run(hyper.command("--project", "loud", "run", "--rm", "busybox", "true"), env=hyper.env,
                                  capture_output=True, check=False)  # fmt: skip
            if done.returncode:  # refused: a client that is told to wait does
                over.wait(1.0)

    threads = [threading.Thread(target=again) for _ in range(8)]
    for thread in threads:
        thread.start()
    try:
        yield
    finally:
        over.set()
        for thread in threads:
            thread.join()


def measured(hyper: Hyper, runs: int) -> dict[str, float]:
    return {name: statistics.median(probe(hyper) for _ in range(runs)) for name, probe in PROBES.items()}


def prepare(hyper: Hyper, *, bounded: bool) -> None:
    for name in ("victim", "loud"):
        hyper.ctl("organisation", "create", name)
        hyper.ctl("project", "create", name, "--organisation", name)
        hyper.ctl("--project", name, "pull", "-q", "builtin:busybox")
    if bounded:
        hyper.ctl("project", "quota", "loud", *_QUOTA)
    for name in ("one", "two"):
        victim(hyper, "run", "-d", "--name", name, "--network", "bridge", "busybox", "sleep", "100000")


def arm(directory: Path, space: str, runs: int, *, bounded: bool) -> Measured:
    """What the victim has."""
    directory.mkdir()
    (directory / "hyperd.toml").write_text(_IO_RATE if bounded else 'control_groups = "off"\n')
    found: Measured = {}
    with daemon(directory, space, "--config", str(directory / "hyperd.toml"), "--pool-memory", "0") as hyper:
        prepare(hyper, bounded=bounded)
        for kind in (*_NOISES, "starts pods"):
            alone = measured(hyper, runs)  # anew each time: the host may have other neighbours, too
            with noise(hyper, kind, bounded=bounded):
                found[kind] = {name: (value, alone[name]) for name, value in measured(hyper, runs).items()}
        hyper.ctl("--project", "victim", "rm", "-f", "one", "two")
    return found


def rows(free: Measured, bounded: Measured) -> Iterator[list[str]]:
    for kind in free:
        for name in PROBES:
            ratios = (beside / alone for beside, alone in (free[kind][name], bounded[kind][name]))
            yield [kind, name, f"{1000 * free[kind][name][1]:.1f} ms", *(f"{ratio:.2f}" for ratio in ratios)]


def main() -> int:
    runs = int(sys.argv[1]) if len(sys.argv) > 1 else _RUNS
    with tempfile.TemporaryDirectory(prefix="hyn") as place:
        found = []
        for bounded in (False, True):
            with namespace() as space:
                found.append(arm(Path(place) / str(bounded), space, runs, bounded=bounded))
    print_table(["NEIGHBOUR", "VICTIM", "ALONE", "FREE: RATIO", "BOUNDED: RATIO"], list(rows(*found)))
    return 0


if __name__ == "__main__":
    sys.exit(main())
