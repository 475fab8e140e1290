# SPDX-License-Identifier: Apache-2.0
"""How networks look to Docker's clients.

`bridge`, `host` and `none` are always there. `bridge` is what a container has that names no network: a network of
this host, or without rights for one the hypervisor's user-mode network, in which each is alone. `host` is there because
clients look for it; no virtual machine can be in it.
"""

from __future__ import annotations

import hashlib
from collections.abc import Iterable, Iterator
from ipaddress import ip_network
from typing import Any

import msgspec

from ..model.network import DEFAULT_NETWORK, Attachment
from ..model.network import Network as Record
from ..model.states import UP
from ..model.status import Container, Pod
from ..network import usermode

HOST, NONE = "host", "none"
PREDEFINED = DEFAULT_NETWORK, HOST, NONE
_BEGINNING = "1970-01-01T00:00:00Z"
_MTU = "com.docker.network.driver.mtu"
_BRIDGE = "com.docker.network.bridge.name"
_OF_DEFAULT = {
    "com.docker.network.bridge.default_bridge": "true",
    "com.docker.network.bridge.enable_icc": "true",
    "com.docker.network.bridge.enable_ip_masquerade": "true",
    "com.docker.network.bridge.host_binding_ipv4": "0.0.0.0",
}
_KIND = "org.hypercontainer.network"  # an option that says what it really is


class Ipam(msgspec.Struct, kw_only=True):
    """Whose addresses are used; without keys in capitals only where Docker has none."""

    driver: str = msgspec.field(default="default", name="Driver")
    options: dict[str, str] | None = msgspec.field(default=None, name="Options")
    config: list[dict[str, Any]] | None = msgspec.field(default=None, name="Config")


class Network(msgspec.Struct, kw_only=True, rename="pascal"):
    """What `docker network inspect` shows."""

    name: str
    id: str
    created: str
    scope: str = "local"
    driver: str = "bridge"
    enable_ipv4: bool = msgspec.field(default=True, name="EnableIPv4")
    enable_ipv6: bool = msgspec.field(default=False, name="EnableIPv6")
    ipam: Ipam = msgspec.field(default_factory=Ipam, name="IPAM")
    internal: bool = False
    attachable: bool = False
    ingress: bool = False
    config_from: dict[str, str] = msgspec.field(default_factory=lambda: {"Network": ""})
    config_only: bool = False
    containers: dict[str, dict[str, str]] = msgspec.field(default_factory=dict)
    options: dict[str, str] = msgspec.field(default_factory=dict)
    labels: dict[str, str] = msgspec.field(default_factory=dict)


def view(record: Record) -> Network:
    """Of a network of this host."""
    config: list[dict[str, Any]] = [{"Subnet": record.subnet}]
    if record.ip_range:
        config[0]["IPRange"] = record.ip_range
    config[0]["Gateway"] = record.gateway
    if record.subnet6:
        config.append({"Subnet": record.subnet6, "Gateway": record.gateway6})
    return Network(
        name=record.name,
        id=docker_id(record),
        created=record.created_at,
        enable_ipv6=bool(record.subnet6),
        ipam=Ipam(options={} if record.name != DEFAULT_NETWORK else None, config=config),
        internal=record.internal,
        options=_options(record),
        labels=record.labels,
    )


def _options(record: Record) -> dict[str, str]:
    """Those of the daemon's own network, or what was asked for."""
    if record.name == DEFAULT_NETWORK:
        return {**_OF_DEFAULT, _BRIDGE: record.bridge, _MTU: str(record.mtu)}
    return {_MTU: str(record.mtu)} if record.mtu != 1500 else {}


def docker_id(record: Record) -> str:
    """As long as all others, of the daemon's own network too."""
    return id_of(record.name) if record.name == DEFAULT_NETWORK else record.id


def id_of(name: str) -> str:
    """Of one that has no record: always the same."""
    return hashlib.sha256(f"network {name}".encode()).hexdigest()


def predefined(name: str) -> Network:
    """`host`, `none`, or `bridge` where that is the hypervisor's own network."""
    if name != DEFAULT_NETWORK:
        return Network(name=name, id=id_of(name), created=_BEGINNING, driver="null" if name == NONE else name)
    subnet = str(ip_network(usermode.ADDRESS, strict=False))
    return Network(
        name=name,
        id=id_of(name),
        created=_BEGINNING,
        ipam=Ipam(config=[{"Subnet": subnet, "Gateway": usermode.GATEWAY}]),
        options={_KIND: "user"},
    )


def endpoint_id(pod: str, network: str) -> str:
    """Docker gives each container's place in a network an id; here it is of the pod's, and always the same."""
    return hashlib.sha256(f"{pod} {network}".encode()).hexdigest()


def members(record: Record, pods: Iterable[tuple[Pod, list[Container]]]) -> Iterator[tuple[str, dict[str, str]]]:
    """The containers that run in a network; those of one pod have one address."""
    for pod, containers in pods:
        for attachment in pod.attachments:
            if attachment.is_of(record) and pod.vm:
                for container in containers:
                    if container.state.status not in UP:
                        continue
                    yield container.id, _member(record, pod, container, attachment)


def _member(record: Record, pod: Pod, container: Container, a: Attachment) -> dict[str, str]:
    return {
        "Name": container.name,
        "EndpointID": endpoint_id(pod.id, record.id),
        "MacAddress": a.mac,
        "IPv4Address": f"{a.ip}/{record.subnet.partition('/')[2]}" if a.ip else "",
        "IPv6Address": f"{a.ip6}/{record.subnet6.partition('/')[2]}" if a.ip6 else "",
    }
