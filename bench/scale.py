# SPDX-License-Identifier: Apache-2.0
"""Many pods at a time: how fast they start, what they hold."""

from __future__ import annotations

import signal
import statistics
import threading
import time
from pathlib import Path

from .measure import Figure, seconds
from .peers import Hyper, daemon, machines, memory

PODS, AT_A_TIME, MEMORY_AT = 100, 8, 50
_MB = 1024  # kilobytes


class Scale:
    """One hundred pods of busybox, eight at a time."""

    def __init__(self, directory: Path, space: str) -> None:
        self._directory, self._space = directory, space
        self.curve: list[float] = []  # seconds until so many ran

    def measure(self) -> list[Figure]:
        options = ("--pool-memory", "0")  # what starts is a clone; the pool's machines would be counted else
        with daemon(self._directory / "scale", self._space, *options) as hyper:
            hyper.ctl("run", "--rm", "busybox", "true")
            hyper.templates_ready()
            self._start(hyper, 0, MEMORY_AT)
            figures = self._memory(hyper)
            self._start(hyper, MEMORY_AT, PODS)
            figures += self._hundred(hyper)
            figures.append(self._restart(hyper, signal.SIGHUP, f"hyperd's start with {PODS} pods that run", None))
            figures.append(
                self._restart(hyper, signal.SIGTERM, f"hyperd's start with {PODS} pods in its database", 0.5)
            )
        return figures

    def _start(self, hyper: Hyper, first: int, last: int) -> None:
        """Start pods first..last, so many at a time; the seconds until each ran go to the curve."""
        numbers, lock = iter(range(first, last)), threading.Lock()
        begin = time.perf_counter() - (self.curve[-1] if self.curve else 0.0)
        failed: list[str] = []

        def work() -> None:
            while True:
                with lock:
                    number = next(numbers, None)
                if number is None:
                    return
                try:
                    hyper.ctl("run", "-d", "--name", f"bench-{number}", "busybox", "sleep", "100000")
                except RuntimeError as error:
                    failed.append(str(error))
                with lock:
                    self.curve.append(time.perf_counter() - begin)

        threads = [threading.Thread(target=work) for _ in range(AT_A_TIME)]
        for thread in threads:
            thread.start()
        for thread in threads:
            thread.join()
        if failed:
            raise RuntimeError(f"{len(failed)} pods did not start: {failed[0]}")

    def _memory(self, hyper: Hyper) -> list[Figure]:
        pids = machines(hyper)
        private = statistics.median(memory(pid, "Private_Clean", "Private_Dirty") for pid in pids) / _MB
        pss = statistics.median(memory(pid, "Pss") for pid in pids) / _MB
        return [
            Figure(f"private memory of an idle pod's processes, of {len(pids)}", private, "MB", None, 24),
            Figure("the same, PSS", pss, "MB", None, 28),
        ]

    def _hundred(self, hyper: Hyper) -> list[Figure]:
        running = len(machines(hyper))
        return [
            Figure(
                f"pods that run, of {PODS} started {AT_A_TIME} at a time", running, "pods", None, PODS, at_least=True
            ),
            Figure("pods started per second", PODS / self.curve[-1], "/s"),
            Figure(
                f"hyperd's resident memory with {running} pods", memory(hyper.process.pid, "Rss") / _MB, "MB", None, 120
            ),
        ]

    def _restart(self, hyper: Hyper, how: signal.Signals, name: str, goal: float | None) -> Figure:
        """hyperd until it answers, after it was ended: SIGHUP leaves pods running, SIGTERM stops them."""
        hyper.process.send_signal(how)
        hyper.process.wait()

        def again() -> None:
            hyper.process = hyper.launch()
            hyper.until(hyper.answers, "the daemon's answer")

        return Figure(name, seconds(again), "s", None, goal)
