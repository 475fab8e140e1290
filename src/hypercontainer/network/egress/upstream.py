# SPDX-License-Identifier: Apache-2.0
"""Connections to the hosts that a pod may reach, at addresses which this host found itself.

A name's owner says what its addresses are: none may lead back into this host, or to what only this host can reach.
"""

from __future__ import annotations

import asyncio
import socket
from collections.abc import Sequence
from ipaddress import IPv4Address, IPv6Address, ip_address, ip_network

from ...sys import tasks
from ..addresses import AnyNetwork
from .refused import Refused

_CONNECT = 10.0  # seconds for one address
_TRIED = 6  # addresses
_NAT64 = ip_network("64:ff9b::/96")  # RFC 6052
_UNICAST_6 = ip_network("2000::/3")  # all that the Internet has; beside it is what a site has, a NAT64 of its own, say
# Where clouds answer their machines with what is for them alone, though it looks public: Oracle (of RFC 6890), Azure.
_OF_CLOUDS = (ip_network("192.0.0.0/24"), ip_network("168.63.129.16/32"))


def trouble(address: str, allowed: Sequence[AnyNetwork], own_networks: Sequence[AnyNetwork]) -> str:
    """Why the pods of this host may not reach an address; "" when they may.

    `allowed` are networks that the operator opened; this host's own addresses only where each is named alone.
    """
    ip = ip_address(address)
    inner = _inner(ip)
    if any(ip in network or inner in network for network in own_networks):
        return f"its address {address} is of a network of pods"
    opened = [network for network in allowed if ip in network]
    if _is_own(address):
        alone = any(network.num_addresses == 1 for network in opened)
        return "" if alone else f"its address {address} is this host's own"
    return "" if opened or _is_public(inner) else f"its address {address} is no public one"


def _is_public(ip: IPv4Address | IPv6Address) -> bool:
    if isinstance(ip, IPv6Address) and ip not in _UNICAST_6:
        return False
    return ip.is_global and not ip.is_multicast and not any(ip in network for network in _OF_CLOUDS)


def _inner(ip: IPv4Address | IPv6Address) -> IPv4Address | IPv6Address:
    """The IPv4 address to which one of IPv6 leads, or itself."""
    if isinstance(ip, IPv6Address):
        if ip in _NAT64:
            return IPv4Address(int(ip) & 0xFFFFFFFF)
        return ip.ipv4_mapped or ip.sixtofour or (ip.teredo[1] if ip.teredo else None) or ip
    return ip


def _is_own(address: str) -> bool:
    """Whether it is one of this host: only then is what is sent there from that address itself. Nothing is sent."""
    family = socket.AF_INET6 if ":" in address else socket.AF_INET
    with socket.socket(family, socket.SOCK_DGRAM) as probe:
        try:
            probe.connect((address, 9))
        except OSError:
            return False  # nothing leads there
        return ip_address(probe.getsockname()[0]) == ip_address(address)


async def connect(addresses: Sequence[str], port: int) -> socket.socket:
    """To the first that answers. :raise Refused: none does."""
    loop = asyncio.get_running_loop()
    for address in addresses[:_TRIED]:
        sock = socket.socket(socket.AF_INET6 if ":" in address else socket.AF_INET, socket.SOCK_STREAM)
        try:
            sock.setblocking(False)
            await tasks.within(loop.sock_connect(sock, (address, port)), _CONNECT)
        except (OSError, TimeoutError):
            sock.close()
        except BaseException:
            sock.close()
            raise
        else:
            return sock
    raise Refused("it does not answer")
