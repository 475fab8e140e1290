# SPDX-License-Identifier: Apache-2.0
"""`python -m bench.floods`, as root: what floods by their amount do to hyperd: its memory, its answers, the pod.

A guest sends a gigabyte beyond the credit of its output; one grants credit for input without end, and gets a
gigabyte; a console says six (by a stand-in for QEMU's socket: an emulated serial port would take hours). Goals: less
than 32 MiB more memory, `version` in less than 200 ms (p99). For questions of DNS see docs/threat-model.md.
"""

from __future__ import annotations

import contextlib
import signal
import socket
import statistics
import subprocess
import sys
import tempfile
import threading
import time
from collections.abc import Iterator
from dataclasses import dataclass
from pathlib import Path

from tests import hostile

from hypercontainer.client.transport import Connection
from hypercontainer.hyperctl.output import print_table

from .peers import Hyper, daemon, memory, namespace

_GROWTH, _SLOWEST = 32, 0.2  # MiB; seconds
_PAUSE = 0.02  # seconds between two questions
_PATIENCE = 600.0  # seconds
_PIECE = bytes(1 << 20)
HEAD = ["FLOOD", "SENT", "TIME", "THE POD", "MEMORY", "P99 OF VERSION", ""]


class Asking:
    """`version`, again and again, until the block ends."""

    def __init__(self, hyper: Hyper) -> None:
        self._hyper, self._end = hyper, threading.Event()
        self.times = [0.0]  # seconds
        self.before = self.most = memory(hyper.process.pid, "Rss")  # KiB

    def _ask(self) -> None:
        while not self._end.wait(_PAUSE):
            begin = time.perf_counter()
            Connection(str(self._hyper.socket), 60).request("GET", "/v1/version", {}).read()
            self.times.append(time.perf_counter() - begin)
            self.most = max(self.most, memory(self._hyper.process.pid, "Rss"))

    @contextlib.contextmanager
    def going_on(self) -> Iterator[None]:
        thread = threading.Thread(target=self._ask)
        thread.start()
        try:
            yield
        finally:
            self._end.set()
            thread.join()


@dataclass
class Flood:
    """What one did."""

    name: str
    sent: str
    seconds: float
    pod: str
    asked: Asking

    @property
    def met(self) -> bool:
        return self._growth < _GROWTH and self._p99 < _SLOWEST

    @property
    def _p99(self) -> float:
        return statistics.quantiles(self.asked.times, n=100)[98]

    @property
    def _growth(self) -> float:
        return (self.asked.most - self.asked.before) / 1024

    def row(self) -> list[str]:
        version = f"{self._p99 * 1000:.0f} ms, {max(self.asked.times) * 1000:.0f} at most"
        return [self.name, self.sent, f"{self.seconds:.1f} s", self.pod, f"{self._growth:.1f} MiB", version,
                "met" if self.met else "missed"]  # fmt: skip


def _becomes(hyper: Hyper, case: str) -> None:
    """Guests that boot from here on do this; machines that run have the old file open."""
    [initramfs] = hyper.root.rglob("initramfs-*.cpio")
    new = initramfs.with_suffix(".new")
    new.write_bytes(hostile.initramfs_of(hostile.CASES[case]))
    new.replace(initramfs)


def _state(hyper: Hyper, name: str) -> str:
    return hyper.ctl("inspect", "-f", "{{.state.status}}", name).stdout.decode().strip()


def unread(hyper: Hyper) -> Flood:
    """It sends whatever credit it has, to a client that does not read: so what hyperd took is not acknowledged."""
    with _output(hyper, "unread") as (_, asked):
        begun = time.monotonic()
        Hyper.until(lambda: _state(hyper, "unread") == "exited", "the pod's end")
    return Flood("output beyond its credit, not read", "without end", time.monotonic() - begun, "ends", asked)


