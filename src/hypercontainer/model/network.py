# SPDX-License-Identifier: Apache-2.0
"""Networks of pods: what is asked for, and what there is."""

from __future__ import annotations

from typing import Annotated

from msgspec import UNSET, Meta, field

from .addresses import check_cidr, check_ip, check_link, check_mac, check_word
from .base import Model
from .principal import Tenant

DEFAULT_NETWORK = "bridge"  # the daemon's own, by Docker's name
USER_MODE, USER_MODE_OPEN = (
    "user",
    "user:host-loopback",
)  # the latter reaches services on the host's loopback, as its gateway
USER_MODES = (USER_MODE, USER_MODE_OPEN)
CNI = "cni:"  # before the name of a network that CNI plugins make
Rate = Annotated[int, Meta(ge=0)]  # bits per second, 0 is no limit


class NetworkSpec(Model, frozen=True, kw_only=True):
    """A network to create; what is empty the daemon chooses."""

    name: str
    subnets: list[str] = field(default_factory=list)  # one IPv4 and one IPv6 at most, CIDR
    gateways: list[str] = field(default_factory=list)
    ip_range: str = ""  # of the IPv4 subnet: where addresses are taken from
    internal: bool = False  # no way out
    ipv6: bool = False
    mtu: Annotated[int, Meta(ge=0, le=65535)] = 0
    labels: dict[str, str] = field(default_factory=dict)

    def __post_init__(self) -> None:
        """:raise InvalidAddress: naming it."""
        for subnet in (*self.subnets, *filter(None, [self.ip_range])):
            check_cidr(subnet, "subnet")
        for gateway in self.gateways:
            check_ip(gateway, "gateway")


class Network(Model, frozen=True, kw_only=True):
    """A network: a bridge of the host with a subnet."""

    id: str
    name: str
    created_at: str
    bridge: str
    subnet: str
    gateway: str
    subnet6: str = ""
    gateway6: str = ""
    ip_range: str = ""
    internal: bool = False
    mtu: int = 1500
    labels: dict[str, str] = field(default_factory=dict)
    owner: str = ""  # the principal that made it; "" is the daemon, or before owners were recorded
    tenant: Tenant = UNSET


class NetworkRequest(Model, frozen=True, kw_only=True):
    """A network that a pod wants to be in; what is empty the daemon chooses."""

    name: str
    ip: str = ""
    ip6: str = ""
    mac: str = ""
    aliases: list[str] = field(default_factory=list)

    def __post_init__(self) -> None:
        """:raise InvalidAddress: naming it."""
        if self.ip:
            check_ip(self.ip, version=4)
        if self.ip6:
            check_ip(self.ip6, version=6)
        if self.mac:
            check_mac(self.mac)
        for alias in self.aliases:
            check_word(alias, "alias")


class Egress(Model, frozen=True, kw_only=True):
    """A destination that a pod may reach; port 0 is every port."""

    cidr: str
    port: Annotated[int, Meta(ge=0, le=65535)] = 0

    def __post_init__(self) -> None:
        """:raise InvalidAddress: naming it."""
        check_cidr(self.cidr, "destination")


class Attachment(Model, frozen=True, kw_only=True):
    """A pod's NIC in a network."""

    network: str
    interface: str  # in the guest
    tap: str  # on the host
    mac: str
    ip: str
    ip6: str = ""
    aliases: list[str] = field(default_factory=list)
    network_id: str = ""  # "": the record is an earlier hyperd's, which had no projects

    def is_of(self, network: Network) -> bool:
        """Whether it is in this one. Names are a tenant's."""
        if self.network_id:
            return self.network_id == network.id
        return self.network == network.name and not network.tenant

    def __post_init__(self) -> None:
        """:raise InvalidAddress: naming it."""
        check_link(self.tap)
        check_mac(self.mac)
        check_ip(self.ip, version=4)
        if self.ip6:
            check_ip(self.ip6, version=6)


class CniState(Model, frozen=True, kw_only=True):
    """What CNI plugins made for a pod that runs."""

    network: str
    namespace: str
    mac: str
    mtu: int = 0
    addresses: list[str] = field(default_factory=list)  # CIDR
    gateways: list[str] = field(default_factory=list)
    dns: list[str] = field(default_factory=list)


class NetworkInfo(Model, frozen=True, kw_only=True):
    """A network with who is in it: names of pods and their addresses."""

    network: Network
    pods: dict[str, list[str]]
