# SPDX-License-Identifier: Apache-2.0
"""How long `true` takes to start and end by hyperjail, by bubblewrap with the same namespaces, and without either.

`python -m bench.jail [RUNS]`, as root.
"""

from __future__ import annotations

import os
import shutil
import socket
import statistics
import subprocess
import sys
import tempfile
import time
from collections.abc import Callable
from pathlib import Path

from hypercontainer.jail.hyperjail import binary
from hypercontainer.jail.libraries import libraries

_RUNS = 30
_USER = "70000"
_SPACES = ("ipc", "pid", "net", "uts", "cgroup")


def main() -> None:
    program = Path("/bin/true").resolve()
    files = [program, *libraries(program)]
    runs = int(sys.argv[1]) if len(sys.argv) > 1 else _RUNS
    with tempfile.TemporaryDirectory() as place:
        ways: dict[str, Callable[[], None]] = {
            "neither": lambda: _run([str(program)]),
            "hyperjail": lambda: _jailed(files, place),
        }
        if shutil.which("bwrap"):
            ways["bubblewrap"] = lambda: _run(_wrapped(files))
        times: dict[str, list[float]] = {name: [] for name in ways}
        for _ in range(runs):  # in turn, as the machine has other things to do
            for name, way in ways.items():
                begun = time.perf_counter()
                way()
                times[name].append((time.perf_counter() - begun) * 1000)
    for name, taken in times.items():
        print(f"{name:<12}median {statistics.median(taken):6.2f} ms  least {min(taken):6.2f} ms")


def _run(command: list[str]) -> None:
    subprocess.run(command, check=True)


def _wrapped(files: list[Path]) -> list[str]:
    spaces = [f"--unshare-{space}" for space in _SPACES]
    binds = [word for path in files for word in ("--ro-bind", str(path), str(path))]
    return [
        "bwrap",
        *spaces,
        "--proc",
        "/proc",
        "--dev",
        "/dev",
        "--cap-drop",
        "ALL",
        "--as-pid-1",
        *binds,
        str(files[0]),
    ]


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


if __name__ == "__main__":
    main()
