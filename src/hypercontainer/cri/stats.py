# SPDX-License-Identifier: Apache-2.0
"""RuntimeService: what containers and sandboxes use, as their guests count it."""

from __future__ import annotations

import asyncio
import contextlib
from typing import Any

from ..errors import HyperError
from ..model.statistics import ContainerStats
from ..model.status import Container, Pod
from . import api, records, views
from .call import Call
from .records import ContainerRecord, SandboxRecord

_INTERFACE = "eth0"  # of every pod


async def container(c: Call) -> Any:
    """Without figures where it does not run. :raise NotFound: there is none."""
    found, record = records.container(c.engine, c.request.container_id)
    used: ContainerStats | None = None
    if views.container_state(found) == api.CONTAINER_RUNNING:
        used = await c.engine.monitor.stats(found.id)
    return api.ContainerStatsResponse(stats=await _container(c, found, record, used))


async def containers(c: Call) -> Any:
    """Of all that run; a machine that does not answer is left out."""
    chosen = {
        each.id: (each, record)
        for each, record in records.containers(c.engine, c.request.filter)
        if views.container_state(each) == api.CONTAINER_RUNNING
    }
    pods = {each.pod for each, _ in chosen.values()}
    used = [u for of_pod in await asyncio.gather(*(used_by(c, p) for p in pods)) for u in of_pod if u.id in chosen]
    return api.ListContainerStatsResponse(stats=[await _container(c, *chosen[u.id], u) for u in used])


async def used_by(c: Call, pod_id: str) -> list[ContainerStats]:
    """Of each container that the guest has; none where it does not answer, or is gone meanwhile."""
    with contextlib.suppress(HyperError):
        return await c.engine.monitor.pod_stats(pod_id)
    return []


async def _container(c: Call, of: Container, record: ContainerRecord, used: ContainerStats | None) -> Any:
    attributes = api.ContainerAttributes(
        id=of.id, metadata=views.container_metadata(record), labels=of.spec.labels, annotations=of.spec.annotations
    )
    if used is None:
        return api.ContainerStats(attributes=attributes)
    at = views.nanoseconds(used.read_at)
    layer = api.FilesystemUsage(
        timestamp=at, fs_id=api.FilesystemIdentifier(mountpoint=str(c.engine.settings.paths.root)),
        used_bytes=_number(await c.engine.usage.container_size(of)),
    )  # fmt: skip
    return api.ContainerStats(
        attributes=attributes, cpu=_cpu(at, used.cpu_usec), memory=_memory(at, [used], used.memory_limit),
        writable_layer=layer,
    )  # fmt: skip


def _number(value: int) -> Any:
    return api.UInt64Value(value=max(value, 0))


def _cpu(at: int, microseconds: int) -> Any:
    return api.CpuUsage(timestamp=at, usage_core_nano_seconds=_number(microseconds * 1000))


def _memory(at: int, of: list[ContainerStats], limit: int) -> Any:
    """The working set is without what is cached and could be dropped."""
    needed = sum(u.memory for u in of)
    usage = needed + sum(u.memory_details.get("inactive_file", 0) for u in of)
    return api.MemoryUsage(
        timestamp=at, working_set_bytes=_number(needed), available_bytes=_number(limit - needed),
        usage_bytes=_number(usage),
    )  # fmt: skip


async def sandbox(c: Call) -> Any:
    """:raise NotFound: there is none."""
    found, record = records.sandbox(c.engine, c.request.pod_sandbox_id)
    return api.PodSandboxStatsResponse(stats=await _sandbox(c, found, record))


async def sandboxes(c: Call) -> Any:
    """Of all that are ready."""
    chosen = [each for each in records.sandboxes(c.engine, c.request.filter) if views.is_ready(each[0])]
    return api.ListPodSandboxStatsResponse(stats=await asyncio.gather(*(_sandbox(c, *each) for each in chosen)))


async def _sandbox(c: Call, pod: Pod, record: SandboxRecord) -> Any:
    attributes = api.PodSandboxAttributes(
        id=pod.id, metadata=views.sandbox_metadata(record), labels=pod.labels, annotations=record.annotations
    )
    used = await used_by(c, pod.id) if views.is_ready(pod) else []
    if not used:
        return api.PodSandboxStats(attributes=attributes)
    at = views.nanoseconds(used[0].read_at)
    members = {m.id: r for m in c.engine.registry.members(pod.id) if (r := records.of_container(m))}
    interface = api.NetworkInterfaceUsage(
        name=_INTERFACE, rx_bytes=_number(used[0].rx_bytes), tx_bytes=_number(used[0].tx_bytes)
    )
    linux = api.LinuxPodSandboxStats(
        cpu=_cpu(at, sum(u.cpu_usec for u in used)),
        memory=_memory(at, used, pod.memory),
        network=api.NetworkUsage(timestamp=at, default_interface=interface),
        process=api.ProcessUsage(timestamp=at, process_count=_number(sum(u.pids for u in used))),
        containers=[
            await _container(c, c.engine.registry.container(u.id), members[u.id], u) for u in used if u.id in members
        ],
    )
    return api.PodSandboxStats(attributes=attributes, linux=linux)


METHODS = {
    "ContainerStats": container,
    "ListContainerStats": containers,
    "PodSandboxStats": sandbox,
    "ListPodSandboxStats": sandboxes,
}
