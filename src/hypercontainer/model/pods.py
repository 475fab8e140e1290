# SPDX-License-Identifier: Apache-2.0
"""What a caller asks of a pod as a whole."""

from __future__ import annotations

from typing import Annotated, Any, Literal

from msgspec import Meta, field

from .addresses import check_cidr, check_ip, check_link, check_mac
from .base import Model
from .devices import HostDevice
from .egress import EgressPolicy
from .lifetimes import Span, TtlAction
from .network import Egress, NetworkRequest, Rate
from .security_groups import GROUPS_MAX
from .specs import MIB, ContainerSpec, HostEntry, Isolation, PidMode, PortMapping, check_resolver

SHM_DEFAULT = 64 * MIB
ExitPolicy = Literal["stop", "continue"]
Port = Annotated[int, Meta(ge=1, le=65535)]


class ServiceBackend(Model, frozen=True, kw_only=True):
    """One of the addresses behind a service."""

    host_ip: str
    host_port: Port

    def __post_init__(self) -> None:
        """:raise InvalidAddress: naming it."""
        check_ip(self.host_ip, "address", of=" of a service")


class Service(Model, frozen=True, kw_only=True):
    """An address inside the pod whose connections go to its hosts in turn."""

    service_ip: str
    service_port: Port
    protocol: Literal["tcp", "udp"] = "tcp"
    hosts: list[ServiceBackend] = field(default_factory=list)

    def __post_init__(self) -> None:
        """:raise InvalidAddress: naming it."""
        check_ip(self.service_ip, "address", of=" of a service")


class InterfaceSpec(Model, frozen=True, kw_only=True):
    """A network interface: on a bridge of the host, or the user-mode network without one."""

    bridge: str = ""
    addresses: list[str] = field(default_factory=list)  # CIDR
    gateway: str = ""
    gateway6: str = ""
    mac: str = ""
    mtu: Annotated[int, Meta(ge=0, le=65535)] = 0
    ifname: str = ""  # of the tap on the host
    namespace: str = ""  # network namespace of this host that the tap is in: a name of ip-netns(8), or a path
    device: str = "eth0"  # the interface there whose frames the tap gets

    def __post_init__(self) -> None:
        """:raise InvalidAddress: naming it."""
        for name, what in (
            (self.bridge, "bridge"),
            (self.ifname, "interface name"),
            (self.namespace if not self.namespace.startswith("/") else "", "network namespace"),
            (self.device, "interface name"),
        ):
            if name:
                check_link(name, what)
        for address in self.addresses:
            check_cidr(address, "address", of=" of an interface")
        for gateway in filter(None, (self.gateway, self.gateway6)):
            check_ip(gateway, "gateway")
        if self.mac:
            check_mac(self.mac)


class WhiteLists(Model, frozen=True, kw_only=True):
    """Who may use the published ports, by CIDR; both empty is everyone.

    Internal networks reach the containers' ports, external ones the hosts'.
    """

    internal_networks: list[str] = field(default_factory=list)
    external_networks: list[str] = field(default_factory=list)

    def __post_init__(self) -> None:
        """:raise InvalidAddress: naming it."""
        for network in self.internal_networks + self.external_networks:
            check_cidr(network)


class VolumeRequest(Model, frozen=True, kw_only=True):
    """A volume that the containers of a pod share.

    Without a source it is made with the pod and goes with it. `format` is the
    original's: raw, qcow2, vdi (disk images), vfs (a directory or file of the
    host), nas (NFS), rbd (Ceph); and volume (a named one), tmpfs. Empty is a
    guess from the source.
    """

    name: str
    source: str = ""
    format: Literal["", "raw", "qcow2", "vdi", "vfs", "nas", "rbd", "volume", "tmpfs"] = ""
    fstype: str = ""
    cache: Literal["", "off", "none", "directsync", "writeback", "unsafe", "writethrough"] = ""
    read_only: bool = False
    size: Annotated[int, Meta(ge=0)] = 0  # bytes
    mode: Annotated[int, Meta(ge=0, le=0o7777)] | None = None  # of the root of one that is made, with its group
    gid: Annotated[int, Meta(ge=0, le=(1 << 32) - 2)] = 0
    options: dict[str, str] = field(default_factory=dict)  # of NFS's mount; user and keyring of rbd
    monitors: list[str] = field(default_factory=list)  # of rbd, HOST:PORT


