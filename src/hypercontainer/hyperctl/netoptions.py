# SPDX-License-Identifier: Apache-2.0
"""The flags of run and create that say how a pod is connected."""

from __future__ import annotations

from typing import Any

from ..errors import InvalidArgument
from ..model.network import NetworkRequest
from ..model.rates import parse_allow, parse_rate
from ..model.specs import HostEntry


def _host_entry(text: str) -> HostEntry:
    name, equals, ip = text.partition("=")  # Docker's newer way, where an IPv6 address needs no brackets
    if not equals:
        name, equals, ip = text.partition(":")
    if not name or not equals or not ip:
        raise InvalidArgument(f"invalid host {text!r}", hint="write NAME:IP, or NAME:host-gateway for this host")
    return HostEntry(ip=ip.strip("[]"), names=[name])


def networking(o: dict[str, Any]) -> dict[str, Any]:
    """The fields of a specification that say how a pod is connected."""
    names, own = (
        ["bridge" if n == "default" else n for n in o["network"]],
        {"ip": o["ip"], "ip6": o["ip6"], "mac": o["mac_address"], "aliases": list(o["network_alias"])},
    )
    plain = len(names) == 1 and (names[0] == "none" or names[0].partition(":")[0] in ("user", "cni"))
    if any(own.values()) and (plain or len(names) > 1):
        raise InvalidArgument(
            "addresses and aliases need one network", hint="name one with --network, and connect the others later"
        )
    if any(own.values()) and not names:
        names = ["bridge"]
    given = own if len(names) == 1 else {}
    requests = [] if plain else [NetworkRequest(name=n, **given) for n in names]
    return {
        "network": names[0] if plain else "",
        "networks": requests,
        "dns": list(o["dns"]),
        "dns_search": list(o["dns_search"]),
        "dns_options": list(o["dns_option"]),
        "hosts": [_host_entry(h) for h in o["add_host"]],
        "allow": [parse_allow(a) for a in o["allow"]],
        "ingress_rate": parse_rate(o["ingress_rate"]),
        "egress_rate": parse_rate(o["egress_rate"]),
    }
