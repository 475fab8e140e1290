# SPDX-License-Identifier: Apache-2.0
"""A cluster of objects: namespaces with pods, and nodes with ledgers."""

from __future__ import annotations

from collections.abc import Awaitable, Callable, Mapping

from ..errors import NotFound, Unavailable
from ..model.cluster import ClusterPod, LedgerPart
from .manifests import digest, hard
from .port import Wanted


class FakeCluster:
    """A `Cluster`. `answers` is False while it does not."""

    def __init__(self) -> None:
        self.answers = True
        self.made: dict[str, Wanted] = {}
        self.running: dict[str, list[ClusterPod]] = {}
        self.puts = 0

    def _check(self) -> None:
        if not self.answers:
            raise Unavailable("the cluster does not answer")

    async def namespaces(self) -> Mapping[str, str]:
        self._check()
        return {id_: digest(wanted) for id_, wanted in self.made.items()}

    async def put(self, wanted: Wanted) -> None:
        self._check()
        self.made[wanted.project] = wanted
        self.puts += 1

    async def remove(self, project: str) -> None:
        self._check()
        self.made.pop(project, None)
        self.running.pop(project, None)

    async def pods(self, project: str) -> list[ClusterPod]:
        self._check()
        return list(self.running.get(project, []))

    async def delete_pod(self, project: str, name: str) -> None:
        self._named(project, name)
        self.running[project] = [p for p in self.running[project] if p.name != name]

    async def log(self, project: str, name: str, lines: int) -> str:
        return f"{self._named(project, name).name} says\n"

    def run(self, project: str, name: str) -> bool:
        """As the API server admits a pod: False when the quota refuses it."""
        allowed = hard(self.made[project]).get("pods")
        there = self.running.setdefault(project, [])
        if allowed is not None and len(there) >= int(allowed):
            return False
        there.append(ClusterPod(name=name, node="node1", status="Running", images=["busybox"], runtime_class="hyper"))
        return True

    def _named(self, project: str, name: str) -> ClusterPod:
        self._check()
        found = next((p for p in self.running.get(project, []) if p.name == name), None)
        if found is None:
            raise NotFound(f'pods "{name}" not found')
        return found


class FakeLedgers:
    """`Ledgers`: nodes by their names, each with what answers for it."""

    def __init__(self) -> None:
        self.nodes: dict[str, Callable[[int], Awaitable[LedgerPart]]] = {}

    async def addresses(self) -> Mapping[str, str]:
        return {name: name for name in self.nodes}

    async def read(self, address: str, after: int) -> LedgerPart:
        return await self.nodes[address](after)