class VolumeSpec(Model, frozen=True, kw_only=True):
    """A named volume to create; empty and 0 are the daemon's defaults."""

    name: str = ""
    driver: Literal["", "block", "directory"] = ""
    size: Annotated[int, Meta(ge=0)] = 0  # bytes
    fstype: str = "ext4"
    format: str = "raw"
    labels: dict[str, str] = field(default_factory=dict)
    options: dict[str, str] = field(default_factory=dict)  # Docker's, that the rest of this was made of: for people
    snapshot: str = ""  # name or id of the volume's snapshot that it begins as; "": it is empty


class PodSpec(Model, frozen=True, kw_only=True):
    """The part of a pod that its containers share."""

    driver: str = ""  # hypervisor of the virtual machine; "" is the daemon's default, until the pod is made
    network: str = ""  # user, none, a network's name, cni:NAME; "" is the daemon's default
    networks: list[NetworkRequest] = field(default_factory=list)
    cni_args: dict[str, str] = field(default_factory=dict)  # what plugins of cni:NAME are told of the pod
    allow: list[Egress] = field(default_factory=list)
    egress: EgressPolicy | None = None  # None: what `allow` says alone
    security_groups: Annotated[list[str], Meta(max_length=GROUPS_MAX)] = field(default_factory=list)  # names
    ingress_rate: Rate = 0  # bits per second to the pod
    egress_rate: Rate = 0
    ttl: Span = 0  # it is stopped then, counted from its start; 0: it goes on
    ttl_action: TtlAction = "stop"  # suspend: it stands still then, and goes on when that is asked for
    idle_timeout: Span = 0  # it is suspended when it has had nothing to do for so long; 0: never
    ports: list[PortMapping] = field(default_factory=list)
    interfaces: list[InterfaceSpec] = field(default_factory=list)
    services: list[Service] = field(default_factory=list)
    white_lists: WhiteLists = field(default_factory=WhiteLists)
    dns: list[str] = field(default_factory=list)
    dns_options: list[str] = field(default_factory=list)
    dns_search: list[str] = field(default_factory=list)
    hosts: list[HostEntry] = field(default_factory=list)
    sysctls: dict[str, str] = field(default_factory=dict)
    devices: list[HostDevice] = field(default_factory=list)  # PCI devices of this host, which it gives up for the time
    shm_size: Annotated[int, Meta(ge=0)] = SHM_DEFAULT  # bytes
    pid: PidMode = "pod"  # of its containers, where they do not say
    exit_policy: ExitPolicy = "stop"  # when the last container has ended
    isolation: Isolation = "default"  # fresh: a virtual machine that shares no memory with others from its start
    secrets: list[str] = field(default_factory=list)  # names; the values are kept apart
    charged: str = ""  # whose use it is: a project of a cluster's, by its id; "" is the tenant's
    given: dict[str, Any] = field(default_factory=dict)  # its front end's own, to be given back: nobody else reads it

    def __post_init__(self) -> None:
        """:raise InvalidAddress: naming it."""
        check_resolver(self.dns, self.dns_search, self.dns_options)


class PodPlan(Model, frozen=True, kw_only=True):
    """A pod to create with all that is in it; 0 and "" are what its containers need, or the daemon chooses."""

    name: str = ""
    hostname: str = ""
    vcpus: int = 0
    memory: int = 0  # bytes
    size: str = ""  # by name, in place of the two
    labels: dict[str, str] = field(default_factory=dict)
    spec: PodSpec = field(default_factory=PodSpec)
    volumes: list[VolumeRequest] = field(default_factory=list)
    containers: list[ContainerSpec] = field(default_factory=list)  # init containers first
    secrets: dict[str, bytes] = field(default_factory=dict)
