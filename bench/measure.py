# SPDX-License-Identifier: Apache-2.0
"""Running commands many times: medians of wall times, in seconds."""

from __future__ import annotations

import statistics
import subprocess
import time
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass

Action = Callable[[], object]


@dataclass(frozen=True)
class Figure:
    """One line of the table.

    A goal is a bound of the ratio to the peer where there is one, else of the
    value; `at_least` turns it round.
    """

    name: str
    value: float
    unit: str
    peer: float | None = None
    goal: float | None = None
    at_least: bool = False

    @property
    def met(self) -> bool | None:
        if self.goal is None:
            return None
        measured = self.value / self.peer if self.peer else self.value
        return measured >= self.goal if self.at_least else measured <= self.goal

    def row(self) -> list[str]:
        def shown(number: float | None) -> str:
            if number is None:
                return ""
            return f"{number:.3f} {self.unit}" if self.unit == "s" else f"{number:.1f} {self.unit}"

        ratio = f"{self.value / self.peer:.2f}" if self.peer else ""
        sign = ">=" if self.at_least else "<="
        goal = ""
        if self.goal is not None:
            goal = f"{sign} {self.goal:g} " + ("x" if self.peer else self.unit)
        return [
            self.name,
            shown(self.value),
            shown(self.peer),
            ratio,
            goal,
            {None: "", True: "met", False: "missed"}[self.met],
        ]


HEAD = ["FIGURE", "HYPERCONTAINER", "PODMAN+RUNC", "RATIO", "GOAL", ""]


def run(command: Sequence[str], env: Mapping[str, str] | None = None) -> subprocess.CompletedProcess[bytes]:
    """:raise RuntimeError: with the command's own words when it fails."""
    done = subprocess.run(command, capture_output=True, env=env, stdin=subprocess.DEVNULL, check=False)
    if done.returncode:
        raise RuntimeError(f"{' '.join(command)}: {done.stderr.decode(errors='replace').strip()}")
    return done


def seconds(action: Action) -> float:
    """Wall time of one call."""
    begin = time.perf_counter()
    action()
    return time.perf_counter() - begin


def median_of(action: Action, runs: int, before: Action | None = None) -> float:
    """Median wall time of `runs` calls after one that is not counted."""
    times = []
    for index in range(runs + 1):
        if before:
            before()
        taken = seconds(action)
        if index:
            times.append(taken)
    return statistics.median(times)


def stdout_rate(run_it: Callable[[str], object], megabytes: int, runs: int) -> float:
    """MB/s of text in lines of 100 bytes, from a shell in a container to a pipe of this host.

    `run_it` runs a script; what the script takes without output is taken off: 0 where that leaves nothing.
    `megabytes` are whole tens of 2^20 bytes.
    """
    prepare = f"yes {'x' * 99} | head -c {10 << 20} > /dev/shm/text; "
    copy = "cat /dev/shm/text; " * (megabytes // 10)
    taken = median_of(lambda: run_it(prepare + copy), runs) - median_of(lambda: run_it(prepare), runs)
    return (megabytes // 10) * (10 << 20) / 1e6 / taken if taken > 0 else 0.0


def alternating(
    ours: Action, theirs: Action, runs: int, *, before: Action | None = None, after: Action | None = None
) -> tuple[float, float]:
    """Both medians, measured in turns: a noisy machine hits both. `before` and `after` surround ours, unmeasured."""
    mine, peers = [], []
    for index in range(runs + 1):
        if before:
            before()
        taken = seconds(ours)
        if after:
            after()
        their = seconds(theirs)
        if index:
            mine.append(taken)
            peers.append(their)
    return statistics.median(mine), statistics.median(peers)


def in_turns(measured: Sequence[Callable[[], float]], runs: int, *, before: Action | None = None) -> list[list[float]]:
    """What each gives, `runs` times after one that is not counted; who is first changes from round to round."""
    found: list[list[float]] = [[] for _ in measured]
    for index in range(runs + 1):
        for number in sorted(range(len(measured)), reverse=index % 2 == 1):
            if before:
                before()
            value = measured[number]()
            if index:
                found[number].append(value)
    return found
