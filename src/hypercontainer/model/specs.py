# SPDX-License-Identifier: Apache-2.0
"""What a caller asks for."""

from __future__ import annotations

from typing import Annotated, Any, Literal, get_args

from msgspec import Meta, field

from .addresses import check_ip, check_word
from .base import Model
from .devices import HostDevice
from .egress import EgressPolicy
from .lifetimes import Span, TtlAction
from .network import Egress, NetworkRequest, Rate
from .security_groups import GROUPS_MAX

MIB = 1 << 20
# Below this the guest's kernel and init leave a program nothing to run in.
MEMORY_MIN = 16 * MIB
MEMORY_DEFAULT = 256 * MIB
# What the guest's kernel and init take of the memory that a limit promises to the container.
GUEST_OVERHEAD = 48 * MIB

Name = Annotated[str, Meta(pattern=r"^[a-zA-Z0-9][a-zA-Z0-9_.-]{0,127}$")]
PullPolicy = Literal["missing", "always", "never"]
EnvField = Literal["podIP", "hostIP"]
Isolation = Literal["default", "fresh"]
SeccompProfile = Literal["default", "unconfined"]
PidMode = Literal["container", "pod"]  # whose processes a container sees: its own, or all of the pod


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

    def __post_init__(self) -> None:
        """:raise InvalidAddress: naming it."""
        if self.host_ip:
            check_ip(self.host_ip, "host address")


PIDS_MAX = 1 << 22  # Linux has no more process numbers (PID_MAX_LIMIT)


class Resources(Model, frozen=True, kw_only=True):
    """Limits; 0 means the default."""

    cpus: Annotated[float, Meta(ge=0)] = 0.0
    memory: Annotated[int, Meta(ge=0)] = 0  # bytes
    pids: Annotated[int, Meta(ge=0)] = 0


RestartName = Literal["no", "on-failure", "always", "unless-stopped"]
Condition = Literal["started", "healthy", "completed"]


class RestartPolicy(Model, frozen=True, kw_only=True):
    """Whether an ended container is started again; 0 retries is no limit."""

    name: RestartName = "no"
    max_retries: Annotated[int, Meta(ge=0)] = 0


class ContainerUpdate(Model, frozen=True, kw_only=True):
    """What `update` changes of a container; None is as it is, and 0 no limit but the machine's."""

    cpus: Annotated[float, Meta(ge=0)] | None = None
    memory: Annotated[int, Meta(ge=0)] | None = None  # bytes
    pids: Annotated[int, Meta(ge=0, le=PIDS_MAX)] | None = None
    restart: RestartPolicy | None = None


class HttpCheck(Model, frozen=True, kw_only=True):
    """GET from inside the pod; 200 to 399 is healthy."""

    port: Annotated[int, Meta(ge=1, le=65535)]
    path: str = "/"
    address: str = "127.0.0.1"
    headers: dict[str, str] = field(default_factory=dict)


class TcpCheck(Model, frozen=True, kw_only=True):
    """A connection from inside the pod."""

    port: Annotated[int, Meta(ge=1, le=65535)]
    address: str = "127.0.0.1"


class HealthCheck(Model, frozen=True, kw_only=True):
    """How to learn whether a container is well; one of command, http and tcp. Times in seconds."""

    command: list[str] | None = None
    http: HttpCheck | None = None
    tcp: TcpCheck | None = None
    interval: Annotated[float, Meta(gt=0)] = 30.0
    timeout: Annotated[float, Meta(gt=0)] = 30.0
    retries: Annotated[int, Meta(ge=1)] = 3
    start_period: Annotated[float, Meta(ge=0)] = 0.0
    start_interval: Annotated[float, Meta(gt=0)] = 5.0


class Dependency(Model, frozen=True, kw_only=True):
    """Another container of the pod that must be so far before this one starts."""

    container: str
    condition: Condition = "started"


Propagation = Literal["", "rslave"]


class Mount(Model, frozen=True, kw_only=True):
    """Something mounted in a container.

    `source` is a volume's name, a path of the host for a bind, or an image that is
    mounted for reading; empty is an anonymous volume. A tmpfs has none.
    """

    target: str
    type: Literal["volume", "bind", "tmpfs", "image"] = "volume"
    source: str = ""
    read_only: bool = False
    sub_path: str = ""
    copy_up: bool = True  # an empty volume gets what the image has there
    size: Annotated[int, Meta(ge=0)] = 0  # bytes, of a tmpfs
    mode: Annotated[int, Meta(ge=0, le=0o7777)] = 0o1777  # of a tmpfs
    exec: bool = False  # of a tmpfs: what lies in it may be executed
    uid: Annotated[int, Meta(ge=0, le=0xFFFFFFFE)] = 0  # whose a tmpfs is
    gid: Annotated[int, Meta(ge=0, le=0xFFFFFFFE)] = 0
    make_source: bool = False  # a directory of this host that is not there is made
    propagation: Propagation = ""  # of a directory of this host: rslave has what is mounted below it later, too


