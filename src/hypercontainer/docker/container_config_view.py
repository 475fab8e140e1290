# SPDX-License-Identifier: Apache-2.0
"""Config and HostConfig of a container as Docker shows them.

What came over this API is given back as it came; of a container that was made otherwise its specification tells it.
"""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any

from ..engine.container_config import container_config, health_config
from ..engine.resolve import MASKED, READONLY
from ..model.network import DEFAULT_NETWORK
from ..model.specs import ContainerSpec, HealthCheck, Mount
from ..model.status import Container

Document = dict[str, Any]
SHM_SIZE = 64 << 20
_NANO = 1_000_000_000
_BY_MOUNTS = ("Binds", "Tmpfs")  # of Docker's clients they are what these said, and not Mounts too
_LIMITS = ("NetworkMode", "Memory", "NanoCpus", "CpuPeriod", "CpuQuota", "PidsLimit", "RestartPolicy")  # as they are


def host_config(c: Container) -> Document:
    """What was asked of this host."""
    spec = c.spec
    given = spec.given.get("HostConfig", {})
    asked = {k: v for k, v in _asked(spec).items() if not spec.given or k not in _BY_MOUNTS}
    kept = {k: v for k, v in given.items() if k not in _LIMITS}
    return {**_DEFAULTS, **_paths(spec), **asked, **kept, **_live(spec, given),
            "AutoRemove": spec.auto_remove, "LogConfig": _log(spec), "Links": _links(c)}  # fmt: skip


def _paths(spec: ContainerSpec) -> Document:
    """What of /proc and /sys is hidden, or not to be written."""
    hidden, fixed = (None, None) if spec.privileged else (list(MASKED), list(READONLY))
    return {"MaskedPaths": hidden, "ReadonlyPaths": fixed}


def config(c: Container, image: Mapping[str, Any]) -> Document:
    """What its process is, and what its image says, which is `image`."""
    spec, given = c.spec, c.spec.given.get("Config", {})
    own = container_config(c, dict(image))
    found = {
        "Hostname": c.hostname,
        "Domainname": spec.domainname,
        "User": c.process.user,
        "AttachStdin": given.get("AttachStdin", False),
        "AttachStdout": given.get("AttachStdout", False),
        "AttachStderr": given.get("AttachStderr", False),
        "ExposedPorts": own.get("ExposedPorts"),
        "Tty": spec.tty,
        "OpenStdin": spec.stdin,
        "StdinOnce": given.get("StdinOnce", False),
        "Env": own.get("Env") or [],
        "Cmd": own.get("Cmd"),
        "Healthcheck": given.get("Healthcheck")
        or _health(c.health)
        or ({"Test": ["NONE"]} if spec.no_health else None),
        "Image": c.image,
        "Volumes": own.get("Volumes") or None,
        "WorkingDir": own.get("WorkingDir") or "",
        "Entrypoint": own.get("Entrypoint"),
        "OnBuild": given.get("OnBuild"),
        "Labels": own.get("Labels") or {},
        "StopSignal": own.get("StopSignal"),
        "StopTimeout": spec.stop_timeout if spec.stop_timeout != ContainerSpec(image="").stop_timeout else None,
        "Shell": given.get("Shell") or own.get("Shell"),
    }
    optional = ("ExposedPorts", "Healthcheck", "StopSignal", "StopTimeout", "Shell")
    return {k: v for k, v in found.items() if v or k not in optional}


def labels(c: Container, image: Mapping[str, Any]) -> dict[str, str]:
    """The image's, and its own."""
    return {**(image.get("Labels") or {}), **c.spec.labels}


def network_mode(spec: ContainerSpec) -> str:
    """As it was asked for; who asked for none got hyperd's own, which Docker's clients know as `bridge`."""
    if "HostConfig" in spec.given:
        asked: str = spec.given["HostConfig"].get("NetworkMode", "")
        return asked if asked != "default" and asked else DEFAULT_NETWORK
    return spec.networks[0].name if spec.networks else spec.network or DEFAULT_NETWORK


def _links(c: Container) -> list[str] | None:
    """As Docker shows them: by the path of the linked container, and that of its name here."""
    parted = [link.removeprefix("/").partition(":") for link in c.spec.links]
    return [f"/{name}:/{c.name}/{alias or name}" for name, _, alias in parted] or None


def _port(p: Any) -> str:
    return f"{p.container_port}/{p.protocol}"


def _health(check: HealthCheck | None) -> Document | None:
    if check is None:
        return None
    if check.command is None:  # by HTTP or TCP from inside the pod: Docker has no words for it
        return {"Test": ["CMD"]}
    return {name: value for name, value in health_config(check).items() if value}  # no time is left out


def _live(spec: ContainerSpec, given: Document) -> Document:
    """Limits and the restart policy as they are now; CPUs in the way in which they were asked for."""
    found: Document = {
        "Memory": spec.resources.memory,
        "NanoCpus": round(spec.resources.cpus * _NANO),
        "PidsLimit": spec.resources.pids or None,
        "RestartPolicy": {"Name": spec.restart.name, "MaximumRetryCount": spec.restart.max_retries},
    }
    period, quota = given.get("CpuPeriod", 0), given.get("CpuQuota", 0)
    if quota > 0 and abs(quota / (period or 100_000) - spec.resources.cpus) < 1e-9:
        found |= {"NanoCpus": 0, "CpuPeriod": period, "CpuQuota": quota}
    return found


