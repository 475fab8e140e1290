# SPDX-License-Identifier: Apache-2.0
"""Which address is free, and whether a network can be as it was asked for."""

from __future__ import annotations

import secrets
import socket
from collections.abc import Iterable, Iterator
from ipaddress import IPv4Network, IPv6Network, ip_address, ip_network

from ..errors import Conflict, InvalidArgument
from ..model.network import Network, NetworkSpec

AnyNetwork = IPv4Network | IPv6Network
# User networks get a /24 of the first that this host does not route already.
_POOLS = (IPv4Network("10.210.0.0/16"), IPv4Network("172.30.0.0/16"), IPv4Network("192.168.128.0/17"))
_SEARCH_MAX = 1 << 16  # addresses that are looked at in one subnet


def parse_subnet(text: str) -> AnyNetwork:
    """:raise InvalidArgument: when it is no CIDR, or has host bits."""
    try:
        return ip_network(text)
    except ValueError as error:
        raise InvalidArgument(f"invalid subnet {text!r}: {error}", hint="write it as 10.1.2.0/24") from None


def _check_overlap(wanted: AnyNetwork, others: Iterable[tuple[str, AnyNetwork]]) -> None:
    for name, other in others:
        if wanted.version == other.version and wanted.overlaps(other):
            raise Conflict(f"subnet {wanted} overlaps with {other} of {name}", hint="choose another")


def free_subnets(
    networks: list[Network], routes: list[tuple[str, AnyNetwork]], prefix6: IPv6Network
) -> tuple[IPv4Network, IPv6Network]:
    """A /24 and a /64 that nothing on this host uses.

    :raise Conflict: when there is none left.
    """
    taken = [*((n.name, ip_network(n.subnet)) for n in networks), *routes]
    for index, candidate in enumerate(c for pool in _POOLS for c in pool.subnets(new_prefix=24)):
        if not any(candidate.version == other.version and candidate.overlaps(other) for _, other in taken):
            six = IPv6Network((int(prefix6.network_address) + ((index + 1) << 64), 64))
            return candidate, six
    raise Conflict(f"no /24 of {', '.join(map(str, _POOLS))} is free", hint="give --subnet")


def _gateway(subnet: AnyNetwork, wanted: str) -> str:
    if not wanted:
        return str(subnet.network_address + 1)
    try:
        address = ip_address(wanted)
    except ValueError:
        raise InvalidArgument(f"invalid gateway {wanted!r}", hint="give an address of the subnet") from None
    if address not in subnet:
        raise InvalidArgument(f"gateway {wanted} is not in subnet {subnet}", hint="give an address of it")
    return str(address)


def plan(
    spec: NetworkSpec,
    id_: str,
    created_at: str,
    networks: list[Network],
    routes: list[tuple[str, AnyNetwork]],
    prefix6: IPv6Network,
) -> Network:
    """The network that a request makes.

    :raise InvalidArgument: malformed. :raise Conflict: the subnet is in use on this host.
    """
    given = [parse_subnet(s) for s in spec.subnets]
    four = next((s for s in given if isinstance(s, IPv4Network)), None)
    six = next((s for s in given if isinstance(s, IPv6Network)), None)
    if len(given) != (four is not None) + (six is not None):
        raise InvalidArgument("more than one subnet of the same IP version", hint="give one of each at most")
    others = [*((f"network {n.name}", ip_network(s)) for n in networks for s in (n.subnet, n.subnet6) if s), *routes]
    if four is None or (six is None and spec.ipv6):
        free4, free6 = free_subnets(networks, routes, prefix6)
        four = four or free4
        six = six or (free6 if spec.ipv6 else None)
    wanted: list[AnyNetwork] = [four, *([six] if six else [])]
    for subnet in wanted:
        _check_overlap(subnet, others)
        if subnet.num_addresses < 4:
            raise InvalidArgument(f"subnet {subnet} is too small", hint="give a /30 at least")
    if spec.ip_range and not parse_subnet(spec.ip_range).subnet_of(four):  # type: ignore[arg-type]
        raise InvalidArgument(f"address range {spec.ip_range} is not in subnet {four}", hint="give a part of it")
    gateways = {(6 if ":" in g else 4): g for g in spec.gateways}
    return Network(
        id=id_,
        name=spec.name,
        created_at=created_at,
        bridge=f"hy-{id_[:10]}",
        subnet=str(four),
        gateway=_gateway(four, gateways.get(4, "")),
        subnet6=str(six) if six else "",
        gateway6=_gateway(six, gateways.get(6, "")) if six else "",
        ip_range=spec.ip_range,
        internal=spec.internal,
        mtu=spec.mtu or 1500,
        labels=spec.labels,
    )


def allocate(network: Network, used: set[str], wanted: str, wanted6: str) -> tuple[str, str]:
    """An IPv4 and, where the network has it, an IPv6 address.

    :raise Conflict: taken, or none left. :raise InvalidArgument: not in the subnet.
    """
    four = _take(network, ip_network(network.subnet), network.ip_range, used | {network.gateway}, wanted)
    if not network.subnet6:
        if wanted6:
            raise InvalidArgument(f"network {network.name} has no IPv6", hint="create one with --ipv6")
        return four, ""
    return four, _take(network, ip_network(network.subnet6), "", used | {network.gateway6}, wanted6)


def _take(network: Network, subnet: AnyNetwork, ip_range: str, used: set[str], wanted: str) -> str:
    if wanted:
        try:
            address = ip_address(wanted)
        except ValueError:
            raise InvalidArgument(f"invalid address {wanted!r}", hint="give an IP address") from None
        if address not in subnet or address in (subnet.network_address, subnet.broadcast_address):
            raise InvalidArgument(
                f"address {wanted} is not in subnet {subnet} of network {network.name}", hint="give one that is"
            )
        if str(address) in used:
            raise Conflict(f"address {wanted} of network {network.name} is taken", hint="choose another")
        return str(address)
    pool = ip_network(ip_range) if ip_range else subnet
    first, last = int(pool.network_address), int(pool.broadcast_address)
    # Numbers, for an object for each address that is taken made every start slower than the one before.
    taken = {int(subnet.network_address), int(subnet.broadcast_address), *_numbers(used, subnet.version)}
    for number in range(first, min(last, first + _SEARCH_MAX) + 1):
        if number not in taken:
            return str(type(pool.network_address)(number))
    raise Conflict(f"network {network.name} has no free address left", hint="remove pods, or use a larger network")


def _numbers(addresses: set[str], version: int) -> Iterator[int]:
    """Those of this IP version."""
    family = socket.AF_INET6 if version == 6 else socket.AF_INET
    return (int.from_bytes(socket.inet_pton(family, a)) for a in addresses if a and (":" in a) == (version == 6))


def new_mac() -> str:
    """A random, locally administered unicast address."""
    return "0a:" + ":".join(f"{b:02x}" for b in secrets.token_bytes(5))


def mac_of(ip: str) -> str:
    """That of a NIC with this IPv4 address, as Docker has it: who gets an address after another is known to neighbours
    who remember the other one.
    """
    return "02:42:" + ":".join(f"{b:02x}" for b in ip_address(ip).packed)


def link_local(mac: str) -> str:
    """The IPv6 address that a NIC gives itself: EUI-64 of RFC 4291, appendix A."""
    m = bytes.fromhex(mac.replace(":", ""))
    host = bytes([m[0] ^ 2, m[1], m[2], 0xFF, 0xFE, m[3], m[4], m[5]])
    return str(ip_address(bytes.fromhex("fe80000000000000") + host))
