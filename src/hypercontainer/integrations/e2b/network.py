# SPDX-License-Identifier: Apache-2.0
"""The `network` of a sandbox: where it may go, as E2B writes it, in hyperd's words."""

from __future__ import annotations

import ipaddress
from collections.abc import Sequence
from typing import Any, NamedTuple

import msgspec

from ...errors import InvalidArgument, Unsupported
from ...model.egress import EgressPolicy, policy
from ...model.network import Egress

_EVERYTHING = "0.0.0.0/0"
_RULES_MAX = 1000  # of what is left when some destinations are denied
_IGNORED = ("dnsServers", "allowPublicTraffic")  # of what there is not here
_Network = ipaddress.IPv4Network | ipaddress.IPv6Network


class Reach(NamedTuple):
    """Where a sandbox may go."""

    network: str | None = None  # none; None: the default one
    allow: Sequence[Egress] = ()
    egress: EgressPolicy | None = None


class _Asked(msgspec.Struct, rename="camel"):
    allow_out: list[str] = []
    deny_out: list[str] = []


def read_network(given: Any) -> Reach:
    """What is allowed goes before what is denied. Hosts by name are for those who deny all else.

    :raise InvalidArgument: it is not understood. :raise Unsupported: it asks for what there is not here.
    """
    if not given:
        return Reach()
    try:
        asked = msgspec.convert(given, _Asked)
    except msgspec.ValidationError as error:
        raise InvalidArgument(f"`network` is not understood: {error}") from None
    for name in sorted({*given} - {"allowOut", "denyOut", *_IGNORED}):
        if given[name]:
            raise Unsupported(f"the network of a sandbox has no `{name}` here")
    denied = [_network(text) for text in asked.deny_out]
    if not denied:
        return Reach()  # what is allowed is so already
    networks, hosts = _sorted(asked.allow_out)
    rules = [Egress(cidr=str(each)) for each in networks]
    if ipaddress.ip_network(_EVERYTHING) in denied:
        return Reach(None, rules, policy("", hosts)) if rules or hosts else Reach("none")
    if hosts:
        raise Unsupported(f"hosts are allowed by name where all else is denied, by deny_out={[_EVERYTHING]}")
    return Reach(None, [*(Egress(cidr=str(each)) for each in _left(denied)), *rules])


def read_change(given: dict[str, Any]) -> list[str] | None:
    """The hosts, by name, that a sandbox which is there may reach from now on; None: it may go everywhere.

    :raise InvalidArgument: it is not understood. :raise Unsupported: it asks for what there is not here.
    """
    rest = {key: value for key, value in given.items() if key != "allow_internet_access"}
    if given.get("allow_internet_access") is False:
        rest["denyOut"] = [*(rest.get("denyOut") or []), _EVERYTHING]
    reach = read_network(rest)
    if reach.allow:
        raise Unsupported("a sandbox that is there may go to all, to hosts by name, or nowhere; to addresses, when"
                          " that is said as it is created")  # fmt: skip
    if reach.network == "none":
        return []
    return [str(host) for host in reach.egress.hosts] if reach.egress else None


def _sorted(allowed: list[str]) -> tuple[list[_Network], list[str]]:
    networks, hosts = [], []
    for text in allowed:
        try:
            networks.append(ipaddress.ip_network(text, strict=False))
        except ValueError:
            hosts.append(text)
    return networks, hosts


def _network(text: str) -> _Network:
    try:
        return ipaddress.ip_network(text, strict=False)
    except ValueError:
        raise InvalidArgument(f"{text!r} is no address that could be denied") from None


def _left(denied: list[_Network]) -> list[_Network]:
    """All addresses but these."""
    left: list[_Network] = [ipaddress.ip_network(_EVERYTHING), ipaddress.ip_network("::/0")]
    for each in denied:
        left = [rest for network in left for rest in _without(network, each)]
        if len(left) > _RULES_MAX:
            raise InvalidArgument(f"too many destinations are denied: {len(denied)}")
    return left


def _without(network: _Network, denied: _Network) -> list[_Network]:
    if network.version != denied.version or not network.overlaps(denied):
        return [network]
    return list(network.address_exclude(denied)) if denied.subnet_of(network) else []  # type: ignore[arg-type]
