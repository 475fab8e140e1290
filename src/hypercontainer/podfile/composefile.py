# SPDX-License-Identifier: Apache-2.0
"""Docker's compose file as structures: every key that there is, so that a misspelt one is found.

Keys of https://github.com/compose-spec/compose-spec. Those of type Any are
known and mean nothing here; `compose` names them when they are given.
"""

from __future__ import annotations

from typing import Annotated, Any, Literal

import msgspec
from msgspec import Meta, field

from . import document

Scalar = str | int | float | bool | None
Words = str | list[str] | None
Pairs = dict[str, Scalar] | list[str] | None
Count = Annotated[int, Meta(ge=0)]
Size = Count | str
Duration = str | Annotated[int, Meta(ge=0)] | Annotated[float, Meta(ge=0)]


class Part(msgspec.Struct, kw_only=True, frozen=True, forbid_unknown_fields=True):
    """Immutable, strict about unknown keys, but for extensions."""

    extension: Any = field(default=None, name="x-")


class Network(Part, frozen=True, kw_only=True):
    """A network of the file."""

    name: str = ""
    internal: bool = False
    external: bool | dict[str, Scalar] = False
    driver: Any = None
    driver_opts: Any = None
    attachable: Any = None
    enable_ipv4: Any = None
    enable_ipv6: Any = None
    ipam: Any = None
    labels: Any = None


class Volume(Part, frozen=True, kw_only=True):
    """A named volume."""

    name: str = ""
    external: bool | dict[str, Scalar] = False
    driver: str = ""
    driver_opts: Any = None
    labels: Any = None


class Source(Part, frozen=True, kw_only=True):
    """A config or a secret."""

    name: str = ""
    file: str = ""
    environment: str = ""
    content: str | None = None
    external: bool | dict[str, Scalar] = False
    labels: Any = None
    driver: Any = None
    driver_opts: Any = None
    template_driver: Any = None


class Use(Part, frozen=True, kw_only=True):
    """A config or a secret in a service."""

    source: str
    target: str = ""
    uid: str | int = 0
    gid: str | int = 0
    mode: str | int | None = None


class EnvFile(Part, frozen=True, kw_only=True):
    """A file of variables."""

    path: str
    required: bool = True
    format: Literal["", "raw"] = ""


class Port(Part, frozen=True, kw_only=True):
    """A published port."""

    target: Annotated[int, Meta(ge=1, le=65535)] | str
    published: Annotated[int, Meta(ge=0, le=65535)] | str = ""
    protocol: Literal["tcp", "udp"] = "tcp"
    host_ip: str = ""
    mode: Any = None
    name: Any = None
    app_protocol: Any = None


class VolumeOptions(Part, frozen=True, kw_only=True):
    """Of a mount of a volume."""

    nocopy: bool = False
    subpath: str = ""
    labels: Any = None


class BindOptions(Part, frozen=True, kw_only=True):
    """Of a mount of a path."""

    create_host_path: bool = True
    propagation: str = ""
    selinux: Any = None
    recursive: Any = None


class TmpfsOptions(Part, frozen=True, kw_only=True):
    """Of a file system in memory."""

    size: Size = 0  # bytes, or a text
    mode: str | int = "1777"


class Mount(Part, frozen=True, kw_only=True):
    """A mount in full."""

    target: str
    type: Literal["volume", "bind", "tmpfs"] = "volume"
    source: str = ""
    read_only: bool = False
    volume: VolumeOptions = field(default_factory=VolumeOptions)
    bind: BindOptions = field(default_factory=BindOptions)
    tmpfs: TmpfsOptions = field(default_factory=TmpfsOptions)
    consistency: Any = None


class Depends(Part, frozen=True, kw_only=True):
    """On another service."""

    condition: Literal["service_started", "service_healthy", "service_completed_successfully"] = "service_started"
    required: bool = True
    restart: Any = None


class Healthcheck(Part, frozen=True, kw_only=True):
    """How to learn whether a service is well."""

    test: Words = None
    interval: Duration | None = None
    timeout: Duration | None = None
    retries: Annotated[int, Meta(ge=1)] | None = None
    start_period: Duration | None = None
    start_interval: Duration | None = None
    disable: bool = False


class Limits(Part, frozen=True, kw_only=True):
    """What a service may use."""

    cpus: Annotated[float, Meta(ge=0)] | str | None = None
    memory: Size | None = None
    pids: int | None = None


class Resources(Part, frozen=True, kw_only=True):
    """Limits count; reservations are of a swarm."""

    limits: Limits = field(default_factory=Limits)
    reservations: Any = None


class DeployRestart(Part, frozen=True, kw_only=True):
    """In place of `restart`."""

    condition: Literal["none", "on-failure", "any"] = "any"
    max_attempts: Count = 0
    delay: Any = None
    window: Any = None


