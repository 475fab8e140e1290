# SPDX-License-Identifier: Apache-2.0
"""Verbs and faults in turn, each followed by a comparison; at the end all is removed, and nothing may be left."""

from __future__ import annotations

import random
import subprocess
import sys
import time
from collections import Counter
from collections.abc import Callable, Iterator, Sequence
from pathlib import Path
from typing import TypeVar

from tests.e2e.conftest import wait_for

from . import docker_verbs as docker_verbs  # they are among VERBS then
from .check import agrees, files
from .faults import FAULTS
from .host import SLOW, Host
from .model import Box, Model
from .verbs import VERBS, Step

T = TypeVar("T")
_FAULTY = 0.25  # of the steps are faults


class Storm:
    """One host, and one model of it. What is chosen depends on the seed and on the model, on nothing else."""

    def __init__(self, host: Host, seed: int) -> None:
        self.host = host
        self.model = Model()
        self.chance = random.Random(seed)
        self.steps = 0
        self.times: Counter[str] = Counter()
        self.survived: Counter[str] = Counter()
        self._made = 0
        self._heading = ""

    # -- for verbs and faults -----------------------------------------------------------------

    def number(self) -> int:
        self._made += 1
        return self._made

    def name(self, kind: str) -> str:
        return f"{kind}{self.number()}"

    def any(self, among: Sequence[T]) -> T | None:
        return self.chance.choice(among) if among else None

    def says(self, what: str) -> None:
        """A line for people; the first of a step is its name."""
        if self._heading:
            heading, self._heading = self._heading, ""
            self.steps += 1
            print(f"{self.steps:4} {heading}", flush=True)
        if what:
            print(f"         {what}", flush=True)

    def do(self, *words: str | Path, status: int = 0) -> subprocess.CompletedProcess[str]:
        """`hyperctl` with the words, whose exit status must be this one."""
        self.says("hyperctl " + " ".join("..." if "\n" in (w := str(word)) else w for word in words))
        done = self.host.ctl(*words)
        assert done.returncode == status, f"{words}: {done.returncode}\n{done.stdout}\n{done.stderr}"
        assert "Traceback" not in done.stderr and "internal error" not in done.stderr, done.stderr
        return done

    def pod(self, box: Box) -> str:
        found: str = self.host.ask(f"/containers/{box.name}")["pod"]
        return found

    def machine(self, box: Box) -> int:
        return self.host.machine(self.pod(box))

    def serves(self, box: Box, port: int) -> None:
        wait_for(lambda: self.host.fetch(port) == box.name, f"port {port} of {box.name}", SLOW)

    def until(self, holds: Callable[[], bool], what: str) -> None:
        wait_for(holds, what, SLOW)

    # -- the storm ------------------------------------------------------------------------------

    def run(self, *, steps: int = 0, seconds: float = 0.0) -> None:
        """So many steps, or as many as fit into the time.

        :raise AssertionError: something is not as the model has it.
        """
        end = time.monotonic() + seconds
        done = 0
        while done < steps or (not steps and time.monotonic() < end):
            self._step()
            done += 1
        self._away()

    def _step(self) -> None:
        faulty = self.chance.random() < _FAULTY
        for name, act in self._faults() if faulty else self._verbs():
            self._heading = f"FAULT {name}" if faulty else name
            self.times[name] += faulty
            try:
                if act(self):
                    break
            except BaseException:
                self.says("")
                raise
            self.times[name] -= faulty
        self.says("")
        agrees(self.host, self.model)
        self._look()
        if faulty:
            self.survived[name] += 1

    def _faults(self) -> list[tuple[str, Step]]:
        """Those first that were fewest, so that each has its share."""
        return sorted(FAULTS.items(), key=lambda item: (self.times[item[0]], self.chance.random()))

    def _verbs(self) -> Iterator[tuple[str, Step]]:
        while True:
            (name,) = self.chance.choices(list(VERBS), [w for w, _ in VERBS.values()])
            yield name, VERBS[name][1]

    def _look(self) -> None:
        """Into one that runs."""
        if box := self.any(self.model.of("running")):
            files(self.host, self.model, box)
            if box.port:
                self.serves(box, box.port)

    def _away(self) -> None:
        """Everything is removed: nothing is left of it, with the daemon and after it."""
        self._heading = "the end"
        for pod in self.model.pods:
            self.do("pod", "rm", "-f", pod)
        names = [b.name for b in self.model.boxes.values() if not b.pod]
        for verb, found in (
            (("rm", "-f"), names),
            (("network", "rm"), self.model.networks),
            (("volume", "rm"), list(self.model.volumes)),
        ):
            if found:
                self.do(*verb, *found)
        self.model = Model()
        agrees(self.host, self.model)
        self.host.daemon.stop()
        left = self.host.daemon.world.nothing()
        assert left == [], left

    def table(self) -> str:
        """Fault, times, survived, lost; and what else there was."""
        rows = [f"{'fault':36}{'times':>7}{'survived':>10}{'lost':>6}"]
        for name in FAULTS:
            times, survived = self.times[name], self.survived[name]
            rows.append(f"{name:36}{times:7}{survived:10}{times - survived:6}")
        return "\n".join(rows)


def report(storm: Storm, seed: int, error: BaseException | None) -> None:
    """What a person needs who looks at it."""
    print(f"\nseed {seed}, {storm.steps} steps, slowest version {storm.host.slowest * 1000:.0f} ms")
    print(storm.table(), flush=True)
    if error is not None:
        print(storm.host.log.read_text(errors="replace")[-6000:], file=sys.stderr)
