# SPDX-License-Identifier: Apache-2.0
"""Pods and containers as CRI shows them."""

from __future__ import annotations

from collections.abc import Iterable
from typing import Any

import msgspec

from ..model.moments import read_moment
from ..model.status import Container, ContainerStatus, Pod, PodStatus
from . import api
from .records import ContainerRecord, SandboxRecord, of_container

_READY = (PodStatus.RUNNING, PodStatus.PAUSED, PodStatus.SUSPENDED)
_STATES = {
    ContainerStatus.CREATED: "CONTAINER_CREATED",
    ContainerStatus.RUNNING: "CONTAINER_RUNNING",
    ContainerStatus.PAUSED: "CONTAINER_RUNNING",
    ContainerStatus.SUSPENDED: "CONTAINER_RUNNING",
    ContainerStatus.RESTARTING: "CONTAINER_RUNNING",
    ContainerStatus.EXITED: "CONTAINER_EXITED",
    ContainerStatus.REMOVING: "CONTAINER_UNKNOWN",
}
_PERIOD = 100_000  # microseconds, in which a quota is counted


def as_json(value: Any) -> str:
    """For who wants to know everything (`verbose`)."""
    return msgspec.json.encode(value).decode()


def nanoseconds(stamp: str) -> int:
    """Since the epoch; 0 for a moment that has not come."""
    return read_moment(stamp) if stamp else 0


def is_ready(pod: Pod) -> bool:
    """Whether its machine runs."""
    return pod.status in _READY


def sandbox_state(pod: Pod) -> int:
    state: int = api.SANDBOX_READY if is_ready(pod) else api.SANDBOX_NOTREADY
    return state


def sandbox_metadata(record: SandboxRecord) -> Any:
    return api.PodSandboxMetadata(name=record.name, uid=record.uid, namespace=record.namespace, attempt=record.attempt)


def sandbox(pod: Pod, record: SandboxRecord) -> Any:
    """A line of a list."""
    return api.PodSandbox(
        id=pod.id, metadata=sandbox_metadata(record), state=sandbox_state(pod), created_at=nanoseconds(pod.created_at),
        labels=pod.labels, annotations=record.annotations, runtime_handler=record.handler,
    )  # fmt: skip


def sandbox_status(pod: Pod, record: SandboxRecord) -> Any:
    """All of it."""
    first, *others = addresses(pod) or [""]
    options = api.NamespaceOption(network=api.POD, pid=record.pid, ipc=api.POD)
    return api.PodSandboxStatus(
        id=pod.id, metadata=sandbox_metadata(record), state=sandbox_state(pod), created_at=nanoseconds(pod.created_at),
        network=api.PodSandboxNetworkStatus(ip=first, additional_ips=[api.PodIP(ip=a) for a in others]),
        linux=api.LinuxPodSandboxStatus(namespaces=api.Namespace(options=options)),
        labels=pod.labels, annotations=record.annotations, runtime_handler=record.handler,
    )  # fmt: skip


def addresses(pod: Pod) -> list[str]:
    """By which the node reaches it; a user-mode network has none, and a pod that does not run neither."""
    if not is_ready(pod):
        return []
    if pod.cni:
        return [a.partition("/")[0] for a in pod.cni.addresses]
    return [a for of in pod.attachments for a in (of.ip, of.ip6) if a]


def container_state(container: Container) -> int:
    state: int = getattr(api, _STATES[container.state.status])
    return state


def container_metadata(record: ContainerRecord) -> Any:
    return api.ContainerMetadata(name=record.name, attempt=record.attempt)


def image_spec(record: ContainerRecord) -> Any:
    return api.ImageSpec(image=record.shown_image or record.image, user_specified_image=record.shown_image)


def container(c: Container, record: ContainerRecord) -> Any:
    """A line of a list."""
    return api.Container(
        id=c.id, pod_sandbox_id=c.pod, metadata=container_metadata(record), image=image_spec(record),
        image_ref=c.image_id, image_id=c.image_id, state=container_state(c), created_at=nanoseconds(c.created_at),
        labels=c.spec.labels, annotations=c.spec.annotations,
    )  # fmt: skip


def container_status(c: Container, record: ContainerRecord) -> Any:
    """All of it."""
    reason, message = _reason(c)
    ended = c.state.status is ContainerStatus.EXITED
    created, finished = nanoseconds(c.created_at), nanoseconds(c.state.finished_at)
    return api.ContainerStatus(
        id=c.id, metadata=container_metadata(record), state=container_state(c), created_at=created,
        started_at=nanoseconds(c.state.started_at), finished_at=(finished or created) if ended else 0,
        exit_code=c.state.exit_code if ended else 0, image=image_spec(record), image_ref=c.image_id,
        image_id=c.image_id, reason=reason, message=message, labels=c.spec.labels, annotations=c.spec.annotations,
        mounts=[_mount(c, *m) for m in record.mounts], log_path=c.log_path if record.log_path else "",
        resources=api.ContainerResources(linux=_resources(c)), user=_user(c),
    )  # fmt: skip


def container_statuses(members: Iterable[Container]) -> list[Any]:
    """Of those that are CRI's."""
    return [container_status(m, record) for m in members if (record := of_container(m))]


def _reason(c: Container) -> tuple[str, str]:
    """Why it is in its state, as kubelets know it, and in words."""
    if c.state.status is not ContainerStatus.EXITED:
        return "", ""
    if c.state.oom_killed:
        return "OOMKilled", c.state.error
    if c.state.error and not c.state.started_at:
        return "StartError", c.state.error
    return "Error" if c.state.exit_code else "Completed", c.state.error


def _mount(c: Container, target: str, source: str, read_only: bool) -> Any:
    follows = any(m.target == target and m.propagation for m in c.spec.mounts)
    return api.Mount(
        container_path=target, host_path=source, readonly=read_only,
        propagation=api.PROPAGATION_HOST_TO_CONTAINER if follows else api.PROPAGATION_PRIVATE,
    )  # fmt: skip


def _user(c: Container) -> Any:
    """None: it was not started."""
    if (found := c.state.identity) is None:
        return None
    linux = api.LinuxContainerUser(uid=found.uid, gid=found.gid, supplemental_groups=found.groups)
    return api.ContainerUser(linux=linux)


def _resources(c: Container) -> Any:
    limits = c.spec.resources
    quota = int(limits.cpus * _PERIOD)
    return api.LinuxContainerResources(
        memory_limit_in_bytes=limits.memory, cpu_quota=quota, cpu_period=_PERIOD if quota else 0
    )