class InjectedFile(Model, frozen=True, kw_only=True):
    """A file written into a container before its first start."""

    target: str
    content: bytes
    mode: Annotated[int, Meta(ge=0, le=0o7777)] = 0o755
    uid: Annotated[int, Meta(ge=0)] = 0
    gid: Annotated[int, Meta(ge=0)] = 0


class SecretMount(Model, frozen=True, kw_only=True):
    """A secret of the pod as a file in memory."""

    secret: str
    target: str
    mode: Annotated[int, Meta(ge=0, le=0o7777)] = 0o400
    uid: Annotated[int, Meta(ge=0)] = 0
    gid: Annotated[int, Meta(ge=0)] = 0


LogDriver = Literal["json-file", "none", "k8s-file", "journald", "syslog"]
LOG_DRIVERS: tuple[str, ...] = get_args(LogDriver)


class LogOptions(Model, frozen=True, kw_only=True):
    """Where output goes; "" and 0 are the daemon's default. The sizes are those of the copy that `logs` reads, too."""

    driver: Literal[LogDriver, ""] = ""
    max_size: Annotated[int, Meta(ge=0)] = 0  # bytes
    max_files: Annotated[int, Meta(ge=0)] = 0
    options: dict[str, str] = field(default_factory=dict)  # Docker's others, see `log_options`
    path: str = ""  # instead of the container's own directory


HOST_GATEWAY = "host-gateway"  # in place of an address: this host, as the pod sees it


class HostEntry(Model, frozen=True, kw_only=True):
    """A line of /etc/hosts; `ip` may be HOST_GATEWAY in a request."""

    ip: str
    names: list[str]

    def __post_init__(self) -> None:
        """:raise InvalidAddress: naming it."""
        if self.ip != HOST_GATEWAY:
            check_ip(self.ip)
        for name in self.names:
            check_word(name, "host name")


def check_resolver(servers: list[str], search: list[str], options: list[str]) -> None:
    """What goes into resolv.conf(5).

    :raise InvalidAddress: naming it.
    """
    for server in servers:
        check_ip(server)
    for word in (*search, *options):
        check_word(word, "word of resolv.conf")


class StartHook(Model, frozen=True, kw_only=True):
    """A program of the container's that is run in it before its own, each time it starts; the start fails with it."""

    path: Annotated[str, Meta(pattern="^/")]
    args: list[str] = field(default_factory=list)  # with its name; empty: its path
    env: list[str] = field(default_factory=list)  # all of it
    input: str = ""  # what it reads
    timeout: Annotated[float, Meta(ge=0.001, le=3600)] = 120.0  # seconds


