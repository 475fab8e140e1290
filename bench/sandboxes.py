# SPDX-License-Identifier: Apache-2.0
"""`python -m bench.sandboxes [RUNS]`, as root: what a fork of a pod takes that has a hundred megabytes in memory.

Beside a `run` from the pool and one that boots, in turns, on one daemon; all with the same memory.
"""

from __future__ import annotations

import functools
import statistics
import sys
import tempfile
from pathlib import Path

from hypercontainer.hyperctl.output import print_table

from .measure import Figure, in_turns, seconds
from .peers import Hyper, daemon, memory, namespace

_RUNS, _MANY = 5, 10
_SIZE = ("-m", "256m", "--shm-size", "128m")
# Random bytes, as pages of zeros would not be copied; then a server, so that there is one to be forked.
_STATE = "head -c 100000000 /dev/urandom >/dev/shm/state; echo ready; exec httpd -f -p 80 -h /dev/shm"
_MB = 1000.0  # kilobytes
HEAD = ["FIGURE", "FORK", "BESIDE IT", "RATIO", "GOAL", ""]


def parent(hyper: Hyper) -> None:
    """One that has its state; and as many machines wait as shall."""
    hyper.ctl("run", "-d", *_SIZE, "--name", "parent", "busybox", "sh", "-c", _STATE)
    hyper.until(lambda: b"ready" in hyper.ctl("logs", "parent").stdout, "the state")


def once(hyper: Hyper, *words: str) -> float:
    """Seconds until it runs; it is removed then."""
    taken = seconds(functools.partial(hyper.ctl, *words, "--name", "other", *_rest(words)))
    print(f"{' '.join(words)}: {taken:.3f} s", file=sys.stderr, flush=True)
    hyper.ctl("rm", "-f", "other")
    return taken


def _rest(words: tuple[str, ...]) -> tuple[str, ...]:
    return ("parent",) if "fork" in words else (*_SIZE, "busybox", "sleep", "1000")


def figures(hyper: Hyper, runs: int) -> list[Figure]:
    parent(hyper)
    once(hyper, "run", "-d")
    ways = (("pod", "fork"), ("run", "-d"), ("run", "-d", "--isolation", "fresh"))
    times = in_turns([functools.partial(once, hyper, *way) for way in ways], runs, before=hyper.pool_ready)
    fork, pool, cold = (statistics.median(each) for each in times)
    many = seconds(functools.partial(hyper.ctl, "pod", "fork", "-n", str(_MANY), "--name", "many", "parent")) / _MANY
    private = [memory(pid, "Private_Clean", "Private_Dirty") / _MB for pid in machines(hyper)]
    hyper.ctl("snapshot", "create", "--name", "shot", "parent")
    (shot,) = hyper.json("snapshot", "ls")
    return [
        Figure("a fork, beside a run from the pool", fork, "s", pool, 1.5),
        Figure("a fork, beside a run that boots", fork, "s", cold, 0.25),
        Figure(f"each of {_MANY} forks at once, beside a run from the pool", many, "s", pool, 1.5),
        Figure("time that the parent stands still", shot["pausedMs"] / 1000, "s"),
        Figure(f"private memory of a fork, of {len(private)}", statistics.median(private), "MB"),
        Figure("a kept snapshot, on disk", shot["size"] / 1e6, "MB"),
    ]


def machines(hyper: Hyper) -> list[int]:
    """Numbers of the forks' processes; containers of their own are no pods to `pod ls`.

    :raise SystemExit: one has ended.
    """
    found = []
    for number in range(1, _MANY + 1):
        (pod,) = hyper.json("inspect", "--type", "pod", f"many-{number}")
        if not (vm := pod["pod"]["vm"]):
            raise SystemExit(f"the fork many-{number} has ended: {pod['pod']['error'] or 'hyperd does not say why'}")
        found.append(int(vm["pid"]))
    return found


def main() -> int:
    runs = int(sys.argv[1]) if len(sys.argv) > 1 else _RUNS
    with (
        tempfile.TemporaryDirectory(prefix="hyf") as directory, namespace() as space,
        daemon(Path(directory) / "d", space, "--pool-memory", "512m") as hyper,
    ):  # fmt: skip
        found = figures(hyper, runs)
        for name in ["parent", *(f"many-{n}" for n in range(1, _MANY + 1))]:
            hyper.ctl("rm", "-f", name)
    print_table(HEAD, [figure.row() for figure in found])
    return any(figure.met is False for figure in found)


if __name__ == "__main__":
    sys.exit(main())
