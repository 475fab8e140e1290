# SPDX-License-Identifier: Apache-2.0
"""NetworkSettings of a container: its endpoints, and its ports."""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any

from ..engine.engine import Engine
from ..errors import HyperError
from ..model.ids import short
from ..model.network import DEFAULT_NETWORK, Attachment
from ..model.specs import PortMapping
from ..model.states import UP
from ..model.status import Container, Pod
from .network_view import docker_id, endpoint_id, id_of

Document = dict[str, Any]


def published(c: Container, pod: Pod) -> list[PortMapping]:
    """With the ports of this host that are in force; those of a pod are its containers'."""
    return (c.ports or pod.ports) if c.state.status in UP else []


def exposed(c: Container, image: Mapping[str, Any]) -> list[str]:
    return list(dict.fromkeys([*(image.get("ExposedPorts") or {}), *c.spec.expose]))


def ports(c: Container, pod: Pod, image: Mapping[str, Any]) -> list[Document]:
    """Of the list."""
    if c.state.status not in UP:
        return []
    given = published(c, pod)
    names = {f"{p.container_port}/{p.protocol}" for p in given}
    hidden = [name.partition("/") for name in exposed(c, image) if name not in names and "-" not in name]
    return [
        *({"PrivatePort": int(number), "Type": protocol or "tcp"} for number, _, protocol in hidden),
        *({"IP": p.host_ip or "0.0.0.0", "PrivatePort": p.container_port, "PublicPort": p.host_port,
           "Type": p.protocol} for p in given),
    ]  # fmt: skip


def _bindings(c: Container, pod: Pod, image: Mapping[str, Any]) -> Document:
    if c.state.status not in UP:
        return {}
    found: Document = {name if "/" in name else f"{name}/tcp": None for name in exposed(c, image)}
    for p in published(c, pod):
        name = f"{p.container_port}/{p.protocol}"
        binding = {"HostIp": p.host_ip or "0.0.0.0", "HostPort": str(p.host_port)}
        found[name] = [*(found.get(name) or []), binding]
    return found


def networks(engine: Engine, c: Container, pod: Pod) -> Document:
    """Endpoints by the names of their networks; what hyperd gives to who names none is `bridge`."""
    if pod.attachments:
        return {a.network: _endpoint(engine, c, pod, a) for a in pod.attachments}
    mode = pod.spec.network or "none"
    name = DEFAULT_NETWORK if mode.partition(":")[0] == "user" else mode
    return {name: {**_EMPTY, "NetworkID": id_of(name) if c.state.status in UP else ""}}


_EMPTY: Document = {
    "IPAMConfig": None,
    "Links": None,
    "Aliases": None,
    "DriverOpts": None,
    "GwPriority": 0,
    "NetworkID": "",
    "EndpointID": "",
    "Gateway": "",
    "IPAddress": "",
    "MacAddress": "",
    "IPPrefixLen": 0,
    "IPv6Gateway": "",
    "GlobalIPv6Address": "",
    "GlobalIPv6PrefixLen": 0,
    "DNSNames": None,
}


def _endpoint(engine: Engine, c: Container, pod: Pod, a: Attachment) -> Document:
    asked = next((r for r in c.spec.networks if r.name == a.network), None)
    ipam = {k: v for k, v in (("IPv4Address", asked.ip), ("IPv6Address", asked.ip6)) if v} if asked else {}
    names = list(dict.fromkeys([pod.name, *a.aliases, short(pod.id), pod.hostname]))
    found = {**_EMPTY, "IPAMConfig": ipam or None, "Aliases": a.aliases or None}
    if a.network != DEFAULT_NETWORK:  # in which Docker has no names
        found["DNSNames"] = names
    try:
        network = engine.registry.network_of(a)
    except HyperError:  # it is about to go
        return found
    found["NetworkID"] = docker_id(network)
    if c.state.status not in UP:
        return found
    six = {
        "IPv6Gateway": network.gateway6, "GlobalIPv6Address": a.ip6,
        "GlobalIPv6PrefixLen": int(network.subnet6.partition("/")[2] or 0),
    } if a.ip6 else {}  # fmt: skip
    return {
        **found, **six,
        "EndpointID": endpoint_id(pod.id, network.id),
        "Gateway": network.gateway, "IPAddress": a.ip, "MacAddress": a.mac,
        "IPPrefixLen": int(network.subnet.partition("/")[2] or 0),
    }  # fmt: skip


def settings(engine: Engine, c: Container, pod: Pod, image: Mapping[str, Any]) -> Document:
    """All of it; what is above the networks is the default one's, as of old."""
    found = networks(engine, c, pod)
    of_old = found.get(DEFAULT_NETWORK, _EMPTY)
    kept = ("EndpointID", "Gateway", "GlobalIPv6Address", "GlobalIPv6PrefixLen", "IPAddress", "IPPrefixLen",
            "IPv6Gateway", "MacAddress")  # fmt: skip
    return {
        "Bridge": "",
        "SandboxID": pod.id if c.state.status in UP else "",
        "SandboxKey": "",
        "Ports": _bindings(c, pod, image),
        "HairpinMode": False,
        "LinkLocalIPv6Address": "",
        "LinkLocalIPv6PrefixLen": 0,
        "SecondaryIPAddresses": None,
        "SecondaryIPv6Addresses": None,
        **{k: of_old[k] for k in kept},
        "Networks": found,
    }
