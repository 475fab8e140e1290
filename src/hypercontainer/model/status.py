# SPDX-License-Identifier: Apache-2.0
"""What the daemon tells about its objects. Times are RFC 3339 in UTC, "" when not yet."""

from __future__ import annotations

from enum import StrEnum
from typing import Any, Literal

import msgspec
from msgspec import UNSET, field

from .base import Model
from .identity import Identity
from .layout import MachineLayout
from .network import Attachment, CniState
from .pods import PodSpec
from .principal import Tenant
from .specs import GUEST_OVERHEAD, ContainerSpec, HealthCheck, Mount, PortMapping


class ContainerStatus(StrEnum):
    """A container's life, in Docker's words."""

    CREATED = "created"
    RUNNING = "running"
    PAUSED = "paused"
    SUSPENDED = "suspended"  # with its pod, whose memory is on the disk
    RESTARTING = "restarting"  # waits until it is started again
    EXITED = "exited"
    REMOVING = "removing"


class HealthRecord(Model, frozen=True, kw_only=True):
    """One run of a health check."""

    started_at: str
    ended_at: str
    exit_code: int
    output: str


class Health(Model, frozen=True, kw_only=True):
    """What the health checks found."""

    status: str = "starting"  # healthy, unhealthy
    failing_streak: int = 0
    log: list[HealthRecord] = field(default_factory=list)  # the last five


class ContainerState(Model, frozen=True, kw_only=True):
    """The changing part of a container."""

    status: ContainerStatus = ContainerStatus.CREATED
    starting: bool = False  # a start has begun, and has not come to its end
    pid: int = 0  # inside the pod
    identity: Identity | None = None  # None: it was not started, or by an older guest, which does not say
    exit_code: int = 0
    oom_killed: bool = False
    error: str = ""
    started_at: str = ""
    finished_at: str = ""
    restart_count: int = 0
    unresponsive: bool = False  # its machine has not answered for half a minute
    log_error: str = ""  # why its log cannot be written now: its output is held back
    stopped_by_user: bool = False  # what `unless-stopped` looks at
    ended_with_daemon: bool = False  # hyperd stopped it when it ended: by its policy the next one starts it
    health: Health | None = None


class Process(Model, frozen=True, kw_only=True):
    """The main process as resolved from image and spec."""

    args: list[str]
    env: list[str]
    cwd: str
    user: str
    stop_signal: int
    filter: bytes = b""  # of its own seccomp profile: an array of struct sock_filter; empty: it has none
    filter_flags: int = 0  # of seccomp(2)


class MountPoint(Model, frozen=True, kw_only=True):
    """A mount as resolved: `volume` is the pod's volume that it takes, "" for a tmpfs."""

    mount: Mount
    volume: str
    anonymous: bool = False  # the volume was made for this mount, and goes with its container where that is asked


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
    mounts: list[MountPoint] = field(default_factory=list)
    health: HealthCheck | None = None  # the specification's, or the image's
    used: bool = False  # its disk has been in a machine
    owner: str = ""  # the principal that made it; "" is the daemon, or before owners were recorded
    tenant: Tenant = UNSET


class Vm(Model, frozen=True, kw_only=True):
    """What is needed to find a pod's virtual machine again."""

    driver: str  # that launched it
    pid: int  # its process on this host, for people
    directory: str
    token: str  # hex, opens the next connection to the guest
    user: int = 0  # number of the user as which the hypervisor runs; 0: launched by an earlier hyperd
    allotment: str = ""  # name of what it has of this host for itself; "": launched by an earlier hyperd
    handle: dict[str, Any] = field(default_factory=dict)  # only the driver reads it; {}: written by hyperd before 0.2
    pid_started: int = 0  # of such a record
    accelerator: str = ""
    machine_type: str = ""  # and why it has that one; "" where there is no choice
    devices: dict[str, int] = field(default_factory=dict)  # PCI devices of this host -> their groups of the IOMMU
    processes: dict[str, int] = field(default_factory=dict)  # container -> process number
    built: list[str] = field(default_factory=list)  # containers that the guest has
    nics: dict[str, str] = field(default_factory=dict, name="cards")  # taps in networks, spares too -> MAC addresses
    spares: list[str] = field(default_factory=list)  # those of these taps that are made when the pod joins a network
    disks: list[str] = field(default_factory=list)  # serial numbers of what is plugged in
    disk_names: dict[str, str] = field(default_factory=dict)  # of a clone's: what the guest calls them
    volumes: dict[str, str] = field(default_factory=dict)  # mounted ones -> what the guest calls them
    # Directories of the host in the tree that it is served, in their names' order; None: launched by an earlier hyperd.
    directories: list[str] | None = None
    server: list[int] = field(default_factory=list)  # of that tree: its number, and its start in the host's clock ticks
    late: dict[str, str] = field(default_factory=dict)  # directories that were added to it -> their names there
    user_network: str = ""  # slirp or passt; "": it has none, or the record is an earlier hyperd's
    layout: MachineLayout | None = None  # None: launched by an earlier hyperd
    saving: bool = False  # it was being saved when this was written: it, and programs in it, may stand still
    ports_in_change: list[PortMapping] = field(default_factory=list)  # being published, or taken back, at that time


class PodStatus(StrEnum):
    """A pod's life."""

    CREATED = "created"
    STARTING = "starting"
    RUNNING = "running"
    PAUSED = "paused"
    SUSPENDED = "suspended"  # its memory is on the disk, and it has no machine
    STOPPING = "stopping"
    EXITED = "exited"
    FAILED = "failed"  # an init container or a start failed