class Deploy(Part, frozen=True, kw_only=True):
    """Of it the resources and the restarts are one host's matter."""

    resources: Resources = field(default_factory=Resources)
    restart_policy: DeployRestart | None = None
    replicas: Annotated[int, Meta(ge=0)] | str = 1
    mode: Any = None
    labels: Any = None
    endpoint_mode: Any = None
    placement: Any = None
    rollback_config: Any = None
    update_config: Any = None


class Logging(Part, frozen=True, kw_only=True):
    """Where output goes."""

    driver: str = ""
    options: dict[str, Scalar] = field(default_factory=dict)


class ServiceNetwork(Part, frozen=True, kw_only=True):
    """A service in a network."""

    aliases: list[str] = field(default_factory=list)
    ipv4_address: Any = None
    ipv6_address: Any = None
    link_local_ips: Any = None
    mac_address: Any = None
    driver_opts: Any = None
    gw_priority: Any = None
    interface_name: Any = None
    priority: Any = None


class Ulimit(Part, frozen=True, kw_only=True):
    """A resource limit."""

    soft: int
    hard: int


class Service(Part, frozen=True, kw_only=True):
    """A service: one container of the pod."""

    image: str = ""
    command: Words = None
    entrypoint: Words = None
    environment: Pairs = None
    env_file: str | list[str | EnvFile] | None = None
    labels: Pairs = None
    volumes: list[str | Mount] = field(default_factory=list)
    tmpfs: Words = None
    configs: list[str | Use] = field(default_factory=list)
    secrets: list[str | Use] = field(default_factory=list)
    ports: list[str | int | Port] = field(default_factory=list)
    expose: Any = None
    networks: dict[str, ServiceNetwork | None] | list[str] | None = None
    network_mode: str = ""
    links: list[str] = field(default_factory=list)
    depends_on: dict[str, Depends] | list[str] | None = None
    profiles: list[str] = field(default_factory=list)
    healthcheck: Healthcheck = field(default_factory=Healthcheck)
    restart: str | bool = "no"
    deploy: Deploy = field(default_factory=Deploy)
    logging: Logging = field(default_factory=Logging)
    user: str | int = ""
    group_add: list[str | int] = field(default_factory=list)
    working_dir: str = ""
    hostname: str = ""
    container_name: str = ""
    tty: bool = False
    stdin_open: bool = False
    read_only: bool = False
    privileged: bool = False
    stop_signal: str = ""
    stop_grace_period: Duration = 10
    cap_add: list[str] = field(default_factory=list)
    cap_drop: list[str] = field(default_factory=list)
    security_opt: list[str] = field(default_factory=list)
    sysctls: Pairs = None
    ulimits: dict[str, int | Ulimit] = field(default_factory=dict)
    shm_size: Size = 0
    extra_hosts: dict[str, Words] | list[str] | None = None
    dns: Words = None
    dns_search: Words = None
    dns_opt: Words = None
    mem_limit: Size | None = None
    cpus: Annotated[float, Meta(ge=0)] | str | None = None
    pids_limit: int | None = None
    init: bool = False
    pull_policy: Any = None
    attach: Any = None
    annotations: Any = None
    blkio_config: Any = None
    build: Any = None
    cgroup: Any = None
    cgroup_parent: Any = None
    cpu_count: Any = None
    cpu_percent: Any = None
    cpu_period: Any = None
    cpu_quota: Any = None
    cpu_rt_period: Any = None
    cpu_rt_runtime: Any = None
    cpu_shares: Any = None
    cpuset: Any = None
    credential_spec: Any = None
    develop: Any = None
    device_cgroup_rules: Any = None
    devices: Any = None
    domainname: Any = None
    driver_opts: Any = None
    extends: Any = None
    external_links: Any = None
    gpus: Any = None
    ipc: Any = None
    isolation: Any = None
    label_file: Any = None
    mac_address: Any = None
    mem_reservation: Any = None
    mem_swappiness: Any = None
    memswap_limit: Any = None
    models: Any = None
    oom_kill_disable: Any = None
    oom_score_adj: Any = None
    pid: str = ""
    platform: str = ""
    post_start: Any = None
    pre_stop: Any = None
    provider: Any = None
    runtime: Any = None
    scale: Any = None
    storage_opt: Any = None
    use_api_socket: Any = None
    userns_mode: Any = None
    uts: Any = None
    volumes_from: Any = None


class Compose(Part, frozen=True, kw_only=True):
    """The whole file."""

    services: dict[str, Service]
    name: str = ""
    version: Scalar = None
    networks: dict[str, Network | None] = field(default_factory=dict)
    volumes: dict[str, Volume | None] = field(default_factory=dict)
    configs: dict[str, Source] = field(default_factory=dict)
    secrets: dict[str, Source] = field(default_factory=dict)
    hyper: document.Traffic = field(default_factory=document.Traffic, name="x-hyper")
    include: Any = None
    models: Any = None
