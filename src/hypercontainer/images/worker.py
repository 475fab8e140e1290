# SPDX-License-Identifier: Apache-2.0
"""The process that looks into images: `python -m hypercontainer.images.worker`, started by `conversion`.

It takes a job as JSON from stdin, gives up its rights, and writes one JSON
object per line: {"layer", "done"} as it goes, {"withoutAcl"} or {"names"} as its
result, or {"error", ...} at the end of what failed. All it can write to are the descriptors that it was given.
"""

from __future__ import annotations

import errno
import json
import os
import sys
import threading
import time
from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any, Literal

from ..errors import HyperError
from ..jail import seccomp
from ..model.units import format_binary
from ..sys.confine import Confinement, confine
from . import appc_archive, archive
from .convert import Layer, LayerError, convert
from .erofs.layout import BLOCK
from .limits import Budget, Limits, beyond

CALLS = Path(__file__).with_name("calls.txt")
_INTERVAL = 0.1  # seconds between two reports of one layer
_DESCRIPTORS = 64  # over those that it is given
THREADS = 256
_NAMES = 100


@dataclass(frozen=True)
class Job:
    """Layers to convert; else an archive to unpack into `target` where there is one, and to look at: for the names
    in it, for where its files are (the first spool takes that), for the parts of an App Container image (the first
    spool takes its manifest, the second its layer), or not at all.
    """

    uid: int
    gid: int
    limits: Limits
    target: int = -1  # numbers are descriptors
    layers: Sequence[Layer] = ()
    spools: Sequence[int] = ()
    archive: int = -1
    look: Literal["names", "table", "appc", "no"] = "names"


class Reporter:
    """Tells the parent, each layer a few times a second."""

    def __init__(self) -> None:
        self._lock = threading.Lock()
        self._reported: dict[int, float] = {}

    def __call__(self, layer: int, done: int) -> None:
        now = time.monotonic()
        with self._lock:
            if now < self._reported.get(layer, 0.0) + _INTERVAL:
                return
            self._reported[layer] = now
        say({"layer": layer, "done": done})


def say(message: dict[str, Any]) -> None:
    """One line of JSON for the daemon, which believes little of it."""
    os.write(1, json.dumps(message).encode() + b"\n")


def failure(error: BaseException, limits: Limits) -> dict[str, Any]:
    """What the parent is told of an error."""
    told: dict[str, Any] = {}
    if isinstance(error, LayerError):
        told["layer"], error = error.layer, error.cause
    if isinstance(error, MemoryError) or "start new thread" in str(
        error
    ):  # a RuntimeError, for want of memory for its stack
        error = beyond(f"needs more than {format_binary(limits.memory)} of memory to be converted", "memory")
    if isinstance(error, OSError) and error.errno == errno.EFBIG:
        error = beyond(f"is larger than {format_binary(limits.size)}", "size")
    if isinstance(error, OSError) and error.errno in (errno.ENOSPC, errno.EDQUOT):
        return told | {"error": "no_space", "message": "", "hint": None}
    if isinstance(error, HyperError):
        return told | {"error": error.code, "message": error.message[:500], "hint": error.hint}
    return told | {
        "error": "internal",
        "message": f"cannot be converted: {type(error).__name__}: {error}"[:500],
        "hint": None,
    }


def confinement(job: Job) -> Confinement:
    """What the process may do from here on: its descriptors, memory and time, and nothing else."""
    highest = max(2, job.target, job.archive, *job.spools, *(layer.blob for layer in job.layers))
    cpu = int(job.limits.time) * (os.cpu_count() or 1) + 1
    # An image disk is larger than what is in it: by a part of a block for each file, and by what is in memory of them.
    size = job.limits.size + job.limits.files * BLOCK + job.limits.memory
    return Confinement(job.uid, job.gid, job.limits.memory, size, cpu, highest + _DESCRIPTORS, THREADS)


def do(job: Job) -> None:
    """The conversion itself, in the confined process."""
    sources = [layer.blob for layer in job.layers] if job.archive < 0 else [job.archive]
    budget = Budget(job.limits, sum(os.fstat(fd).st_size for fd in sources))
    if job.archive < 0:
        say({"withoutAcl": convert(job.layers, job.spools, job.target, budget, Reporter())})
        return
    if job.target >= 0:
        archive.unpack(job.archive, job.target, budget)
    plain = job.archive if job.target < 0 else job.target
    if job.look == "names":
        say({"names": archive.names(plain)[:_NAMES]})
    elif job.look == "appc":
        appc_archive.divide(plain, job.spools[0], job.spools[1], budget)
    elif job.look == "table":
        with os.fdopen(os.dup(job.spools[0]), "wb") as out:
            out.write(archive.table(plain))


def main() -> int:
    """Read the job from stdin, give up all rights, do it; the exit status says whether it was done."""
    given = json.load(sys.stdin)
    job = Job(**given | {"limits": Limits(**given["limits"]), "layers": [Layer(**layer) for layer in given["layers"]]})
    calls = seccomp.program(seccomp.read(CALLS))
    try:
        confine(confinement(job))
        seccomp.apply(calls)
        do(job)
    except Exception as error:
        say(failure(error, job.limits))
        return 1
    return 0


if __name__ == "__main__":
    sys.exit(main())
