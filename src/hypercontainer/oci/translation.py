# SPDX-License-Identifier: Apache-2.0
"""A bundle's configuration becomes a container of hyperd's, in its JSON (`model/specs.py`), or is refused.

Source: https://github.com/opencontainers/runtime-spec/blob/main/config.md and config-linux.md. What a virtual machine
makes needless is passed over: profiles of AppArmor and labels of SELinux, which are of this host's kernel; the
control group's path, weights of CPUs and disks, and OOM scores, which are for who shares a kernel.
"""

from __future__ import annotations

import json
import math
import os
import re
from pathlib import Path
from typing import Any

from ..errors import InvalidArgument, Unsupported
from .hooks import check_hooks, of_guest
from .mounts import mounts_of, shm_size

MIB = 1 << 20
_MEMORY_MIN = 16 * MIB  # hyperd takes no less
_OVERHEAD = 48 * MIB  # what a guest's kernel and init take
_UNLIMITED = 1 << 63
# The nodes that every container in a virtual machine has.
_DEVICES = {f"/dev/{name}" for name in ("null", "zero", "full", "random", "urandom", "tty", "console", "ptmx")}
_VFIO = "/dev/vfio/vfio"  # that all of its devices share
MEMORY, VCPUS = "io.hypercontainer.memory", "io.hypercontainer.vcpus"  # annotations: MiB and number, of the machine


def check(config: dict[str, Any]) -> None:
    """:raise InvalidArgument: it is malformed. :raise Unsupported: it asks for what is this host's."""
    process = config.get("process") or {}
    if not process.get("args"):
        raise InvalidArgument("the bundle's configuration has no process", hint="see `hyper-runtime spec`")
    if not (config.get("root") or {}).get("path"):
        raise InvalidArgument("the bundle's configuration has no root.path")
    linux = config.get("linux") or {}
    if linux.get("uidMappings") or linux.get("gidMappings"):
        raise Unsupported("there are no user namespaces in a virtual machine, which keeps its users from this host's",
                          hint="leave the mappings of users out")  # fmt: skip
    check_hooks(config.get("hooks") or {})
    if not is_privileged(config):
        given = host_devices(config)
        for path in (str(device.get("path")) for device in linux.get("devices") or []):
            if path not in (*_DEVICES, *given, *([_VFIO] if given else [])):
                raise Unsupported(f"the device {path} of this host cannot be given to a virtual machine")


def is_privileged(config: dict[str, Any]) -> bool:
    """Whether it may open any device: of the virtual machine, that is, which has none of this host's."""
    rules = ((config.get("linux") or {}).get("resources") or {}).get("devices") or []
    return any(rule.get("allow") and not rule.get("type", "").strip("a") and "major" not in rule for rule in rules)


def host_devices(config: dict[str, Any]) -> list[str]:
    """Groups of PCI devices, by their nodes of VFIO; none for one that may open all, and has all nodes for that."""
    if is_privileged(config):
        return []
    paths = (str(device.get("path")) for device in (config.get("linux") or {}).get("devices") or [])
    return [path for path in paths if re.fullmatch(r"/dev/vfio/[0-9]+", path)]


def container_of(config: dict[str, Any], bundle: Path, rootfs: str, *, id_: str, name: str, pod: str) -> dict[str, Any]:
    """A ContainerSpec; `rootfs` is the root's absolute path, `id_` what this runtime calls it, and `name` hyperd.

    :raise HyperError: what cannot be.
    """
    process, linux = config["process"], config.get("linux") or {}
    resources = limits_of(linux.get("resources") or {})
    shared = any(n.get("type") == "pid" and n.get("path") for n in linux.get("namespaces") or [])
    size = process.get("consoleSize") or {}
    return {
        "image": "",
        "rootfs": rootfs,
        "name": name,
        "pod": pod,
        "entrypoint": process["args"],
        "env": process.get("env") or [],
        "workdir": process.get("cwd") or "/",
        "user": user_of(process),
        "groups": groups_of(process),
        "tty": bool(process.get("terminal")),
        "stdin": True,
        "readOnly": bool(config["root"].get("readonly")),
        "resources": resources,
        "ulimits": ulimits_of(process),
        "sysctls": linux.get("sysctl") or {},
        "capAdd": capabilities_of(process),
        "capDrop": ["ALL"],
        "capAmbient": ambient_of(process),
        "noNewPrivileges": bool(process.get("noNewPrivileges")),
        "seccomp": "unconfined",
        "seccompProfile": seccomp_of(linux),
        "maskedPaths": linux.get("maskedPaths") or [],
        "readonlyPaths": linux.get("readonlyPaths") or [],
        "privileged": is_privileged(config),
        "mounts": mounts_of(config, bundle),
        "devices": host_devices(config) if pod else [],  # of a machine that is there already: hyperd refuses them
        "domainname": config.get("domainname") or "",
        "pid": "pod" if shared else "container",
        "consoleSize": [size.get("height", 0), size.get("width", 0)],
        "startHooks": of_guest(config, id_, str(bundle), own_pids=not shared),
        "bound": True,
        "noHealth": True,
        "log": {"driver": "none"},  # its output is its caller's
        "annotations": config.get("annotations") or {},
    }


