# SPDX-License-Identifier: Apache-2.0
"""`docker info`: the daemon and its host."""

from __future__ import annotations

import os
import platform
import socket
from typing import Any

from ..engine.engine import Engine
from ..model.host import Info
from ..model.moments import write_moment
from ..model.specs import LOG_DRIVERS
from ..model.states import STILL
from ..model.status import ContainerStatus
from ..sys import clock
from .router import Call, Routes
from .versions import ENGINE, ApiVersion

routes = Routes()
_HUB = "https://index.docker.io/v1/"
_RUNTIME = "runc"  # as all clients know it
_SWARM = {
    "NodeID": "", "NodeAddr": "", "LocalNodeState": "inactive", "ControlAvailable": False, "Error": "",
    "RemoteManagers": None,
}  # fmt: skip


@routes.get("/info")
async def info(c: Call) -> dict[str, Any]:
    """All that clients look at; what is of the kernel is that of the guests, whose containers these are."""
    ours = await c.engine.info()
    return _counts(c.engine) | _host(ours) | _guests(ours) | _registries(c.engine) | _rest(c.engine, ours, c.version)


def _counts(engine: Engine) -> dict[str, Any]:
    states = [x.state.status for x in engine.registry.shown()]
    running = states.count(ContainerStatus.RUNNING) + states.count(ContainerStatus.RESTARTING)
    paused = sum(states.count(state) for state in STILL)
    return {
        "Containers": len(states),
        "ContainersRunning": running,
        "ContainersPaused": paused,
        "ContainersStopped": len(states) - running - paused,
        "Images": engine.images.count(),
    }


def _host(ours: Info) -> dict[str, Any]:
    return {
        "Name": socket.gethostname(),
        "KernelVersion": platform.release(),
        "OperatingSystem": _system(),
        "OSVersion": _release().get("VERSION_ID", ""),
        "OSType": platform.system().lower(),
        "Architecture": platform.machine(),
        "NCPU": ours.cpus,
        "MemTotal": ours.memory,
        "DockerRootDir": ours.root,
        "HttpProxy": _of_host("HTTP_PROXY", ours),
        "HttpsProxy": _of_host("HTTPS_PROXY", ours),
        "NoProxy": _of_host("NO_PROXY", ours),
        "NFd": len(os.listdir("/proc/self/fd")) if ours.root else 0,
        "SystemTime": write_moment(clock.now_ns()),
    }


def _of_host(variable: str, ours: Info) -> str:
    """For who may know the host's own."""
    return os.environ.get(variable, "") if ours.root else ""


def _system() -> str:
    return _release().get("PRETTY_NAME", "") or platform.system()


def _release() -> dict[str, str]:
    try:
        return platform.freedesktop_os_release()
    except OSError:
        return {}


def _guests(ours: Info) -> dict[str, Any]:
    """What holds in a guest: a kernel of its own with control groups of version 2."""
    return {
        "CgroupDriver": "cgroupfs",
        "CgroupVersion": "2",
        "MemoryLimit": True,
        "SwapLimit": False,
        "CpuCfsPeriod": True,
        "CpuCfsQuota": True,
        "CPUShares": False,
        "CPUSet": False,
        "PidsLimit": True,
        "IPv4Forwarding": True,
        "OomKillDisable": False,
        "Runtimes": {_RUNTIME: {"path": "hyperd"}},
        "DefaultRuntime": _RUNTIME,
        "SecurityOptions": ["name=seccomp,profile=builtin", *(["name=rootless"] if ours.rootless else [])],
        "Isolation": "",
        "InitBinary": "docker-init",
        "Driver": "erofs",
        "DriverStatus": [
            ["Hypervisor", ours.driver],
            ["Accelerator", ours.accelerator],
            ["Guest kernel", ours.kernel_version],
        ],
    }


def _registries(engine: Engine) -> dict[str, Any]:
    docker_io = {"Name": "docker.io", "Mirrors": [], "Secure": True, "Official": True}
    insecure = sorted(engine.settings.insecure_registries)
    others = {name: {"Name": name, "Mirrors": [], "Secure": False, "Official": False} for name in insecure}
    return {
        "IndexServerAddress": _HUB,
        "RegistryConfig": {
            "IndexConfigs": {"docker.io": docker_io, **others},
            "InsecureRegistryCIDRs": ["::1/128", "127.0.0.0/8"],
            "Mirrors": None,
        },
    }


def _rest(engine: Engine, ours: Info, version: ApiVersion) -> dict[str, Any]:
    commit = {"ID": ""} if version >= (1, 48) else {"ID": "", "Expected": ""}
    return {
        "ID": _identity(),
        "ServerVersion": ENGINE,
        "Plugins": {
            "Volume": ["local"],
            "Network": ["bridge", "null"],
            "Authorization": None,
            "Log": list(LOG_DRIVERS),
        },
        "LoggingDriver": ours.log.driver,
        "Debug": False,
        "NGoroutines": 1,
        "NEventsListener": 0,
        "GenericResources": None,
        "Labels": [],
        "ExperimentalBuild": False,
        "Swarm": _SWARM,
        "LiveRestoreEnabled": False,
        "ContainerdCommit": commit,
        "RuncCommit": commit,
        "InitCommit": commit,
        "ProductLicense": "Apache-2.0",
        "CDISpecDirs": [],
        "DefaultAddressPools": [],
        "Warnings": None,
    }


def _identity() -> str:
    """Of this host: clients tell daemons apart by it."""
    try:
        with open("/etc/machine-id") as file:
            return file.read().strip() or socket.gethostname()
    except OSError:
        return socket.gethostname()
