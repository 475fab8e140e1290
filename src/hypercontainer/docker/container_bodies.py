# SPDX-License-Identifier: Apache-2.0
"""What is sent of containers: documents by the names of the API reference, v1.51.

Only what is taken to the engine has a type here; what becomes of every other field is in `container_fields`.
"""

from __future__ import annotations

from typing import Any

from msgspec import Struct, field

Words = list[str] | str  # a command: one word may be sent without its list


class Body(Struct, frozen=True, kw_only=True, rename="pascal"):
    """Unknown fields are passed over, as Docker does."""


class Healthcheck(Body, frozen=True, kw_only=True):
    """`Test` is [], ["NONE"], ["CMD", …] or ["CMD-SHELL", text]; times in nanoseconds, 0 is inherited."""

    test: list[str] = field(default_factory=list)
    interval: int = 0
    timeout: int = 0
    start_period: int = 0
    start_interval: int = 0
    retries: int = 0


class Config(Body, frozen=True, kw_only=True):
    """What an image could say, too."""

    hostname: str = ""
    domainname: str = ""
    user: str = ""
    tty: bool = False
    open_stdin: bool = False
    exposed_ports: dict[str, Any] = field(default_factory=dict)
    env: list[str] = field(default_factory=list)
    cmd: Words | None = None
    healthcheck: Healthcheck | None = None
    image: str = ""
    volumes: dict[str, Any] = field(default_factory=dict)
    working_dir: str = ""
    entrypoint: Words | None = None
    network_disabled: bool = False
    mac_address: str = ""
    labels: dict[str, str] = field(default_factory=dict)
    stop_signal: str = ""
    stop_timeout: int | None = None


class PortBinding(Body, frozen=True, kw_only=True):
    """A port of this host, "" is a free one."""

    host_ip: str = ""
    host_port: str | int = ""


class Restart(Body, frozen=True, kw_only=True):
    """`RestartPolicy`."""

    name: str = ""
    maximum_retry_count: int = 0


class LogConfig(Body, frozen=True, kw_only=True):
    """Where output goes."""

    type: str = ""
    config: dict[str, str] = field(default_factory=dict)


class UlimitBody(Body, frozen=True, kw_only=True):
    """By its short name."""

    name: str = ""
    soft: int = 0
    hard: int = 0


class DeviceBody(Body, frozen=True, kw_only=True):
    """A device of this host; what a container calls it, and may do with it, is its guest's to say."""

    path_on_host: str = ""


class BindOptions(Body, frozen=True, kw_only=True):
    """Of a directory of this host."""

    propagation: str = ""
    non_recursive: bool = False
    create_mountpoint: bool = False
    read_only_non_recursive: bool = False
    read_only_force_recursive: bool = False  # what a read-only mount is anyway


class DriverConfig(Body, frozen=True, kw_only=True):
    """Who makes a volume that is not there."""

    name: str = ""
    options: dict[str, str] = field(default_factory=dict)


class VolumeOptions(Body, frozen=True, kw_only=True):
    """Of a volume, and of one that is made for this mount."""

    no_copy: bool = False
    labels: dict[str, str] = field(default_factory=dict)
    driver_config: DriverConfig = field(default_factory=DriverConfig)
    subpath: str = ""


class TmpfsOptions(Body, frozen=True, kw_only=True):
    """`Mode` is a number, as Go's."""

    size_bytes: int = 0
    mode: int = 0
    options: list[list[str]] = field(default_factory=list)


class ImageOptions(Body, frozen=True, kw_only=True):
    """Of an image that is mounted."""

    subpath: str = ""


class MountBody(Body, frozen=True, kw_only=True):
    """An entry of `Mounts`."""

    type: str = ""
    source: str = ""
    target: str = ""
    read_only: bool = False
    bind_options: BindOptions = field(default_factory=BindOptions)
    image_options: ImageOptions = field(default_factory=ImageOptions)
    volume_options: VolumeOptions = field(default_factory=VolumeOptions)
    tmpfs_options: TmpfsOptions = field(default_factory=TmpfsOptions)


class Limits(Body, frozen=True, kw_only=True):
    """Of HostConfig, what `update` changes, too. Bytes, microseconds, thousands of millionths of a CPU."""

    memory: int = 0
    memory_swap: int = 0
    memory_reservation: int = 0
    nano_cpus: int = 0
    cpu_period: int = 0
    cpu_quota: int = 0
    pids_limit: int | None = None
    restart_policy: Restart | None = None


class HostConfig(Limits, frozen=True, kw_only=True):
    """What is asked of this host."""

    binds: list[str] = field(default_factory=list)
    log_config: LogConfig = field(default_factory=LogConfig)
    network_mode: str = ""
    port_bindings: dict[str, list[PortBinding]] = field(default_factory=dict)
    auto_remove: bool = False
    volumes_from: list[str] = field(default_factory=list)
    console_size: list[int] = field(default_factory=list)
    annotations: dict[str, str] = field(default_factory=dict)
    cap_add: list[str] = field(default_factory=list)
    cap_drop: list[str] = field(default_factory=list)
    dns: list[str] = field(default_factory=list)
    dns_options: list[str] = field(default_factory=list)
    dns_search: list[str] = field(default_factory=list)
    extra_hosts: list[str] = field(default_factory=list)
    group_add: list[str] = field(default_factory=list)
    links: list[str] = field(default_factory=list)
    privileged: bool = False
    publish_all_ports: bool = False
    readonly_rootfs: bool = False
    security_opt: list[str] = field(default_factory=list)
    tmpfs: dict[str, str] = field(default_factory=dict)
    shm_size: int = 0
    sysctls: dict[str, str] = field(default_factory=dict)
    ulimits: list[UlimitBody] = field(default_factory=list)
    devices: list[DeviceBody] = field(default_factory=list)
    mounts: list[MountBody] = field(default_factory=list)
    init: bool = False


class IpamConfig(Body, frozen=True, kw_only=True):
    """Addresses that an endpoint wants."""

    ipv4_address: str = field(default="", name="IPv4Address")
    ipv6_address: str = field(default="", name="IPv6Address")


class Endpoint(Body, frozen=True, kw_only=True):
    """A container in a network: what can be asked for."""

    ipam_config: IpamConfig = field(default_factory=IpamConfig, name="IPAMConfig")
    aliases: list[str] = field(default_factory=list)
    links: list[str] = field(default_factory=list)
    mac_address: str = ""
    gw_priority: int = 0


class Networking(Body, frozen=True, kw_only=True):
    """`NetworkingConfig`: endpoints by the names of their networks."""

    endpoints_config: dict[str, Endpoint] = field(default_factory=dict)


class Create(Config, frozen=True, kw_only=True):
    """The body of `/containers/create`."""

    host_config: HostConfig = field(default_factory=HostConfig)
    networking_config: Networking = field(default_factory=Networking)