def _log(spec: ContainerSpec) -> Document:
    sizes = {"max-size": spec.log.max_size, "max-file": spec.log.max_files}
    given = spec.given.get("HostConfig", {}).get("LogConfig", {}).get("Config")
    told = {k: str(v) for k, v in sizes.items() if v} if given is None else given
    return {"Type": spec.log.driver or "json-file", "Config": {**told, **spec.log.options}}


def _asked(spec: ContainerSpec) -> Document:
    """What of a specification is Docker's HostConfig."""
    security = ["no-new-privileges"] if spec.no_new_privileges else []
    security += ["seccomp=unconfined"] if spec.seccomp == "unconfined" else []
    security += [f"seccomp={spec.seccomp_profile}"] if spec.seccomp_profile else []
    bindings: dict[str, list[Document]] = {}
    for p in spec.ports:
        host = str(p.host_port) if p.host_port else ""
        bindings.setdefault(_port(p), []).append({"HostIp": p.host_ip, "HostPort": host})
    found: Document = {
        "NetworkMode": network_mode(spec),
        "PortBindings": bindings or None,
        "Binds": [_bind(m) for m in spec.mounts if m.type not in ("tmpfs", "image") and m.source] or None,
        "Tmpfs": {m.target: _tmpfs(m) for m in spec.mounts if m.type == "tmpfs"},
        "CapAdd": spec.cap_add or None,
        "CapDrop": spec.cap_drop or None,
        "Dns": spec.dns or None,
        "DnsOptions": spec.dns_options or None,
        "DnsSearch": spec.dns_search or None,
        "ExtraHosts": [f"{name}:{h.ip}" for h in spec.hosts for name in h.names] or None,
        "GroupAdd": spec.groups or None,
        "Privileged": spec.privileged,
        "PublishAllPorts": spec.publish_all,
        "ReadonlyRootfs": spec.read_only,
        "SecurityOpt": security or None,
        "ShmSize": spec.shm_size or SHM_SIZE,
        "Sysctls": spec.sysctls,
        "Annotations": spec.annotations,
        "Devices": [{"PathOnHost": d, "PathInContainer": d, "CgroupPermissions": "rwm"} for d in spec.devices] or None,
        "Ulimits": [{"Name": u.name, "Hard": u.hard, "Soft": u.soft} for u in spec.ulimits] or None,
    }
    found |= {"Init": True} if spec.run_init else {}
    return {k: v for k, v in found.items() if v or k not in ("Tmpfs", "Sysctls", "Annotations")}


def _bind(m: Mount) -> str:
    flags = [*(["ro"] if m.read_only else []), *([] if m.copy_up or m.type == "bind" else ["nocopy"])]
    flags += [m.propagation] if m.propagation else []
    return f"{m.source}:{m.target}" + (f":{','.join(flags)}" if flags else "")


def _tmpfs(m: Mount) -> str:
    given = {"size": m.size, "uid": m.uid, "gid": m.gid}
    flags = [*(["ro"] if m.read_only else []), *(["exec"] if m.exec else [])]
    mode = [f"mode={m.mode:o}"] if m.mode != 0o1777 else []
    return ",".join([*flags, *(f"{k}={v}" for k, v in given.items() if v), *mode])


_DEFAULTS: Document = {
    "Binds": None,
    "ContainerIDFile": "",
    "LogConfig": {},
    "NetworkMode": "bridge",
    "PortBindings": None,
    "RestartPolicy": {"Name": "no", "MaximumRetryCount": 0},
    "AutoRemove": False,
    "VolumeDriver": "",
    "VolumesFrom": None,
    "ConsoleSize": [0, 0],
    "CapAdd": None,
    "CapDrop": None,
    "CgroupnsMode": "private",
    "Dns": None,
    "DnsOptions": None,
    "DnsSearch": None,
    "ExtraHosts": None,
    "GroupAdd": None,
    "IpcMode": "private",
    "Cgroup": "",
    "Links": None,
    "OomScoreAdj": 0,
    "PidMode": "",
    "Privileged": False,
    "PublishAllPorts": False,
    "ReadonlyRootfs": False,
    "SecurityOpt": None,
    "UTSMode": "",
    "UsernsMode": "",
    "ShmSize": SHM_SIZE,
    "Runtime": "runc",
    "Isolation": "",
    "CpuShares": 0,
    "Memory": 0,
    "NanoCpus": 0,
    "CgroupParent": "",
    "BlkioWeight": 0,
    "BlkioWeightDevice": None,
    "BlkioDeviceReadBps": None,
    "BlkioDeviceWriteBps": None,
    "BlkioDeviceReadIOps": None,
    "BlkioDeviceWriteIOps": None,
    "CpuPeriod": 0,
    "CpuQuota": 0,
    "CpuRealtimePeriod": 0,
    "CpuRealtimeRuntime": 0,
    "CpusetCpus": "",
    "CpusetMems": "",
    "Devices": None,
    "DeviceCgroupRules": None,
    "DeviceRequests": None,
    "MemoryReservation": 0,
    "MemorySwap": 0,
    "MemorySwappiness": None,
    "OomKillDisable": None,
    "PidsLimit": None,
    "Ulimits": None,
    "CpuCount": 0,
    "CpuPercent": 0,
    "IOMaximumIOps": 0,
    "IOMaximumBandwidth": 0,
}