def pod_of(config: dict[str, Any], interfaces: list[dict[str, Any]], *, name: str) -> dict[str, Any]:
    """A PodPlan of a machine for it, and for what joins it."""
    limits = limits_of((config.get("linux") or {}).get("resources") or {})
    annotations = config.get("annotations") or {}
    memory = _number(annotations, MEMORY) * MIB or (limits["memory"] and limits["memory"] + _OVERHEAD)
    spec: dict[str, Any] = {"pid": "container", "exitPolicy": "stop"}
    spec |= {"interfaces": interfaces} if interfaces else {"network": "none"}
    if devices := host_devices(config):
        spec["devices"] = devices
    if size := shm_size(config):
        spec["shmSize"] = size
    return {
        "name": name, "hostname": config.get("hostname") or "", "spec": spec, "memory": memory,
        "vcpus": _number(annotations, VCPUS) or min(math.ceil(limits["cpus"]), os.cpu_count() or 1),
    }  # fmt: skip


def _number(annotations: dict[str, str], name: str) -> int:
    text = annotations.get(name, "0")
    if not text.isdecimal():
        raise InvalidArgument(f"the annotation {name} is no number: {text!r}")
    return int(text)


def limits_of(resources: dict[str, Any]) -> dict[str, Any]:
    """A Resources; 0 is no limit, and one that nothing could run in is the least one that is taken."""
    memory = (resources.get("memory") or {}).get("limit") or 0
    cpu = resources.get("cpu") or {}
    quota, period = cpu.get("quota") or 0, cpu.get("period") or 100_000
    pids = (resources.get("pids") or {}).get("limit") or 0
    return {
        "memory": max(memory, _MEMORY_MIN) if memory > 0 else 0,
        "cpus": min(max(quota / period, 0.01), os.cpu_count() or 1) if quota > 0 else 0,
        "pids": max(pids, 0),
    }


def user_of(process: dict[str, Any]) -> str:
    """Numbers alone: no table of the container's is asked."""
    user = process.get("user") or {}
    return f"{user.get('uid', 0)}:{user.get('gid', 0)}"


def groups_of(process: dict[str, Any]) -> list[str]:
    """The further ones."""
    return [str(gid) for gid in (process.get("user") or {}).get("additionalGids") or []]


def capabilities_of(process: dict[str, Any]) -> list[str]:
    """The most that it can get: root has them, and for others a program with the bit for it."""
    return (process.get("capabilities") or {}).get("bounding") or []


def ambient_of(process: dict[str, Any]) -> list[str]:
    """What a user who is not root keeps."""
    return (process.get("capabilities") or {}).get("ambient") or []


def ulimits_of(process: dict[str, Any]) -> list[dict[str, Any]]:
    """By their short names."""

    def value(number: int) -> int:
        return -1 if number >= _UNLIMITED else number

    return [
        {"name": r["type"].removeprefix("RLIMIT_").lower(), "soft": value(r["soft"]), "hard": value(r["hard"])}
        for r in process.get("rlimits") or []
    ]


def seccomp_of(linux: dict[str, Any]) -> str:
    """As text, which hyperd compiles; "" is none."""
    profile = linux.get("seccomp")
    if not profile or (profile.get("defaultAction") == "SCMP_ACT_ALLOW" and not profile.get("syscalls")):
        return ""
    return json.dumps(profile, separators=(",", ":"))