def read(hyper: Hyper) -> Flood:
    """The same, to a client that reads a gigabyte of it."""
    taken, begun = 0, time.monotonic()
    with _output(hyper, "read") as (running, asked):
        assert running.stdout
        while taken < 1 << 30 and (data := running.stdout.read(1 << 20)):
            taken += len(data)
        seconds = time.monotonic() - begun
        pod = "runs" if _state(hyper, "read") == "running" else "ends"
    return Flood("the same, read", f"{taken / (1 << 30):.2f} GiB", seconds, pod, asked)


@contextlib.contextmanager
def _output(hyper: Hyper, name: str) -> Iterator[tuple[subprocess.Popen[bytes], Asking]]:
    _becomes(hyper, "sends output beyond its credit")
    asked = Asking(hyper)
    running = subprocess.Popen(hyper.command("run", "--name", name, "busybox", "true"), env=hyper.env,
                               stdin=subprocess.DEVNULL, stdout=subprocess.PIPE, stderr=subprocess.DEVNULL)  # fmt: skip
    with running, asked.going_on():
        try:
            Hyper.until(lambda: _exists(hyper, name), "the container")
            yield running, asked
        finally:
            hyper.ctl("rm", "-f", name)
            running.kill()


def _exists(hyper: Hyper, name: str) -> bool:
    words = hyper.command("inspect", name)
    return subprocess.run(words, env=hyper.env, capture_output=True, check=False).returncode == 0


def stdin(hyper: Hyper) -> Flood:
    """What takes credit for 4 EiB gets a gigabyte."""
    _becomes(hyper, "grants credit without end")
    asked, begun = Asking(hyper), time.monotonic()
    running = subprocess.Popen(hyper.command("run", "-i", "--name", "stdin", "busybox", "cat"), env=hyper.env,
                               stdin=subprocess.PIPE, stdout=subprocess.DEVNULL, stderr=subprocess.DEVNULL)  # fmt: skip
    sent = 0
    assert running.stdin
    with asked.going_on():
        with contextlib.suppress(BrokenPipeError):  # its pod was ended
            while sent < 1 << 30:
                sent += running.stdin.write(_PIECE)
            running.stdin.close()
        taken = time.monotonic() - begun
        pod = "runs" if _state(hyper, "stdin") == "running" else "ends"
        hyper.ctl("rm", "-f", "stdin")
        running.wait(_PATIENCE)
    return Flood("input on endless credit", f"{sent / (1 << 30):.2f} GiB", taken, pod, asked)


def console(hyper: Hyper) -> Flood:
    """hyperd comes back to a pod whose console is ours."""
    _becomes(hyper, "nothing wrong")
    hyper.ctl("run", "-d", "--name", "console", "busybox", "true")
    hyper.process.send_signal(signal.SIGHUP)
    hyper.process.wait()
    [path] = (hyper.root.parent / "run/pods").glob("*/console.sock")
    path.unlink()
    with socket.socket(socket.AF_UNIX) as listener:
        listener.bind(str(path))
        listener.listen()
        listener.settimeout(_PATIENCE)
        hyper.process = hyper.launch()
        theirs = listener.accept()[0]
    Hyper.until(hyper.answers, "the daemon's answer")
    hyper.ctl("info")
    asked, begun, sent = Asking(hyper), time.monotonic(), 0
    with theirs, asked.going_on():
        while sent < 6 << 30:
            theirs.sendall(_PIECE)
            sent += len(_PIECE)
        taken = time.monotonic() - begun
    pod = _state(hyper, "console")
    hyper.ctl("rm", "-f", "console")
    return Flood("a console", f"{sent / (1 << 30):.2f} GiB", taken, "runs" if pod == "running" else pod, asked)


def main() -> int:
    options = ("--no-factory", "--boot-timeout", "20", "--network", "none")
    found = []
    with tempfile.TemporaryDirectory(prefix="hyf") as name, namespace() as space:
        with daemon(Path(name) / "hyper", space, *options) as hyper:
            hyper.ctl("run", "--rm", "busybox", "true")
            for flood in (unread, read, stdin, console):
                found.append(flood(hyper))
                print(*found[-1].row(), sep="  ", flush=True)
    print_table(HEAD, [f.row() for f in found])
    return not all(f.met for f in found)


if __name__ == "__main__":
    sys.exit(main())
