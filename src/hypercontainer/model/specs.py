# SPDX-License-Identifier: Apache-2.0
"""What a caller asks for."""

from __future__ import annotations

from typing import Annotated, Literal

from msgspec import Meta, field

from .base import Model

MIB = 1 << 20
# Below this the guest's kernel and init leave a program nothing to run in.
MEMORY_MIN = 16 * MIB
MEMORY_DEFAULT = 256 * MIB

Name = Annotated[str, Meta(pattern=r"^[a-zA-Z0-9][a-zA-Z0-9_.-]{0,127}$")]
PullPolicy = Literal["missing", "always", "never"]


class Ulimit(Model, frozen=True, kw_only=True):
    """A resource limit by its short name (`nofile`); -1 is unlimited."""

    name: str
    soft: int
    hard: int


class PortMapping(Model, frozen=True, kw_only=True):
    """A published port; `host_port` 0 lets the daemon choose."""

    container_port: Annotated[int, Meta(ge=1, le=65535)]
    host_port: Annotated[int, Meta(ge=0, le=65535)] = 0
    host_ip: str = ""
    protocol: Literal["tcp", "udp"] = "tcp"


class Resources(Model, frozen=True, kw_only=True):
    """Limits; 0 means the default."""

    cpus: Annotated[float, Meta(ge=0)] = 0.0
    memory: Annotated[int, Meta(ge=0)] = 0  # bytes
    pids: Annotated[int, Meta(ge=0)] = 0


class ContainerSpec(Model, frozen=True, kw_only=True):
    """A container to create; what is None or empty comes from the image."""

    image: str
    name: str = ""
    command: list[str] | None = None
    entrypoint: list[str] | None = None
    env: list[str] = field(default_factory=list)
    workdir: str = ""
    user: str = ""
    groups: list[str] = field(default_factory=list)
    hostname: str = ""
    tty: bool = False
    stdin: bool = False
    read_only: bool = False
    resources: Resources = field(default_factory=Resources)
    labels: dict[str, str] = field(default_factory=dict)
    ulimits: list[Ulimit] = field(default_factory=list)
    sysctls: dict[str, str] = field(default_factory=dict)
    cap_add: list[str] = field(default_factory=list)
    cap_drop: list[str] = field(default_factory=list)
    no_new_privileges: bool = False
    ports: list[PortMapping] = field(default_factory=list)
    network: Literal["user", "none"] = "user"
    stop_signal: str = ""
    stop_timeout: Annotated[int, Meta(ge=0)] = 10  # seconds
    auto_remove: bool = False
    pull: PullPolicy = "missing"
    platform: str = ""


class ExecSpec(Model, frozen=True, kw_only=True):
    """A further process in a running container."""

    command: list[str]
    env: list[str] = field(default_factory=list)
    workdir: str = ""
    user: str = ""
    tty: bool = False
    stdin: bool = False
    privileged: bool = False
    detach: bool = False
