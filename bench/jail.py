# SPDX-License-Identifier: Apache-2.0
"""`python -m bench.jail [RUNS]`, as root: what the jail costs, with it and without in turns, as medians and ratios.

`run` from the pool and a boot, on two daemons; and `true` started by hyperjail, by bubblewrap with the same
namespaces, and by neither.
"""

from __future__ import annotations

import functools
import os
import shutil
import socket
import statistics
import subprocess
import sys
import tempfile
from collections.abc import Callable
from pathlib import Path

from hypercontainer.hyperctl.output import print_table
from hypercontainer.jail.hyperjail import binary
from hypercontainer.jail.libraries import libraries

from .measure import Figure, in_turns, seconds
from .peers import Hyper, daemon, namespace

_RUNS = 40
_GOAL = 1.05  # times what it takes without a jail
_USER = "70000"
_SPACES = ("ipc", "pid", "net", "uts", "cgroup")
HEAD = ["FIGURE", "WITH THE JAIL", "WITHOUT", "RATIO", "GOAL", ""]


def starts(directory: Path, space: str, runs: int) -> list[Figure]:
    """`run --rm busybox true` without a network, of two daemons in one network namespace."""
    options = ("--network", "none", "--pool-memory", "256m")
    (settings := directory / "without.toml").write_text('jail = "off"\n')
    with (
        daemon(directory / "with", space, *options) as jailed,
        daemon(directory / "without", space, *options, "--config", str(settings)) as plain,
    ):
        both = (jailed, plain)
        for hyper in both:
            hyper.ctl("run", "--rm", "busybox", "true")

        def ready() -> None:
            for hyper in both:
                hyper.pool_ready()

        return [
            _figure("run --rm busybox true, pool", both, ("run", "--rm", "busybox", "true"), runs, ready, _GOAL),
            _figure(
                "the same, booted", both, ("run", "--rm", "--isolation", "fresh", "busybox", "true"), runs // 3, ready
            ),
        ]


def _figure(
    name: str, both: tuple[Hyper, Hyper], words: tuple[str, ...], runs: int, ready: Callable[[], None],
    goal: float | None = None,
) -> Figure:  # fmt: skip
    """In turns, and each as often first as second: what the first leaves to do may fall into the second's time."""
    times = in_turns(
        [functools.partial(seconds, functools.partial(hyper.ctl, *words)) for hyper in both], runs, before=ready
    )
    ours, theirs = (statistics.median(each) for each in times)
    return Figure(name, ours, "s", theirs, goal)


def programs(place: str, runs: int) -> list[tuple[str, list[float]]]:
    """Seconds that `true` takes to start and end."""
    program = Path("/bin/true").resolve()
    files = [program, *libraries(program)]
    ways: dict[str, Callable[[], None]] = {
        "neither": lambda: _run([str(program)]),
        "hyperjail": lambda: _jailed(files, place),
    }
    if shutil.which("bwrap"):
        ways["bubblewrap"] = lambda: _run(_wrapped(files))
    times = in_turns([functools.partial(seconds, way) for way in ways.values()], runs)
    return list(zip(ways, times, strict=True))


def _run(command: list[str]) -> None:
    subprocess.run(command, check=True)


def _wrapped(files: list[Path]) -> list[str]:
    spaces = [f"--unshare-{space}" for space in _SPACES]
    binds = [word for path in files for word in ("--ro-bind", str(path), str(path))]
    return ["bwrap", *spaces, "--proc", "/proc", "--dev", "/dev", "--cap-drop", "ALL", "--as-pid-1", *binds,
            str(files[0])]  # fmt: skip


def _jailed(files: list[Path], place: str) -> None:
    ours, theirs = socket.socketpair()
    with ours, theirs:
        words = ["root", place, "name", "jail", "proc", "user", _USER, _USER]
        words += [word for path in files for word in ("read", str(path), str(path))]
        words += [word for device in ("/dev/null", "/dev/urandom") for word in ("device", device, device)]
        command = [str(binary()), str(theirs.fileno()), *words, "--", str(files[0])]
        subprocess.run(command, pass_fds=[theirs.fileno()], check=True)
        pid = int(ours.recv(4096).split()[1])
        if os.waitpid(pid, 0)[1]:
            raise RuntimeError("the program did not end well in its jail")


def main() -> int:
    runs = int(sys.argv[1]) if len(sys.argv) > 1 else _RUNS
    with tempfile.TemporaryDirectory(prefix="hyj") as directory, namespace() as space:
        for name, times in programs(directory, runs):
            print(f"true by {name:<12}median {statistics.median(times) * 1000:6.2f} ms  "
                  f"least {min(times) * 1000:6.2f} ms", flush=True)  # fmt: skip
        figures = starts(Path(directory), space, runs)
    print_table(HEAD, [figure.row() for figure in figures])
    return any(figure.met is False for figure in figures)


if __name__ == "__main__":
    sys.exit(main())