class PodVolume(Model, frozen=True, kw_only=True):
    """A volume of a pod as resolved; it is mounted once and bound into containers.

    `kind` says what `source` is: a `directory` or file of this host, a `disk`
    image, `nfs` SERVER:/PATH, `rbd` POOL/IMAGE, the id of an `image` of the store,
    or nothing for `tmpfs`.
    """

    name: str
    kind: str
    source: str = ""
    named: str = ""  # the managed volume behind it
    anonymous: bool = False  # removed with the pod
    declared: bool = False  # by the pod's specification, not by a container's mount
    read_only: bool = False
    format: str = "raw"
    fstype: str = "auto"
    cache: str = ""
    size: int = 0  # bytes, of a tmpfs, or that a disk may grow to which goes with the pod
    options: dict[str, str] = field(default_factory=dict)
    monitors: list[str] = field(default_factory=list)


class Pod(Model, frozen=True, kw_only=True):
    """One VM and its containers."""

    id: str
    name: str
    created_at: str
    hostname: str
    vcpus: int
    memory: int  # bytes of guest memory
    size: str = ""  # by whose name it was asked for; "": by numbers, or by nothing
    vm: Vm | None = None
    architecture: str = ""  # of its machine's processors, by OCI's name; "": the host's, and made before that was kept
    driver_reason: str = ""  # why it has the driver of its specification; "": made before that was kept
    implicit: bool = False  # the pod of one container, which goes with it
    spec: PodSpec = field(default_factory=PodSpec)
    labels: dict[str, str] = field(default_factory=dict)
    volumes: list[PodVolume] = field(default_factory=list)
    ports: list[PortMapping] = field(default_factory=list)  # with the host ports in force
    attachments: list[Attachment] = field(default_factory=list)  # to networks of this host
    cni: CniState | None = None  # while it runs in a network of CNI's
    snapshot: str = ""  # id of the one that it was saved as last, or went on from; it may be gone
    status: PodStatus = PodStatus.CREATED
    error: str = ""
    started_at: str = ""
    finished_at: str = ""
    ttl_from: str = ""  # when its ttl is counted from, if that is later than its start
    owner: str = ""  # the principal that made it; "" is the daemon, or before owners were recorded
    tenant: Tenant = UNSET

    @property
    def promised(self) -> int:
        """Bytes of memory that were asked for: of a size what it is for containers, without the guest's own part."""
        return self.memory - GUEST_OVERHEAD if self.size else self.memory


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
    implicit: bool = False  # of one container of its own
    labels: dict[str, str] = field(default_factory=dict)
    error: str = ""
    ports: list[PortMapping] = field(default_factory=list)
    ends_at: str = ""  # when its ttl is over; "": it has none, or does not run


class PodDetails(Model, frozen=True, kw_only=True):
    """A pod as `inspect` shows it."""

    pod: Pod
    containers: list[Container]
    warnings: list[str] = field(default_factory=list)  # what who made it should know, a sentence each


class Volume(Model, frozen=True, kw_only=True):
    """A named volume."""

    name: str
    created_at: str
    driver: str  # block or directory
    path: str  # of its disk image or directory
    size: int = 0  # bytes that a block volume may grow to
    fstype: str = ""
    format: str = ""
    labels: dict[str, str] = field(default_factory=dict)
    options: dict[str, str] = field(default_factory=dict)
    anonymous: bool = False  # nobody gave it its name
    owner: str = ""  # the principal that made it; "" is the daemon, or before owners were recorded
    tenant: Tenant = UNSET


class VolumeInfo(Model, frozen=True, kw_only=True):
    """A volume with who uses it."""

    volume: Volume
    used_by: list[str]  # names of pods
    disk_usage: int  # bytes


class Pruned(Model, frozen=True, kw_only=True):
    """What a prune removed."""

    removed: list[str] = field(default_factory=list)
    freed: int = 0  # bytes


class ContainerSize(Model, frozen=True, kw_only=True):
    """Bytes of the disk: of what a container has written, and of that and its image together."""

    own: int
    virtual: int


class ExitCode(Model, frozen=True, kw_only=True):
    """The end of a process, as shells report it."""

    exit_code: int


PathKind = Literal["file", "directory", "link", "character", "block", "fifo"]


class PathStat(Model, frozen=True, kw_only=True):
    """A path in a container; `link_target` of a symbolic link."""

    name: str
    size: int  # bytes
    mode: int
    mtime: int  # seconds since the epoch
    is_dir: bool
    link_target: str
    kind: PathKind = "file"
    uid: int = 0
    gid: int = 0


class Change(Model, frozen=True, kw_only=True):
    """One line of `diff`: A added, C changed, D deleted."""

    kind: str
    path: str


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


_AUDITED = frozenset(
    ("name", "image", "user", "role", "scopes", "organisation", "old", "month", "total", "amount", "percent", "signal")
)  # attributes of events that the scope `audit` may see


class Event(Model, frozen=True, kw_only=True):
    """Something that happened. No two have the same time, so that it says also which of them one has seen."""

    time: str  # with nanoseconds
    time_nano: int  # the same, since the epoch
    type: str  # container, image, network, pod, volume
    action: str
    id: str
    attributes: dict[str, str] = field(default_factory=dict)
    principal: str = ""  # who asked for it; "" when it came about by itself
    labels: dict[str, str] = field(default_factory=dict)  # of what it happened to
    tenant: Tenant = UNSET  # whose it is

    def told(self, *, whole: bool) -> Event:
        """Not whole it is without what programs and people wrote: labels, commands, errors."""
        if whole:
            return self
        kept = {name: value for name, value in self.attributes.items() if name in _AUDITED}
        return msgspec.structs.replace(self, labels={}, attributes=kept)
