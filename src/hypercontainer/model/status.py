# SPDX-License-Identifier: Apache-2.0
"""What the daemon tells about its objects. Times are RFC 3339 in UTC, "" when not yet."""

from __future__ import annotations

from enum import StrEnum
from typing import Any

from msgspec import field

from .base import Model
from .specs import ContainerSpec, PortMapping


class ContainerStatus(StrEnum):
    """A container's life, in Docker's words."""

    CREATED = "created"
    RUNNING = "running"
    PAUSED = "paused"
    EXITED = "exited"
    REMOVING = "removing"


class ContainerState(Model, frozen=True, kw_only=True):
    """The changing part of a container."""

    status: ContainerStatus = ContainerStatus.CREATED
    pid: int = 0  # inside the pod
    exit_code: int = 0
    oom_killed: bool = False
    error: str = ""
    started_at: str = ""
    finished_at: str = ""


class Process(Model, frozen=True, kw_only=True):
    """The main process as resolved from image and spec."""

    args: list[str]
    env: list[str]
    cwd: str
    user: str
    stop_signal: int


class Container(Model, frozen=True, kw_only=True):
    """A container as `inspect` shows it and the database keeps it."""

    id: str
    name: str
    pod: str  # the pod's id
    created_at: str
    image: str  # as the user named it
    image_id: str
    hostname: str
    process: Process
    spec: ContainerSpec
    state: ContainerState = field(default_factory=ContainerState)
    ports: list[PortMapping] = field(default_factory=list)  # with the host ports in force
    log_path: str = ""


class Vm(Model, frozen=True, kw_only=True):
    """What is needed to find a pod's virtual machine again."""

    driver: str
    pid: int
    pid_started: int  # clock ticks since the host's boot: a pid alone may be reused
    directory: str
    token: str  # hex, opens the next connection to the guest
    accelerator: str = ""
    processes: dict[str, int] = field(default_factory=dict)  # container -> process number


class Pod(Model, frozen=True, kw_only=True):
    """One VM and its containers."""

    id: str
    name: str
    created_at: str
    hostname: str
    vcpus: int
    memory: int  # bytes of guest memory
    vm: Vm | None = None


class PodInfo(Model, frozen=True, kw_only=True):
    """A pod as `list pod` shows it."""

    id: str
    name: str
    created_at: str
    status: str
    containers: list[str]
    vcpus: int
    memory: int
    vm_pid: int


class Image(Model, frozen=True, kw_only=True):
    """An image of the store."""

    id: str  # digest of the configuration
    names: list[str]
    digest: str  # of the manifest
    created: str
    size: int  # bytes of the image disk
    architecture: str
    os: str
    layers: list[str]  # diff ids, lowest first
    config: dict[str, Any]  # OCI image configuration's "config"


class RemovedImage(Model, frozen=True, kw_only=True):
    """What a removal did."""

    untagged: list[str] = field(default_factory=list)
    deleted: list[str] = field(default_factory=list)
    freed: int = 0  # bytes


class ExitCode(Model, frozen=True, kw_only=True):
    """The end of a process, as shells report it."""

    exit_code: int


class PathStat(Model, frozen=True, kw_only=True):
    """A path in a container; `link_target` of a symbolic link."""

    name: str
    size: int  # bytes
    mode: int
    mtime: int  # seconds since the epoch
    is_dir: bool
    link_target: str


class ExecInfo(Model, frozen=True, kw_only=True):
    """A further process of a container."""

    id: str
    container: str
    command: list[str]
    running: bool
    exit_code: int | None
    pid: int = 0


class ProcessInfo(Model, frozen=True, kw_only=True):
    """One line of `top`."""

    pid: int
    ppid: int
    uid: int
    started_at: str
    cpu_ms: int
    container: str
    command: str


class ContainerStats(Model, frozen=True, kw_only=True):
    """A moment's use of resources; network counts are the pod's."""

    id: str
    name: str
    read_at: str
    cpu_usec: int
    vcpus: int
    memory: int
    memory_limit: int
    pids: int
    read_bytes: int
    write_bytes: int
    rx_bytes: int
    tx_bytes: int


class Event(Model, frozen=True, kw_only=True):
    """Something that happened."""

    time: str
    type: str  # container, image, pod
    action: str
    id: str
    attributes: dict[str, str] = field(default_factory=dict)


class Version(Model, frozen=True, kw_only=True):
    """The daemon's side of `version`."""

    version: str
    api_version: str
    kernel: str
    hyperstart: str
    qemu: str
    python: str
    os: str
    arch: str


class Info(Model, frozen=True, kw_only=True):
    """`info`."""

    version: str
    root: str
    rootless: bool
    pods: int
    containers: int
    running: int
    images: int
    driver: str
    accelerator: str
    accelerator_reason: str
    kernel_version: str
    kernel_config_hash: str
    kernel_path: str
    cpus: int
    memory: int
    network: str


class Check(Model, frozen=True, kw_only=True):
    """One line of `doctor`."""

    name: str
    status: str  # ok, warn, fail
    found: str
    hint: str = ""
