# SPDX-License-Identifier: Apache-2.0
"""RunPodSandbox's configuration becomes a pod without containers."""

from __future__ import annotations

import math
import os
import re
from dataclasses import dataclass
from typing import Any

from ..errors import InvalidArgument
from ..model.cluster import project_of
from ..model.network import CNI
from ..model.pods import PodPlan, PodSpec
from ..model.specs import GUEST_OVERHEAD, MIB, PortMapping
from ..network import cni
from . import api, node_files
from .records import SandboxRecord, given

# Runtime handlers, as a RuntimeClass names them, and the drivers that they stand for; "" is the daemon's default.
FRESH = "hyper-fresh"
HANDLERS = {"": "", "hyper": "", FRESH: "", "hyper-fc": "firecracker"}
CNI_FIRST = "cni"  # in place of a network: the first one that CNI's configuration has


@dataclass(frozen=True)
class CriSettings:
    """What pods of CRI are like where nobody says."""

    memory: int = 512 * MIB  # bytes that a pod's machine has at least
    network: str = ""  # "" is the daemon's default
    kubelet: str = "/var/lib/kubelet"  # its directory


def plan_of(config: Any, handler: str, settings: CriSettings) -> PodPlan:
    """:raise InvalidArgument: it takes what is the node's, or is malformed."""
    if handler not in HANDLERS:
        raise InvalidArgument(
            f"there is no runtime handler {handler!r}", hint=f"there are {', '.join(filter(None, HANDLERS))}"
        )
    if not config.metadata.name:
        raise InvalidArgument("the sandbox has no name", hint="give metadata.name")
    options = config.linux.security_context.namespace_options
    check_namespaces(options)
    vcpus, memory = _machine(config.linux, settings)
    record = SandboxRecord(
        name=config.metadata.name, uid=config.metadata.uid, namespace=config.metadata.namespace,
        attempt=config.metadata.attempt, log_directory=config.log_directory, handler=handler, pid=options.pid,
        annotations=dict(config.annotations),
    )  # fmt: skip
    spec = PodSpec(
        driver=HANDLERS[handler],
        network=network_of(settings),
        cni_args=_cni_args(record),
        ports=_ports(config.port_mappings),
        dns=list(config.dns_config.servers),
        dns_search=list(config.dns_config.searches),
        dns_options=list(config.dns_config.options),
        sysctls=dict(config.linux.sysctls),
        pid="container" if options.pid == api.CONTAINER else "pod",
        exit_policy="continue",
        isolation="fresh" if handler == FRESH else "default",
        charged=project_of(record.namespace),
        given=given(record),
    )
    return PodPlan(
        name=pod_name(record), hostname=config.hostname, vcpus=vcpus, memory=memory, labels=dict(config.labels),
        spec=spec, volumes=node_files.volumes(settings.kubelet, record.uid),
    )  # fmt: skip


def _cni_args(record: SandboxRecord) -> dict[str, str]:
    """What CNI's plugins are told of a pod by every runtime of Kubernetes."""
    found = {"K8S_POD_NAMESPACE": record.namespace, "K8S_POD_NAME": record.name, "K8S_POD_UID": record.uid}
    for value in found.values():
        if ";" in value or "=" in value:
            raise InvalidArgument(f"a pod's name, namespace and uid have no ';' and no '=': {value!r}")
    return found


def pod_name(record: SandboxRecord) -> str:
    """Unique by uid and attempt; what people know it by comes first."""
    parts = [record.name[:40], record.namespace[:30], record.uid[:40], str(record.attempt)]
    return re.sub(r"[^a-zA-Z0-9_.-]", "-", "_".join(p for p in parts if p))


def network_of(settings: CriSettings) -> str:
    """:raise NotFound: CNI has no configuration."""
    return CNI + cni.first_network() if settings.network == CNI_FIRST else settings.network


def check_namespaces(options: Any) -> None:
    """:raise InvalidArgument: one of the node's, which no virtual machine has, or of users."""
    for what in ("network", "pid", "ipc"):
        if getattr(options, what) == api.NODE:
            raise InvalidArgument(
                f"the {what} namespace of the node cannot be a pod's: the pod is a virtual machine",
                hint="leave hostNetwork, hostPID and hostIPC out, or use another runtime class for this pod",
            )
    users = options.userns_options
    if users.mode == api.POD and (users.uids or users.gids):
        raise InvalidArgument(
            "there are no user namespaces in a pod: its virtual machine keeps it from the node",
            hint="leave hostUsers out",
        )


def _machine(linux: Any, settings: CriSettings) -> tuple[int, int]:
    """Virtual CPUs (0 is the engine's default) and bytes of memory: all that its containers may use, and the rest."""
    of_containers, overhead = linux.resources, linux.overhead
    limit = of_containers.memory_limit_in_bytes
    wanted = limit + max(overhead.memory_limit_in_bytes, GUEST_OVERHEAD) if limit > 0 else 0
    vcpus = math.ceil(cpus_of(of_containers) + cpus_of(overhead))
    return min(vcpus, host_cpus()), min(max(settings.memory, wanted), host_memory())


def host_cpus() -> int:
    """Limits of a pod may be above what its node has."""
    return os.cpu_count() or 1


def host_memory() -> int:
    """Bytes, in whole MiB."""
    return os.sysconf("SC_PHYS_PAGES") * os.sysconf("SC_PAGE_SIZE") // MIB * MIB


def cpus_of(resources: Any) -> float:
    """Processors that a quota stands for; 0 is no limit."""
    if resources.cpu_quota <= 0:
        return 0.0
    return float(resources.cpu_quota / (resources.cpu_period or 100_000))


def _ports(mappings: Any) -> list[PortMapping]:
    """Those of the host's."""
    found = []
    for m in mappings:
        if not m.host_port:
            continue
        if m.protocol not in (api.TCP, api.UDP):
            raise InvalidArgument("ports of the node are published for TCP and UDP only", hint="leave hostPort out")
        found.append(
            PortMapping(
                container_port=m.container_port, host_port=m.host_port, host_ip=m.host_ip,
                protocol="udp" if m.protocol == api.UDP else "tcp",
            )
        )  # fmt: skip
    return found
