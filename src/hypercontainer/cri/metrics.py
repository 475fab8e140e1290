# SPDX-License-Identifier: Apache-2.0
"""RuntimeService: figures of containers and sandboxes under the names that cAdvisor has given them.

A kubelet with PodAndContainerStatsFromCRI shows them at /metrics/cadvisor in its place. What they are:
https://github.com/google/cadvisor/blob/master/docs/storage/prometheus.md
"""

from __future__ import annotations

import asyncio
from collections.abc import Callable, Iterator
from dataclasses import dataclass
from typing import Any

from ..model.statistics import ContainerStats
from ..model.status import Container, Pod
from . import api, records, views
from .call import Call
from .records import SandboxRecord
from .stats import used_by

_MICRO = 1_000_000
_LABELS = ("id", "name", "image", "namespace", "pod", "container")


@dataclass(frozen=True)
class _Metric:
    """One figure of a container."""

    name: str
    help: str
    value: Callable[[ContainerStats], int]
    kind: int = api.COUNTER


_OF_CONTAINER = (
    _Metric("container_cpu_usage_seconds_total", "CPU time, in whole seconds", lambda u: u.cpu_usec // _MICRO),
    _Metric(
        "container_cpu_user_seconds_total", "CPU time in programs, in whole seconds",
        lambda u: u.cpu.get("user_usec", 0) // _MICRO,
    ),
    _Metric(
        "container_cpu_system_seconds_total", "CPU time in the pod's kernel, in whole seconds",
        lambda u: u.cpu.get("system_usec", 0) // _MICRO,
    ),
    _Metric("container_cpu_cfs_periods_total", "Periods of the CPU quota", lambda u: u.cpu.get("nr_periods", 0)),
    _Metric(
        "container_cpu_cfs_throttled_periods_total", "Those in which it was used up",
        lambda u: u.cpu.get("nr_throttled", 0),
    ),
    _Metric(
        "container_cpu_cfs_throttled_seconds_total", "Time of waiting for the quota, in whole seconds",
        lambda u: u.cpu.get("throttled_usec", 0) // _MICRO,
    ),
    _Metric(
        "container_memory_usage_bytes", "Memory, with what is cached",
        lambda u: u.memory + u.memory_details.get("inactive_file", 0), api.GAUGE,
    ),
    _Metric(
        "container_memory_working_set_bytes", "Memory, without what is cached and could be dropped",
        lambda u: u.memory, api.GAUGE,
    ),
    _Metric("container_memory_rss", "Memory of programs", lambda u: u.memory_details.get("anon", 0), api.GAUGE),
    _Metric("container_memory_cache", "Cached files", lambda u: u.memory_details.get("file", 0), api.GAUGE),
    _Metric("container_spec_memory_limit_bytes", "The limit of memory", lambda u: u.memory_limit, api.GAUGE),
    _Metric("container_oom_events_total", "Programs killed for want of memory", lambda u: u.oom_kills),
    _Metric("container_processes", "Processes", lambda u: u.pids, api.GAUGE),
    _Metric("container_fs_reads_bytes_total", "Bytes read from disks", lambda u: u.read_bytes),
    _Metric("container_fs_writes_bytes_total", "Bytes written to disks", lambda u: u.write_bytes),
)  # fmt: skip
_WAYS = {"rx": "receive", "tx": "transmit"}
_COUNTED = {"bytes": "bytes", "packets": "packets", "errors": "errors", "dropped": "packets_dropped"}
_OF_INTERFACE = {
    f"container_network_{word}_{what}_total": f"{way}_{field}"
    for way, word in _WAYS.items()
    for field, what in _COUNTED.items()
}


async def descriptors(c: Call) -> Any:
    """All names; a kubelet asks once."""
    found = [api.MetricDescriptor(name=m.name, help=m.help, label_keys=_LABELS) for m in _OF_CONTAINER]
    found += [
        api.MetricDescriptor(
            name=name, help=f"What has passed an interface of the pod: {field}", label_keys=(*_LABELS, "interface")
        )
        for name, field in _OF_INTERFACE.items()
    ]
    return api.ListMetricDescriptorsResponse(descriptors=found)


async def sandboxes(c: Call) -> Any:
    """Of all that are ready; a machine that does not answer is left out."""
    ready = [each for each in records.sandboxes(c.engine) if views.is_ready(each[0])]
    found = await asyncio.gather(*(_sandbox(c, *each) for each in ready))
    return api.ListPodSandboxMetricsResponse(pod_metrics=[f for f in found if f is not None])


async def _sandbox(c: Call, pod: Pod, record: SandboxRecord) -> Any:
    used = await used_by(c, pod.id)
    if not used:
        return None
    members = {m.id: m for m in c.engine.registry.members(pod.id)}
    of_containers = [
        api.ContainerMetrics(container_id=u.id, metrics=list(_container(record, members[u.id], u)))
        for u in used
        if u.id in members
    ]
    return api.PodSandboxMetrics(
        pod_sandbox_id=pod.id, metrics=list(_network(record, pod, used[0])), container_metrics=of_containers
    )


def _container(record: SandboxRecord, container: Container, used: ContainerStats) -> Iterator[Any]:
    of = records.of_container(container)
    labels = (container.id, container.name, container.spec.image, record.namespace, record.name, of.name if of else "")
    for m in _OF_CONTAINER:
        yield api.Metric(name=m.name, metric_type=m.kind, label_values=labels, value=_number(m.value(used)))


def _network(record: SandboxRecord, pod: Pod, used: ContainerStats) -> Iterator[Any]:
    for interface in used.interfaces:
        labels = (pod.id, pod.name, "", record.namespace, record.name, "", interface.name)
        for name, field in _OF_INTERFACE.items():
            yield api.Metric(
                name=name, metric_type=api.COUNTER, label_values=labels, value=_number(getattr(interface, field))
            )


def _number(value: int) -> Any:
    return api.UInt64Value(value=max(value, 0))


METHODS = {"ListMetricDescriptors": descriptors, "ListPodSandboxMetrics": sandboxes}
