# SPDX-License-Identifier: Apache-2.0
"""The podfile: one pod as JSON or YAML.

Keys are HyperContainer 1.1's, and further ones in their manner. As there, the
case of a key does not matter. `docs/podfile.md` explains each field.
"""

from __future__ import annotations

from typing import Annotated, Literal

import msgspec
from msgspec import Meta, field

Count = Annotated[int, Meta(ge=0)]
Size = Count | str  # MB, or a text such as 512m
Duration = Annotated[int, Meta(ge=0)] | Annotated[float, Meta(ge=0)] | str  # seconds, or a text such as 1m30s
Period = Annotated[int, Meta(gt=0)] | Annotated[float, Meta(gt=0)] | str  # a Duration above 0
Port = Annotated[int, Meta(ge=1, le=65535)]
Perm = Annotated[int, Meta(ge=0, le=0o7777)] | str  # octal text, or a number as it is
PortNumber = int | str  # a number, or a range 8000-8010
Restart = Literal["never", "onFailure", "always", "unlessStopped"]
Protocol = Literal["tcp", "udp"]
Format = Literal["", "raw", "qcow2", "vdi", "vfs", "nas", "rbd", "volume", "tmpfs"]
Cache = Literal["", "off", "none", "directsync", "writeback", "unsafe", "writethrough"]
Pid = Literal["pod", "container"]


class Part(msgspec.Struct, kw_only=True, frozen=True, forbid_unknown_fields=True, rename="camel"):
    """Immutable, strict about unknown keys, camelCase."""


class Resource(Part, frozen=True, kw_only=True):
    """The size of the pod's machine, by a name or in numbers; 0 is what its containers need."""

    size: str = ""
    vcpu: int = 0
    memory: int | str = 0


class Log(Part, frozen=True, kw_only=True):
    """Where output goes; `config` has the driver's options, max-size and max-file among them."""

    type: Literal["", "json-file", "none", "k8s-file", "journald", "syslog"] = ""
    config: dict[str, str] = field(default_factory=dict)


class Env(Part, frozen=True, kw_only=True):
    """An environment variable; `field` has the daemon fill in the value."""

    env: str
    value: str | int | float | bool = ""
    field: Literal["", "podIP", "hostIP"] = ""


class User(Part, frozen=True, kw_only=True):
    """Names or numbers, resolved in the container."""

    name: str | int = ""
    group: str | int = ""
    additional_groups: list[str | int] = field(default_factory=list)


class VolumeOption(Part, frozen=True, kw_only=True):
    """Of rbd."""

    user: str = ""
    keyring: str = ""
    monitors: list[str] = field(default_factory=list)


class Volume(Part, frozen=True, kw_only=True):
    """A volume that containers of the pod can mount."""

    name: str
    source: str = ""
    format: Format = ""
    fstype: str = ""
    cache: Cache = ""
    option: VolumeOption = field(default_factory=VolumeOption)
    size: Size = 0
    read_only: bool = False
    mount_options: dict[str, str | int] = field(default_factory=dict)
    perm: Perm = ""
    group: str | int = 0


class VolumeMount(Part, frozen=True, kw_only=True):
    """A volume at a path; `detail` defines it in place."""

    path: str
    volume: str = ""
    read_only: bool = False
    sub_path: str = ""
    no_copy: bool = False
    propagation: Literal["", "rslave"] = ""
    detail: Volume | None = None


class File(Part, frozen=True, kw_only=True):
    """Content for containers, in place or from a URI (http, https, file)."""

    name: str
    encoding: Literal["", "raw", "base64"] = ""
    uri: str = ""
    content: str = ""


class FileMount(Part, frozen=True, kw_only=True):
    """A file at a path; a path that ends with / gets the file's name. `detail` defines it in place."""

    path: str
    filename: str = ""
    perm: Perm = "0755"
    user: str | int = 0
    group: str | int = 0
    detail: File | None = None


class ContainerPort(Part, frozen=True, kw_only=True):
    """A published port; it is the pod's."""

    container_port: PortNumber
    host_port: PortNumber = 0
    service_port: int = 0
    protocol: Protocol = "tcp"


