# SPDX-License-Identifier: Apache-2.0
"""`python -m bench.sdk [SANDBOXES]`, as root: sandboxes made, used and ended by the SDK, and what that adds to REST.

So many are made, sixteen at a time; each runs a command, and is ended. Then calls by the SDK and the same ones by a
plain socket are timed in turns, in one sandbox.
"""

from __future__ import annotations

import asyncio
import functools
import json
import statistics
import sys
import tempfile
import time
from collections.abc import Coroutine
from pathlib import Path
from typing import Any

from hypercontainer.client.base import container_route
from hypercontainer.client.transport import Connection
from hypercontainer.hyperctl.output import print_table
from hypercontainer.sdk import AsyncSandbox, Sandbox
from hypercontainer.sdk.frames import STATUS

from .measure import Figure, in_turns, seconds
from .peers import Hyper, daemon, namespace

_COUNT, _BESIDE, _CALLS = 1000, 16, 200
_OVERHEAD = 2.0  # ms that the SDK may add to a call
_HEADER = 8  # bytes of a frame's
HEAD = ["FIGURE", "SDK", "REST", "RATIO", "GOAL", ""]


async def _one(host: str, turn: asyncio.Semaphore) -> float:
    """Seconds of a sandbox's life, without the wait for its turn."""
    async with turn:
        began = time.perf_counter()
        async with await AsyncSandbox.create("busybox", host=host) as sandbox:
            done = await sandbox.run(["echo", "here"])
        assert done.stdout == "here\n", done
        return time.perf_counter() - began


async def _all(host: str, count: int) -> list[float]:
    turn = asyncio.Semaphore(_BESIDE)
    lives: list[Coroutine[Any, Any, float]] = [_one(host, turn) for _ in range(count)]
    return await asyncio.gather(*lives)


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
            while not found.startswith(bytes([STATUS])) or len(found) <= _HEADER:
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


def figures(hyper: Hyper, count: int) -> list[Figure]:
    host = str(hyper.socket)
    asyncio.run(_all(host, 1))  # which says what machines are to wait
    hyper.pool_ready()
    lives: list[float] = []
    took = seconds(lambda: lives.extend(asyncio.run(_all(host, count))))
    leaks = left(hyper)
    return [
        Figure(f"{count} sandboxes, {_BESIDE} at a time: each, p50", statistics.median(lives), "s"),
        Figure("each, p99", percentile(lives, 0.99), "s"),
        Figure("sandboxes per second", count / took, ""),
        Figure("left of them", leaks, "", goal=0),
        *overhead(host, min(_CALLS, count)),
    ]


def main() -> int:
    count = int(sys.argv[1]) if len(sys.argv) > 1 else _COUNT
    with tempfile.TemporaryDirectory(prefix="hyd") as directory, namespace() as space:
        with daemon(Path(directory) / "d", space) as hyper:
            found = figures(hyper, count)
    print_table(HEAD, [figure.row() for figure in found])
    return int(any(figure.met is False for figure in found))


if __name__ == "__main__":
    sys.exit(main())