class ContainerSpec(Model, frozen=True, kw_only=True):
    """A container to create; what is None or empty comes from the image."""

    image: str
    rootfs: str = ""  # a directory of this host that is its root, in place of an image
    name: str = ""
    command: list[str] | None = None
    entrypoint: list[str] | None = None
    env: list[str] = field(default_factory=list)
    env_fields: dict[str, EnvField] = field(default_factory=dict)  # variables of `env` whose value the daemon fills in
    expand: bool = False  # $(NAME) in env, command and entrypoint, as Kubernetes
    workdir: str = ""
    user: str = ""
    non_root: bool = False  # refuse to run as root
    groups: list[str] = field(default_factory=list)
    only_groups: bool = False  # and none that the image's /etc/group has for the user
    hostname: str = ""
    domainname: str = ""
    tty: bool = False
    stdin: bool = False
    read_only: bool = False
    resources: Resources = field(default_factory=Resources)
    size: str = ""  # of its pod, by name, in place of cpus and memory
    labels: dict[str, str] = field(default_factory=dict)
    ulimits: list[Ulimit] = field(default_factory=list)
    sysctls: dict[str, str] = field(default_factory=dict)
    cap_add: list[str] = field(default_factory=list)
    cap_drop: list[str] = field(default_factory=list)
    cap_ambient: list[str] = field(default_factory=list)  # of these, what its programs inherit, who is not root, too
    no_new_privileges: bool = False
    seccomp: SeccompProfile = "default"  # Docker's default profile; a privileged container has none
    seccomp_profile: str = ""  # one's own in its place, as Docker and OCI write it, in JSON
    masked_paths: list[str] | None = None  # None: Docker's; of a privileged container none
    readonly_paths: list[str] | None = None
    ports: list[PortMapping] = field(default_factory=list)
    expose: list[str] = field(default_factory=list)  # PORT/PROTOCOL, beside the image's
    publish_all: bool = False  # what is exposed, on free ports
    network: str = ""  # user, none, a network's name, cni:NAME; "" is the daemon's default
    networks: list[NetworkRequest] = field(default_factory=list)  # in full, or several
    allow: list[Egress] = field(default_factory=list)  # empty: every destination
    egress: EgressPolicy | None = None  # the hosts that it may reach, by name; None: what `allow` says alone
    security_groups: Annotated[list[str], Meta(max_length=GROUPS_MAX)] = field(default_factory=list)  # names
    dns: list[str] = field(default_factory=list)
    dns_search: list[str] = field(default_factory=list)
    dns_options: list[str] = field(default_factory=list)
    hosts: list[HostEntry] = field(default_factory=list)
    ingress_rate: Rate = 0  # bits per second to the pod
    egress_rate: Rate = 0
    ttl: Span = 0  # it is stopped then, counted from its start; 0: it goes on
    ttl_action: TtlAction = "stop"  # suspend: it stands still then, and goes on when that is asked for
    idle_timeout: Span = 0  # it is suspended when it has had nothing to do for so long; 0: never
    devices: list[HostDevice] = field(default_factory=list)  # PCI devices of this host, of a pod of its own
    pod: str = ""  # name or id of the pod to join; "" is a pod of its own
    mounts: list[Mount] = field(default_factory=list)
    volumes_from: list[str] = field(default_factory=list)  # CONTAINER[:ro|rw], whose mounts it has, too
    links: list[str] = field(default_factory=list)  # CONTAINER[:ALIAS], whose addresses it knows by these names
    files: list[InjectedFile] = field(default_factory=list)
    secrets: list[SecretMount] = field(default_factory=list)
    health: HealthCheck | None = None
    no_health: bool = False  # not even the image's
    liveness: HealthCheck | None = None  # one that fails restarts the container
    restart: RestartPolicy = field(default_factory=RestartPolicy)
    depends_on: list[Dependency] = field(default_factory=list)
    init: bool = False  # runs to its end before the pod's other containers start
    # "": what the pod says; its own in a pod of its own. container:NAME: those of another one in its pod.
    pid: Annotated[str, Meta(pattern="^(|pod|container|container:[a-zA-Z0-9][a-zA-Z0-9_.-]*)$")] = ""
    run_init: bool = False  # its program runs below an init, which hands on signals and reaps
    privileged: bool = False
    shm_size: Annotated[int, Meta(ge=0)] = 0  # bytes
    cache: str = ""  # QEMU's cache mode of the root disks
    driver: str = ""  # hypervisor of the virtual machine; "" is the daemon's default
    isolation: Isolation = "default"  # fresh: a virtual machine that shares no memory with others from its start
    log: LogOptions = field(default_factory=LogOptions)
    aliases: list[str] = field(default_factory=list)  # further names in the pod's /etc/hosts
    start_hooks: Annotated[list[StartHook], Meta(max_length=16)] = field(default_factory=list)
    base: str = ""  # a stopped container whose files this one begins with
    stop_signal: str = ""
    stop_timeout: Annotated[int, Meta(ge=0)] = 10  # seconds
    auto_remove: bool = False
    pull: PullPolicy = "missing"
    platform: str = ""
    bound: bool = False  # to a client: when none that is bound to it is back after a restart of hyperd, it is killed
    annotations: dict[str, str] = field(default_factory=dict)  # for who reads them; nothing here does
    console_size: tuple[int, int] = (0, 0)  # rows and columns of its terminal, where a start does not say
    given: dict[str, Any] = field(default_factory=dict)  # its front end's own, to be given back: nobody else reads it

    def __post_init__(self) -> None:
        """:raise InvalidAddress: naming it."""
        check_resolver(self.dns, self.dns_search, self.dns_options)


class ExecSpec(Model, frozen=True, kw_only=True):
    """A further process in a running container."""

    command: list[str]
    env: list[str] = field(default_factory=list)
    workdir: str = ""
    user: str = ""
    groups: list[str] | None = None  # None: the container's, or with a user of its own none
    capabilities: list[str] | None = None  # all that it has; None: the container's
    ambient: list[str] | None = None  # of these, what its programs inherit, who is not root, too; None: the container's
    no_new_privileges: bool = False  # beside the container's
    tty: bool = False
    stdin: bool = False
    stdout: bool = True  # whether who attaches gets it
    stderr: bool = True
    detach_keys: str = ""  # of a terminal, where its start says nothing else
    privileged: bool = False
    detach: bool = False