class PortMapping(Part, frozen=True, kw_only=True):
    """A published port or range of the pod."""

    container_port: PortNumber
    host_port: PortNumber = ""
    host_ip: Annotated[str, Meta(description="an address of this host")] = field(default="", name="hostIP")
    protocol: Protocol = "tcp"


class WhiteLists(Part, frozen=True, kw_only=True):
    """CIDRs that may use the published ports."""

    internal_networks: list[str] = field(default_factory=list)
    external_networks: list[str] = field(default_factory=list)


class Interface(Part, frozen=True, kw_only=True):
    """A network interface: on a bridge of the host, or the user-mode network without one."""

    id: str = ""
    bridge: str = ""
    ip: str = ""
    ifname: str = ""
    mac: str = ""
    mtu: Annotated[int, Meta(ge=0, le=65535)] = 0
    gateway: str = ""


class ServiceHost(Part, frozen=True, kw_only=True):
    """One of the addresses behind a service."""

    host_ip: str = field(name="hostIP")
    host_port: Port


class Service(Part, frozen=True, kw_only=True):
    """An address inside the pod whose connections go to its hosts in turn."""

    service_ip: str = field(name="serviceIP")
    service_port: Port
    protocol: Protocol = "tcp"
    hosts: list[ServiceHost] = field(default_factory=list)


class Ulimit(Part, frozen=True, kw_only=True):
    """A resource limit; -1 is unlimited."""

    name: str
    hard: int
    soft: int | None = None


class HttpCheck(Part, frozen=True, kw_only=True):
    """GET from inside the pod."""

    port: Port
    path: str = "/"
    address: str = "127.0.0.1"
    headers: dict[str, str] = field(default_factory=dict)


class TcpCheck(Part, frozen=True, kw_only=True):
    """A connection from inside the pod."""

    port: Port
    address: str = "127.0.0.1"


class HealthCheck(Part, frozen=True, kw_only=True):
    """One of command, shell, http and tcp."""

    command: list[str] | None = None
    shell: str = ""
    http: HttpCheck | None = None
    tcp: TcpCheck | None = None
    interval: Period = 30
    timeout: Period = 30
    retries: Annotated[int, Meta(ge=1)] = 3
    start_period: Duration = 0
    start_interval: Period = 5


class Dependency(Part, frozen=True, kw_only=True):
    """Another container of the pod that must be so far first."""

    container: str
    condition: Literal["started", "healthy", "completed"] = "started"


class Limits(Part, frozen=True, kw_only=True):
    """What a container may use; 0 is no limit of its own."""

    cpus: Annotated[float, Meta(ge=0)] = 0
    memory: Size = 0
    pids: Count = 0


class SecretMount(Part, frozen=True, kw_only=True):
    """A secret of the pod as a file in memory; the path is /run/secrets/NAME if none is given."""

    secret: str
    path: str = ""
    perm: Perm = "0400"
    user: str | int = 0
    group: str | int = 0


class Tmpfs(Part, frozen=True, kw_only=True):
    """A file system in memory."""

    path: str
    size: Size = 0
    perm: Perm = "1777"
    read_only: bool = False


class Capabilities(Part, frozen=True, kw_only=True):
    """Beside Docker's default set."""

    add: list[str] = field(default_factory=list)
    drop: list[str] = field(default_factory=list)


