# SPDX-License-Identifier: Apache-2.0
"""`python -m bench.cri`: sandboxes by CRI, hyperd's beside containerd's with runc, in one run.

In turns one pod of each is started, until each has as many as asked for; then all are listed, and removed. hyperd's are
in a bridge network of its own, containerd's in one of CNI's plugins.
"""

from __future__ import annotations

import argparse
import asyncio
import statistics
import sys
import tempfile
import time
from collections.abc import Awaitable
from pathlib import Path
from typing import Any

from tests.containerd import BOX, containerd
from tests.debian import unpacked
from tests.engine.cri_client import Client, channel

from hypercontainer.hyperctl.output import print_table

from .measure import HEAD, Figure
from .peers import daemon, namespace

PODS = 50
_WITHIN = 300.0  # seconds for an answer


class Side:
    """A runtime, and what it has taken."""

    def __init__(self, name: str, client: Client, image: str, logs: Path) -> None:
        self.client, self._image, self._logs, self._name = client, image, logs, name
        self.sandboxes: list[str] = []
        self.taken: dict[str, list[float]] = {}

    async def timed(self, what: str, call: Awaitable[Any]) -> Any:
        begin = time.perf_counter()
        answer = await call
        self.taken.setdefault(what, []).append(time.perf_counter() - begin)
        return answer

    async def start(self, number: int) -> None:
        """A sandbox with a container in it."""
        logs = self._logs / f"{self._name}-{number}"
        (logs / "main").mkdir(parents=True)
        config: dict[str, Any] = {
            "metadata": {"name": f"p{number}", "uid": f"{self._name}-{number}", "namespace": "bench"},
            "log_directory": str(logs), "linux": {"resources": {"memory_limit_in_bytes": 32 << 20}},
        }  # fmt: skip
        made = await self.timed("RunPodSandbox", self.client.RunPodSandbox(config=config, within=_WITHIN))
        self.sandboxes.append(made.pod_sandbox_id)
        wanted = {"metadata": {"name": "main"}, "image": {"image": self._image}, "command": ["sleep", "100000"],
                  "log_path": "main/0.log", "linux": {"security_context": {}}}  # fmt: skip
        container = await self.timed(
            "CreateContainer",
            self.client.CreateContainer(
                pod_sandbox_id=made.pod_sandbox_id, config=wanted, sandbox_config=config, within=_WITHIN
            ),
        )
        await self.timed(
            "StartContainer", self.client.StartContainer(container_id=container.container_id, within=_WITHIN)
        )
        await self.timed(
            "ExecSync of true",
            self.client.ExecSync(container_id=container.container_id, cmd=["true"], within=_WITHIN),
        )

    async def finish(self) -> None:
        """List all, then remove them; nothing is left."""
        for _ in range(10):
            await self.timed("ListContainers", self.client.ListContainers(within=_WITHIN))
        for each in self.sandboxes:
            await self.client.StopPodSandbox(pod_sandbox_id=each, within=_WITHIN)
            await self.timed(
                "RemovePodSandbox, once stopped", self.client.RemovePodSandbox(pod_sandbox_id=each, within=_WITHIN)
            )
        left = await self.client.ListPodSandbox(within=_WITHIN), await self.client.ListContainers(within=_WITHIN)
        if left[0].items or left[1].containers:
            raise RuntimeError(f"{self._name} has {len(left[0].items)} sandboxes left")


async def measure(ours: Path, theirs: Path, logs: Path, pods: int) -> list[Figure]:
    async with channel(ours) as one, channel(theirs) as other:
        mine, peer = Side("hyperd", Client(one), "busybox", logs), Side("containerd", Client(other), BOX, logs)
        for number in range(pods):
            for side in (mine, peer) if number % 2 else (peer, mine):
                await side.start(number)
            if sys.stderr.isatty():
                print(f"\r{number + 1} of {pods} pods", end="", file=sys.stderr, flush=True)
        for side in (mine, peer):
            await side.finish()
    return [
        Figure(what, statistics.median(taken), "s", statistics.median(peer.taken[what]))
        for what, taken in mine.taken.items()
    ]


def main() -> None:
    parser = argparse.ArgumentParser(prog="python -m bench.cri", description=__doc__)
    parser.add_argument("--pods", type=int, default=PODS, help="of each [%(default)s]")
    options = parser.parse_args()
    with tempfile.TemporaryDirectory(prefix="bcri") as directory, namespace() as space:
        place = Path(directory)
        programs = unpacked("containerd", place) / "usr/bin"
        (place / "containerd").mkdir()
        with (
            daemon(place / "hyper", space, "--cri", "--network", "bridge") as hyper,
            containerd(programs, place / "containerd", space) as peer,
        ):
            figures = asyncio.run(
                measure(hyper.socket.with_name("cri.sock"), peer.socket, place / "logs", options.pods)
            )
            left = list(hyper.json("pod", "ls"))
    head = [h.replace("PODMAN+RUNC", "CONTAINERD+RUNC") for h in HEAD[:4]]
    print_table(head, [figure.row()[:4] for figure in figures])
    print(f"{len(left)} pods are left")


if __name__ == "__main__":
    main()
