# SPDX-License-Identifier: Apache-2.0
"""`python -m bench.sdk [SANDBOXES] [--keep FILE]`, as root: sandboxes made, used and ended by the SDK, and its cost.

So many are made, sixteen at a time; each runs a command, and is ended. With a file each is written down as it ends, and
those that an earlier run wrote down are not made again. Then calls by the SDK and the same ones by a plain socket are
timed in turns, in one sandbox.
"""

from __future__ import annotations

import argparse
import asyncio
import functools
import json
import statistics
import sys
import tempfile
import time
from pathlib import Path
from typing import Any

from rich.console import Console
from rich.progress import MofNCompleteColumn, Progress

from hypercontainer.client.base import container_route
from hypercontainer.client.transport import Connection
from hypercontainer.errors import HyperError, InternalError
from hypercontainer.hyperctl.output import print_table
from hypercontainer.model.frames import HEADER, STATUS
from hypercontainer.sdk import AsyncSandbox, Sandbox

from .measure import Figure, in_turns, seconds
from .peers import Hyper, daemon, namespace

_COUNT, _BESIDE, _CALLS = 1000, 16, 400
_OVERHEAD = 2.0  # ms that the SDK may add to a call
HEAD = ["FIGURE", "SDK", "REST", "RATIO", "GOAL", ""]


class Lives:
    """How long the lives of sandboxes took, and why some failed; in a file, where one is given."""

    def __init__(self, path: Path | None) -> None:
        self._path = path
        self.took: list[float] = []  # seconds
        self.failed: list[str] = []
        if path and path.exists():
            for line in path.read_text().splitlines():
                self._take(json.loads(line))

    @property
    def count(self) -> int:
        """Of all that have ended."""
        return len(self.took) + len(self.failed)

    def add(self, **found: float | str) -> None:
        """`took`, or `failed` and why."""
        self._take(found)
        if self._path:
            with self._path.open("a") as out:
                out.write(json.dumps(found) + "\n")

    def _take(self, found: dict[str, Any]) -> None:
        if "took" in found:
            self.took.append(float(found["took"]))
        else:
            self.failed.append(str(found["failed"]))


async def _one(host: str) -> float:
    """Seconds of a sandbox's life."""
    began = time.perf_counter()
    async with await AsyncSandbox.create("busybox", host=host) as sandbox:
        done = await sandbox.run(["echo", "here"])
    if done.stdout != "here\n":
        raise InternalError(f"it said {done.stdout!r}")
    return time.perf_counter() - began


async def _all(host: str, count: int, lives: Lives) -> None:
    """Until so many have ended; one that fails is told of, and the others go on."""
    left = iter(range(lives.count, count))

    async def work() -> None:
        for _ in left:
            try:
                lives.add(took=await _one(host))
            except HyperError as error:
                lives.add(failed=str(error))
            progress.update(bar, completed=lives.count)

    with Progress(*Progress.get_default_columns(), MofNCompleteColumn(), console=Console(stderr=True)) as progress:
        bar = progress.add_task("sandboxes", total=count, completed=lives.count)
        await asyncio.gather(*(work() for _ in range(_BESIDE)))


def percentile(values: list[float], share: float) -> float:
    """The least that so large a share of them does not exceed."""
    ordered = sorted(values)
    return ordered[max(0, -(-round(len(ordered) * share * 1000) // 1000) - 1)]


def left(hyper: Hyper) -> int:
    """Containers, files of theirs, and machines that no container has and do not wait for one."""
    machines = [
        p for p in (hyper.root.parent / "run/pods").iterdir() if not p.name.startswith(("pool-", "make-", "probe"))
    ]
    return len(hyper.json("ps", "-a")) + len(list((hyper.root / "containers").iterdir())) + len(machines)


def ask(path: str, id_: str) -> None:
    """What `info` asks, by a plain socket."""
    Connection(path).request("GET", f"/v1{container_route(id_)}", {}).read()


def execute(path: str, id_: str) -> None:
    """What `run` does, by a plain socket."""
    fields = {"Connection": "Upgrade", "Upgrade": "tcp"}
    body = json.dumps({"command": ["true"]}).encode()
    route = f"/v1{container_route(id_, '/exec')}?start=1&bound=1"
    with Connection(path) as connection:
        connection.request("POST", route, fields, body)
        stream, found = connection.raw()
        with stream:
            while not found.startswith(bytes([STATUS])) or len(found) <= HEADER.size:
                found += stream.recv(65536)


def overhead(host: str, rounds: int) -> list[Figure]:
    """Of the synchronous classes, which add the most."""
    with Sandbox.create("busybox", host=host) as sandbox:
        pairs = (
            ("a question (`info`)", sandbox.info, functools.partial(ask, host, sandbox.id)),
            (
                "a command (`run`)",
                functools.partial(sandbox.run, ["true"]),
                functools.partial(execute, host, sandbox.id),
            ),
        )
        found = []
        for name, *calls in pairs:
            ours, plain = in_turns([functools.partial(seconds, each) for each in calls], rounds)
            adds = statistics.median(a - b for a, b in zip(ours, plain, strict=True))
            found += [
                Figure(name, statistics.median(ours) * 1000, "ms", statistics.median(plain) * 1000),
                Figure(f"{name}: what the SDK adds", adds * 1000, "ms", goal=_OVERHEAD),
            ]
    return found


def figures(hyper: Hyper, count: int, keep: Path | None) -> list[Figure]:
    host, lives = str(hyper.socket), Lives(keep)
    asyncio.run(_one(host))  # which says what machines are to wait
    hyper.pool_ready()
    before = lives.count
    took = seconds(lambda: asyncio.run(_all(host, count, lives)))
    for why in sorted(set(lives.failed)):
        print(f"{lives.failed.count(why)} failed: {why}", file=sys.stderr)
    return [
        Figure(f"{lives.count} sandboxes, {_BESIDE} at a time: each, p50", statistics.median(lives.took), "s"),
        Figure("each, p99", percentile(lives.took, 0.99), "s"),
        *([Figure("sandboxes per second", (lives.count - before) / took, "")] if lives.count > before else []),
        Figure("failed", len(lives.failed), "", goal=0),
        Figure("left of them", left(hyper), "", goal=0),
        *overhead(host, _CALLS),
    ]


def main() -> int:
    parser = argparse.ArgumentParser(prog="python -m bench.sdk", description="Sandboxes by the SDK.")
    parser.add_argument("count", nargs="?", type=int, default=_COUNT, metavar="SANDBOXES")
    parser.add_argument("--keep", type=Path, metavar="FILE", help="write lives down, and go on with those of FILE")
    asked = parser.parse_args()
    with tempfile.TemporaryDirectory(prefix="hyd") as directory, namespace() as space:
        with daemon(Path(directory) / "d", space) as hyper:
            found = figures(hyper, asked.count, asked.keep)
    print_table(HEAD, [figure.row() for figure in found])
    return int(any(figure.met is False for figure in found))


if __name__ == "__main__":
    sys.exit(main())
