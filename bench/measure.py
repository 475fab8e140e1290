# SPDX-License-Identifier: Apache-2.0
"""Running commands many times: medians of wall times, in seconds."""

from __future__ import annotations

import statistics
import subprocess
import time
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass


@dataclass(frozen=True)
class Figure:
    """One line of the table; `goal` says what the ratio or the value should not pass."""

    name: str
    value: float
    unit: str
    peer: float | None = None
    goal: str = ""

    def row(self) -> list[str]:
        def shown(number: float | None) -> str:
            return "" if number is None else f"{number:.3f} {self.unit}" if self.unit == "s" else f"{number:.1f} {self.unit}"

        ratio = f"{self.value / self.peer:.2f}" if self.peer else ""
        return [self.name, shown(self.value), shown(self.peer), ratio, self.goal]


def run(command: Sequence[str], env: Mapping[str, str] | None = None) -> subprocess.CompletedProcess[bytes]:
    """:raise RuntimeError: with the command's own words when it fails."""
    done = subprocess.run(command, capture_output=True, env=env, stdin=subprocess.DEVNULL, check=False)
    if done.returncode:
        raise RuntimeError(f"{' '.join(command)}: {done.stderr.decode(errors='replace').strip()}")
    return done


def median_of(action: Callable[[], object], runs: int, before: Callable[[], object] | None = None) -> float:
    """Median wall time of `runs` calls after one that is not counted."""
    times = []
    for index in range(runs + 1):
        if before:
            before()
        begin = time.perf_counter()
        action()
        if index:
            times.append(time.perf_counter() - begin)
    return statistics.median(times)


def alternating(ours: Callable[[], object], theirs: Callable[[], object], runs: int) -> tuple[float, float]:
    """Both medians, measured in turns, so that a noisy machine hits both."""
    mine, peers = [], []
    for index in range(runs + 1):
        for action, times in ((ours, mine), (theirs, peers)):
            begin = time.perf_counter()
            action()
            if index:
                times.append(time.perf_counter() - begin)
    return statistics.median(mine), statistics.median(peers)
