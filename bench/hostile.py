# SPDX-License-Identifier: Apache-2.0
"""`python -m bench.hostile [SECONDS]`: hyperd beside a guest that breaks the protocol, and an idle hyperd.

Both are asked for their version in turns, so that a busy machine hits both; each guest does what it does for so many
seconds, again and again where its machine is ended for it. Goals: p99 at most twice the idle one's, and below 50 ms
where that one's is below 25; less than 32 MiB more memory.
"""

from __future__ import annotations

import contextlib
import os
import statistics
import subprocess
import sys
import tempfile
import time
from collections.abc import Iterator
from dataclasses import dataclass
from pathlib import Path

from tests import hostile

from hypercontainer.client.transport import Connection
from hypercontainer.hyperctl.output import print_table

from .peers import Hyper, daemon, memory, namespace

CASES = (
    "nothing wrong",
    "has an attribute longer than its frame",
    "has a number of three bytes",
    "has a frame of no length",
    "has a frame of four gigabytes",
    "sends frames of no kind",
    "cuts data frames short",
    "sends output beyond its credit",
    "sends output of a process that is not there",
    "grants credit without end",
    "acknowledges what was never sent",
    "ends processes that are not there",
    "tells spans of a megabyte",
    "kills for memory without end",
    "floods the console",
)
_PAUSE = 0.004  # seconds between two questions
_RATIO, _GROWTH = 2.0, 32  # of the idle one's p99; MiB


@dataclass
class Measured:
    """One guest: seconds, and MiB."""

    name: str
    p99: float
    idle: float
    growth: float

    @property
    def met(self) -> bool:
        return self.p99 / self.idle <= _RATIO and self.growth < _GROWTH

    def row(self) -> list[str]:
        return [self.name, f"{self.p99 * 1000:.1f} ms", f"{self.idle * 1000:.1f} ms", f"{self.p99 / self.idle:.2f}",
                f"{self.growth:.1f} MiB", "met" if self.met else "missed"]  # fmt: skip


@contextlib.contextmanager
def _guest(hyper: Hyper) -> Iterator[None]:
    """One after the other is started, with a program's input open, until the block ends."""
    command = "hyperctl run --rm -i --network none busybox cat </dev/zero >/dev/null 2>&1"
    script = f"while :; do timeout 30 {command}; sleep 0.2; done"
    environment = {**hyper.env, "PATH": f"{Path(sys.executable).parent}:{os.environ['PATH']}"}
    running = subprocess.Popen(["sh", "-c", script], env=environment, start_new_session=True)
    try:
        yield
    finally:
        os.killpg(running.pid, 9)
        running.wait()
        for name in hyper.ctl("ps", "-aq").stdout.split():
            subprocess.run(hyper.command("rm", "-f", name.decode()), env=hyper.env, capture_output=True, check=False)


def _asked(socket: Path) -> float:
    begin = time.perf_counter()
    Connection(str(socket), 60).request("GET", "/v1/version", {}).read()
    return time.perf_counter() - begin


def measure(name: str, busy: Hyper, idle: Hyper, initramfs: Path, seconds: float) -> Measured:
    new = initramfs.with_suffix(".new")
    new.write_bytes(hostile.initramfs_of(hostile.CASES[name]))
    new.replace(initramfs)
    pid = busy.process.pid
    before = memory(pid, "Rss")
    most, ours, theirs = before, list[float](), list[float]()
    with _guest(busy):
        end = time.monotonic() + seconds
        while time.monotonic() < end:
            turns = [(busy, ours), (idle, theirs)]
            for hyper, times in turns if len(ours) % 2 else reversed(turns):
                times.append(_asked(hyper.socket))
            most = max(most, memory(pid, "Rss")) if len(ours) % 25 == 0 else most
            time.sleep(_PAUSE)
    p99s = [statistics.quantiles(times, n=100)[98] for times in (ours, theirs)]
    return Measured(name, p99s[0], p99s[1], (most - before) / 1024)


def main() -> int:
    seconds = float(sys.argv[1]) if len(sys.argv) > 1 else 10.0
    options = ("--no-factory", "--boot-timeout", "20", "--network", "none")
    with contextlib.ExitStack() as stack:
        directory = Path(stack.enter_context(tempfile.TemporaryDirectory(prefix="hyh")))
        space = stack.enter_context(namespace())
        busy, idle = (stack.enter_context(daemon(directory / n, space, *options)) for n in ("busy", "idle"))
        busy.ctl("run", "--rm", "busybox", "true")
        [initramfs] = busy.root.rglob("initramfs-*.cpio")
        found = []
        for name in CASES:
            found.append(measure(name, busy, idle, initramfs, seconds))
            print(*found[-1].row(), sep="  ", flush=True)
    print_table(
        ["A GUEST THAT", "P99 OF VERSION", "IDLE HYPERD'S", "RATIO", "MEMORY", ""],
        [f.row() for f in found],
    )
    return not all(f.met for f in found)


if __name__ == "__main__":
    sys.exit(main())