class Container(Part, frozen=True, kw_only=True):
    """A container of the pod; what is not given comes from its image."""

    image: str
    platform: str = ""
    name: str = ""
    id: str = ""
    workdir: str = ""
    command: list[str] | None = None
    entrypoint: list[str] | None = None
    envs: list[Env] = field(default_factory=list)
    tty: bool = False
    user: User = field(default_factory=User)
    non_root: bool = False
    expand: bool = False
    volumes: list[VolumeMount] = field(default_factory=list)
    files: list[FileMount] = field(default_factory=list)
    ports: list[ContainerPort] = field(default_factory=list)
    stop_signal: str = ""
    stop_timeout: Duration = 10
    ulimits: list[Ulimit] = field(default_factory=list)
    labels: dict[str, str] = field(default_factory=dict)
    log_path: str = ""
    log: Log | None = None
    read_only: bool = False
    cache: Cache = ""
    restart_policy: Restart | None = None
    max_retries: Count = 0
    sysctl: dict[str, str | int] = field(default_factory=dict)
    depends_on: list[Dependency] = field(default_factory=list)
    health_check: HealthCheck | None = None
    liveness_check: HealthCheck | None = None
    limits: Limits = field(default_factory=Limits)
    secrets: list[SecretMount] = field(default_factory=list)
    tmpfs: list[Tmpfs] = field(default_factory=list)
    capabilities: Capabilities = field(default_factory=Capabilities)
    privileged: bool = False
    no_new_privileges: bool = False
    seccomp: Literal["default", "unconfined"] = "default"
    seccomp_profile: str = ""  # one of the author's in its place: a path, for `load`, or the text
    pid: Pid | None = None
    init: bool = False
    stdin: bool = False
    aliases: list[str] = field(default_factory=list)


class Secret(Part, frozen=True, kw_only=True):
    """A secret: its content, or the file or environment variable of the caller that has it."""

    name: str
    encoding: Literal["", "raw", "base64"] = ""
    content: str = ""
    file: str = ""
    env: str = ""


class InjectedSecret(Part, frozen=True, kw_only=True):
    """A secret of the podfile's that goes to a host, and into no container."""

    secret: str
    host: str
    port: int = 443
    header: str = ""
    env: str = ""


class Host(Part, frozen=True, kw_only=True):
    """A line of /etc/hosts."""

    ip: str
    names: list[str]


class NetworkMount(Part, frozen=True, kw_only=True):
    """A network of this host that the pod is in."""

    name: str
    ip: str = ""
    ip6: str = ""
    mac: str = ""
    aliases: list[str] = field(default_factory=list)


class Traffic(Part, frozen=True, kw_only=True):
    """What comes to a pod and leaves it: of a compose file, which has nothing like it, too."""

    allow: list[str] = field(default_factory=list)
    allow_hosts: list[str] = field(default_factory=list)
    egress: Literal["", "open", "none"] = ""
    security_groups: list[str] = field(default_factory=list)
    inject_secrets: list[InjectedSecret] = field(default_factory=list)
    ingress_rate: int | str = 0
    egress_rate: int | str = 0


class Podfile(Traffic, frozen=True, kw_only=True):
    """One pod: a virtual machine and the containers in it."""

    id: str = ""
    hostname: str = ""
    type: Literal["", "pod"] = ""
    restart_policy: Restart = "never"
    exit_policy: Literal["stop", "continue"] = "stop"
    pid: Pid = "pod"
    driver: str = ""
    tty: bool = False
    labels: dict[str, str] = field(default_factory=dict)
    resource: Resource = field(default_factory=Resource)
    log: Log = field(default_factory=Log)
    dns: list[str] = field(default_factory=list)
    dns_options: list[str] = field(default_factory=list)
    dns_search: list[str] = field(default_factory=list)
    hosts: list[Host] = field(default_factory=list)
    network: str = ""
    networks: list[NetworkMount] = field(default_factory=list)
    init_containers: list[Container] = field(default_factory=list)
    containers: list[Container] = field(default_factory=list)
    files: list[File] = field(default_factory=list)
    volumes: list[Volume] = field(default_factory=list)
    secrets: list[Secret] = field(default_factory=list)
    interfaces: list[Interface] = field(default_factory=list)
    services: list[Service] = field(default_factory=list)
    portmappings: list[PortMapping] = field(default_factory=list)
    portmapping_white_lists: WhiteLists = field(default_factory=WhiteLists)
    sysctls: dict[str, str | int] = field(default_factory=dict)
    devices: list[str] = field(default_factory=list)
    shm_size: Size = 64
    ttl: Duration = 0
    idle_timeout: Duration = 0
