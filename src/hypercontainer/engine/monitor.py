# SPDX-License-Identifier: Apache-2.0
"""top and stats, as the guest reports them; what its hypervisor is kept from."""

from __future__ import annotations

import os
from dataclasses import asdict
from datetime import datetime, timedelta
from pathlib import Path

from ..errors import NotFound, Unsupported
from ..guest.agent import Agent
from ..hypervisor.facets import Granted, HeldElsewhere
from ..jail import report
from ..model.host import Check
from ..model.statistics import BlockStats, ContainerStats, EgressStats, InterfaceStats
from ..model.status import Container, ContainerStatus, Pod, ProcessInfo
from ..protocol.messages import ListedProcess
from ..protocol.usage import ContainerUsage, GuestStats
from ..sys import clock, tasks
from . import naming
from .containers import Containers
from .pod_network import PodNetwork
from .registry import Registry
from .sandboxes import Sandboxes


class Monitor:
    """Reads what runs; changes nothing but the list of events, in which `top` is one, as with Docker."""

    def __init__(
        self, registry: Registry, containers: Containers, sandboxes: Sandboxes, network: PodNetwork
    ) -> None:  # fmt: skip
        self._registry = registry
        self._network = network
        self._sandboxes = sandboxes
        self._containers = containers

    async def top(self, key: str) -> list[ProcessInfo]:
        """:raise InvalidState: when the container does not run."""
        container = self._registry.container(key)
        agent = self._containers.runtime(container).agent
        found = self._listed(agent, await agent.processes(container.id[:12]), [container])
        self._containers.tell("top", container)
        return found

    async def pod_top(self, key: str) -> list[ProcessInfo]:
        """All processes of the pod, its own first one included.

        :raise InvalidState: when the pod does not run.
        """
        pod = self._registry.pod(key)
        agent = self._sandboxes.awake(pod).agent
        return self._listed(agent, await agent.processes(), self._registry.members(pod.id))

    async def jail(self, key: str) -> list[Check]:
        """What holds for the hypervisor of a pod, or of a container of its own, seen from outside.

        :raise InvalidState: when the pod does not run. :raise Unsupported: it is no process of hyperd's.
        """
        try:
            pod = self._registry.pod(key)
        except NotFound:
            pod = self._registry.pod(self._registry.container(key).pod)
        machine = self._sandboxes.awake(pod).machine
        if not machine.pid:
            raise Unsupported(f"the virtual machine of {pod.name} is no process of this host")
        if isinstance(machine, HeldElsewhere):
            raise Unsupported(f"the virtual machine of {pod.name} is in no jail of hyperd's: {machine.holder} holds it",
                              hint="docs/hypervisors.md says by what")  # fmt: skip
        grants = machine.grants if isinstance(machine, Granted) else report.NOTHING
        seen = report.Seen(Path(f"/proc/{machine.pid}"), grants=grants)
        return await tasks.in_thread(lambda: report.examine(seen, root=os.geteuid() == 0))

    @staticmethod
    def _listed(agent: Agent, listed: list[ListedProcess], members: list[Container]) -> list[ProcessInfo]:
        names = {c.id[:12]: c.name for c in members}
        return [
            ProcessInfo(
                pid=p.pid,
                ppid=p.ppid,
                uid=p.uid,
                cpu_ms=p.cpu_ms,
                container=names.get(p.container, ""),
                command=p.command,
                started_at=_moment(agent.booted_at + timedelta(milliseconds=p.start_ms)),
            )
            for p in listed
        ]

    async def stats(self, key: str) -> ContainerStats:
        """:raise InvalidState: when the container does not run."""
        container = self._registry.container(key)
        guest = await self._containers.runtime(container).agent.stats()
        return self._of(container, guest)

    async def pod_stats(self, key: str) -> list[ContainerStats]:
        """Of each container that the guest has.

        :raise InvalidState: when the pod does not run.
        """
        pod = self._registry.pod(key)
        guest = await self._sandboxes.awake(pod).agent.stats()
        return [self._of(c, guest) for c in self._registry.members(pod.id) if c.id[:12] in guest.containers]

    def _of(self, container: Container, guest: GuestStats) -> ContainerStats:
        used = guest.containers.get(container.id[:12], ContainerUsage())
        return ContainerStats(
            id=container.id,
            name=container.name,
            read_at=clock.stamp(),
            cpu_usec=used.cpu_usec,
            vcpus=self._registry.pod(container.pod).vcpus,
            memory=used.memory,
            memory_limit=container.spec.resources.memory or guest.memory_total,
            pids=used.pids,
            read_bytes=used.read_bytes,
            write_bytes=used.write_bytes,
            rx_bytes=guest.rx_bytes,
            tx_bytes=guest.tx_bytes,
            oom_kills=used.oom_kills,
            cpu=used.cpu,
            memory_details=used.memory_details,
            blocks=[BlockStats(**asdict(b)) for b in used.blocks],
            egress=self._network.egress(self._registry.pod(container.pod)),
            interfaces=[InterfaceStats(**asdict(i)) for i in guest.interfaces],
        )

    def egress(self) -> list[tuple[Pod, EgressStats]]:
        """Of the tenant that asks: pods with an egress policy, and what they reached and tried."""
        found = [(pod, self._network.egress(pod)) for pod in naming.seen(self._registry.pods()) if pod.spec.egress]
        return [(pod, stats) for pod, stats in found if stats]

    def running(self) -> list[Container]:
        """The containers of the tenant that asks which run, and are not paused."""
        return [c for c in self._registry.shown() if c.state.status is ContainerStatus.RUNNING]


def _moment(when: datetime) -> str:
    """`when` is in UTC."""
    return when.strftime("%Y-%m-%dT%H:%M:%SZ")
