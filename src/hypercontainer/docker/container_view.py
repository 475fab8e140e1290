# SPDX-License-Identifier: Apache-2.0
"""A container as Docker's `inspect` and its list show it."""

from __future__ import annotations

from collections.abc import Mapping
from datetime import datetime
from typing import Any

from ..engine.engine import Engine
from ..errors import HyperError
from ..model.moments import read_moment, write_moment
from ..model.states import ALIVE, STILL
from ..model.status import Container, ContainerStatus, Health, MountPoint, Pod
from ..model.units import format_age
from .container_config_view import config, host_config, labels, network_mode
from .network_settings import networks, ports, settings

Document = dict[str, Any]
NEVER = "0001-01-01T00:00:00Z"  # Go's time that is none


def image_config(engine: Engine, c: Container) -> Mapping[str, Any]:
    """What its image says; nothing where that is gone."""
    try:
        return engine.images.find(c.image_id).config.config
    except HyperError:
        return {}


def moment(text: str) -> str:
    """RFC 3339 to the nanosecond, without the zeros at its end, as Go writes it."""
    if not text:
        return NEVER
    whole = write_moment(read_moment(text)).removesuffix("Z")
    return whole.rstrip("0").rstrip(".") + "Z"


def inspect(engine: Engine, c: Container) -> Document:
    """All of it, without sizes."""
    pod = engine.registry.pod(c.pod)
    image = image_config(engine, c)
    return {
        "Id": c.id,
        "Created": moment(c.created_at),
        "Path": c.process.args[0],
        "Args": c.process.args[1:],
        "State": _state(c, pod),
        "Image": c.image_id,
        "ResolvConfPath": "",
        "HostnamePath": "",
        "HostsPath": "",
        "LogPath": c.log_path if c.state.started_at else "",
        "Name": f"/{c.name}",
        "RestartCount": c.state.restart_count,
        "Driver": "erofs",
        "Platform": "linux",
        "MountLabel": "",
        "ProcessLabel": "",
        "AppArmorProfile": "",
        "ExecIDs": [e.id for e in engine.execs.of(c.id)] or None,
        "HostConfig": host_config(c),
        "GraphDriver": {"Name": "erofs", "Data": None},
        "Mounts": [mount(pod, m) for m in c.mounts if m.mount.target not in _quick(c)],
        "Config": config(c, image),
        "NetworkSettings": settings(engine, c, pod, image),
    }


def _quick(c: Container) -> set[str]:
    """Places that `--tmpfs` asked for: Docker has them in HostConfig only."""
    return set(c.spec.given.get("HostConfig", {}).get("Tmpfs", {}))


def _state(c: Container, pod: Pod) -> Document:
    s = c.state
    found: Document = {
        "Status": _word(s.status),
        "Running": s.status in ALIVE,
        "Paused": s.status in STILL,
        "Restarting": s.status is ContainerStatus.RESTARTING,
        "OOMKilled": s.oom_killed,
        "Dead": False,
        "Pid": pod.vm.pid if pod.vm and s.status in ALIVE else 0,
        "ExitCode": s.exit_code,
        "Error": s.error,
        "StartedAt": moment(s.started_at),
        "FinishedAt": moment(s.finished_at),
    }
    return found | ({"Health": _health(s.health)} if s.health else {})


def _word(status: ContainerStatus) -> str:
    """Docker has one for all that stands still."""
    return ContainerStatus.PAUSED.value if status in STILL else status.value


def _health(h: Health) -> Document:
    log = [
        {"Start": moment(r.started_at), "End": moment(r.ended_at), "ExitCode": r.exit_code, "Output": r.output}
        for r in h.log
    ]
    return {"Status": h.status, "FailingStreak": h.failing_streak, "Log": log}


def mount(pod: Pod, point: MountPoint) -> Document:
    """One of no name lies on the container's own disk where that is in a pod with others."""
    m = point.mount
    volume = next((v for v in pod.volumes if point.volume and v.name == point.volume), None)
    kind = "bind" if m.type == "volume" and volume and volume.kind == "directory" and not volume.named else m.type
    found: Document = {"Type": kind}
    if kind == "volume":
        name = (volume.named or volume.name) if volume else ""
        found |= {"Name": name, "Driver": "local"}
    source = volume.source if volume and m.type != "tmpfs" else ""
    mode = _MODES.get(kind, "")
    return found | {
        "Source": source,
        "Destination": m.target,
        "Mode": "ro" if m.read_only and kind != "tmpfs" else mode,
        "RW": not m.read_only,
        "Propagation": (m.propagation or "rprivate") if kind == "bind" else "",
    }


_MODES = {"volume": "z"}  # what Docker writes there where nothing is said


# -- the list ------------------------------------------------------------------------------


def summary(engine: Engine, c: Container) -> Document:
    """One entry of the list, without sizes."""
    pod = engine.registry.pod(c.pod)
    image = image_config(engine, c)
    return {
        "Id": c.id,
        "Names": [f"/{c.name}"],
        "Image": _image_name(engine, c),
        "ImageID": c.image_id,
        "Command": _command(c),
        "Created": int(datetime.fromisoformat(c.created_at).timestamp()),
        "Ports": ports(c, pod, image),
        "Labels": labels(c, image),
        "State": _word(c.state.status),
        "Status": status_text(c),
        "HostConfig": {"NetworkMode": network_mode(c.spec)}
        | ({"Annotations": c.spec.annotations} if c.spec.annotations else {}),
        "NetworkSettings": {"Networks": networks(engine, c, pod)},
        "Mounts": [mount(pod, m) for m in c.mounts if m.mount.type != "tmpfs"],
    }


def _image_name(engine: Engine, c: Container) -> str:
    """As it was named, unless that name stands for another image by now."""
    try:
        return c.image if engine.images.find(c.image).id == c.image_id else c.image_id
    except HyperError:
        return c.image_id


def _command(c: Container) -> str:
    """As Docker writes it: what has a space is in single quotes."""
    path, *args = c.process.args
    return " ".join([path, *(f"'{a}'" if " " in a else a for a in args)])


def status_text(c: Container) -> str:
    """`Up 3 seconds (healthy)`, `Exited (0) 2 minutes ago`."""
    s = c.state
    if s.status is ContainerStatus.RESTARTING:
        return f"Restarting ({s.exit_code}) {format_age(s.finished_at)} ago"
    if s.status in STILL:
        return f"Up {format_age(s.started_at)} (Paused)"
    if s.status is ContainerStatus.RUNNING:
        return f"Up {format_age(s.started_at)}" + (_health_note(s.health.status) if s.health else "")
    if s.status is ContainerStatus.REMOVING:
        return "Removal In Progress"
    if s.status is ContainerStatus.CREATED:
        return "Created"
    return f"Exited ({s.exit_code}) {format_age(s.finished_at)} ago"


def _health_note(status: str) -> str:
    return " (health: starting)" if status == "starting" else f" ({status})"
