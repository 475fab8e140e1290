# SPDX-License-Identifier: Apache-2.0
"""top and stats, as the guest reports them."""

from __future__ import annotations

from datetime import UTC, datetime, timedelta

from ..model import ids
from ..model.status import Container, ContainerStats, ContainerStatus, ProcessInfo
from ..protocol.constants import Tag
from .containers import Containers
from .registry import Registry


class Monitor:
    """Reads what runs; changes nothing."""

    def __init__(self, registry: Registry, containers: Containers) -> None:
        self._registry = registry
        self._containers = containers

    async def top(self, key: str) -> list[ProcessInfo]:
        """:raise InvalidState: when the container does not run."""
        container = self._registry.container(key)
        session = self._containers.runtime(container).session
        listed = await session.processes(container.id[:12])
        uptime = session.hello.uptime_ms if session.hello else 0
        booted = datetime.fromisoformat(container.state.started_at or ids.now()) - timedelta(milliseconds=uptime)
        return [
            ProcessInfo(
                pid=p.pid, ppid=p.ppid, uid=p.uid, cpu_ms=p.cpu_ms, container=container.name, command=p.command,
                started_at=(booted + timedelta(milliseconds=p.start_ms)).astimezone(UTC).strftime("%Y-%m-%dT%H:%M:%SZ"),
            )
            for p in listed
        ]  # fmt: skip

    async def stats(self, key: str) -> ContainerStats:
        """:raise InvalidState: when the container does not run."""
        container = self._registry.container(key)
        guest = await self._containers.runtime(container).session.stats()
        numbers = guest.containers.get(container.id[:12], {})
        pod = self._registry.pod(container.pod)
        return ContainerStats(
            id=container.id,
            name=container.name,
            read_at=ids.now(),
            cpu_usec=numbers.get(Tag.CPU_USEC, 0),
            vcpus=pod.vcpus,
            memory=numbers.get(Tag.MEMORY, 0),
            memory_limit=container.spec.resources.memory or guest.memory_total,
            pids=numbers.get(Tag.PIDS, 0),
            read_bytes=numbers.get(Tag.READ_BYTES, 0),
            write_bytes=numbers.get(Tag.WRITE_BYTES, 0),
            rx_bytes=guest.rx_bytes,
            tx_bytes=guest.tx_bytes,
        )

    def running(self) -> list[Container]:
        return [c for c in self._registry.containers() if c.state.status is ContainerStatus.RUNNING]
