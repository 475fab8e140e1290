# SPDX-License-Identifier: Apache-2.0
"""A container as lists show it: Docker's words, and the fields of its templates."""

from __future__ import annotations

import shlex
from typing import Any

from ..model.ids import short
from ..model.specs import PortMapping
from ..model.status import Container, ContainerSize, ContainerStatus
from ..model.units import format_age, format_size

_COMMAND = 20  # characters of a command that lists show


def describe_state(c: Container) -> str:
    """`Up 5 minutes`, `Exited (0) 2 hours ago`, as Docker says."""
    s = c.state
    if s.status is ContainerStatus.RUNNING and s.unresponsive:
        return f"Up {format_age(s.started_at)} (unresponsive)"
    if s.status is ContainerStatus.RUNNING:
        notes = [s.health.status] if s.health and c.health else []
        notes += ["log not written"] if s.log_error else []
        return f"Up {format_age(s.started_at)}" + (f" ({', '.join(notes)})" if notes else "")
    if s.status is ContainerStatus.RESTARTING:
        return f"Restarting ({s.exit_code}) {format_age(s.finished_at)} ago" + (f": {s.error}" if s.error else "")
    if s.status is ContainerStatus.PAUSED:
        return f"Up {format_age(s.started_at)} (Paused)"
    if s.status is ContainerStatus.SUSPENDED:
        return f"Up {format_age(s.started_at)} (Suspended)"
    if s.status is ContainerStatus.EXITED:
        return f"Exited ({s.exit_code}) {format_age(s.finished_at)} ago"
    return s.status.value.capitalize()


def describe_ports(c: Container) -> str:
    return describe_mappings(c.ports)


def describe_mappings(ports: list[PortMapping]) -> str:
    """Docker's PORTS; ports that follow each other on both sides are one range."""
    runs: list[list[PortMapping]] = []
    for p in sorted(ports, key=lambda p: (p.host_ip, p.protocol, p.host_port)):
        if runs and _follows(runs[-1][-1], p):
            runs[-1].append(p)
        else:
            runs.append([p])
    return ", ".join(_describe_run(run) for run in runs)


def _follows(a: PortMapping, b: PortMapping) -> bool:
    return (b.host_ip, b.protocol, b.host_port, b.container_port) == (
        a.host_ip,
        a.protocol,
        a.host_port + 1,
        a.container_port + 1,
    )


def _describe_run(run: list[PortMapping]) -> str:
    first, last = run[0], run[-1]
    host = f"[{first.host_ip}]" if ":" in first.host_ip else first.host_ip or "0.0.0.0"
    ends = [
        str(a) if a == b else f"{a}-{b}"
        for a, b in ((first.host_port, last.host_port), (first.container_port, last.container_port))
    ]
    return f"{host}:{ends[0]}->{ends[1]}/{first.protocol}"


def command(c: Container, *, whole: bool) -> str:
    """In quotes, and its beginning only, as Docker shows it."""
    text = shlex.join(c.process.args)
    return f'"{text}"' if whole or len(text) <= _COMMAND else f'"{text[: _COMMAND - 1]}…"'


def describe_labels(labels: dict[str, str]) -> str:
    return ",".join(f"{k}={v}" for k, v in sorted(labels.items()))


def describe_size(size: ContainerSize | None) -> str:
    return f"{format_size(size.own)} (virtual {format_size(size.virtual)})" if size else ""


def fields(c: Container, *, whole: bool = False, size: ContainerSize | None = None) -> dict[str, Any]:
    """Docker's, by https://docs.docker.com/reference/cli/docker/container/ls/#format; and the pod's id."""
    sources = [m.volume.removeprefix("bind:").removesuffix(":ro") or m.mount.source for m in c.mounts]
    mounts = [name for name in sources if name]
    networks = [n.name for n in c.spec.networks] or [c.spec.network or "bridge"]
    return {
        "id": c.id if whole else short(c.id), "names": c.name, "image": c.image, "command": command(c, whole=whole),
        "createdAt": c.created_at, "runningFor": f"{format_age(c.created_at)} ago", "status": describe_state(c),
        "state": c.state.status.value, "ports": describe_ports(c), "labels": describe_labels(c.spec.labels),
        "label": c.spec.labels, "pod": short(c.pod), "mounts": ",".join(mounts),
        "localVolumes": sum(1 for m in c.mounts if m.mount.type == "volume"),
        "networks": ",".join(networks if c.pod == c.id else []), "size": describe_size(size),
    }  # fmt: skip
