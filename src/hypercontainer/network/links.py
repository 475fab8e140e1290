# SPDX-License-Identifier: Apache-2.0
"""Bridges of the host, and the rates of taps, by rtnetlink."""

from __future__ import annotations

import contextlib
import os
import socket
import sys
from collections.abc import AsyncIterator
from ipaddress import IPv4Network, ip_interface, ip_network
from pathlib import Path
from typing import TYPE_CHECKING

from ..errors import PermissionDenied, Unavailable
from ..model.network import Network
from .addresses import AnyNetwork, mac_of

if TYPE_CHECKING:
    from pyroute2 import AsyncIPRoute

PREFIX = "hy-"  # of the bridges of user networks
_NODAD = 0x02  # IFA_F_NODAD
_UP, _REJECT = 0x1, 0x200  # RTF_UP, RTF_REJECT
_BURST = 64 << 10  # bytes that may pass at once
_LATENCY = 50_000  # microseconds that a packet may wait


@contextlib.asynccontextmanager
async def rtnetlink() -> AsyncIterator[AsyncIPRoute]:
    """:raise PermissionDenied: without CAP_NET_ADMIN."""
    from pyroute2 import AsyncIPRoute  # a tenth of a second to import
    from pyroute2.netlink.exceptions import NetlinkError

    try:
        async with AsyncIPRoute() as route:
            yield route
    except NetlinkError as error:
        if error.code == 1:
            raise PermissionDenied(
                "networks need the right to administer this host's", hint="run hyperd as root, or use --network user"
            ) from error
        raise Unavailable(f"this host's network refused a change: {error}", hint="see `hyperctl doctor`") from error


def has_ipv6() -> bool:
    """Whether this host's kernel has IPv6 at all."""
    return os.path.exists("/proc/net/if_inet6")


def exists(name: str) -> bool:
    """In this process's network namespace, whatever is mounted at /sys."""
    try:
        return socket.if_nametoindex(name) > 0
    except OSError:
        return False


async def own_bridges() -> list[str]:
    """Those of this network namespace that have our PREFIX."""
    ours = [name for _, name in socket.if_nameindex() if name.startswith(PREFIX)]
    return [name for name in ours if await is_bridge(name)]


async def is_bridge(name: str) -> bool:
    """Whether an interface of this name is there, and is a bridge."""
    from pyroute2.netlink.exceptions import NetlinkError

    async with rtnetlink() as route:
        try:
            return any(link.get(("linkinfo", "kind")) == "bridge" for link in await route.link("get", ifname=name))
        except NetlinkError:
            return False


def way_out() -> str:
    """The interface of the default IPv4 route, else of any route; "" where there is none (proc(5), /proc/net/route)."""
    found = ""
    with contextlib.suppress(OSError):
        for line in Path("/proc/net/route").read_text().splitlines()[1:]:
            name, destination, _, flags, *_, mask = line.split()[:8]
            if not int(flags, 16) & _UP or int(flags, 16) & _REJECT:
                continue
            if int(destination, 16) == int(mask, 16) == 0:
                return name
            found = found or name
    return found


async def make_bridge(network: Network) -> None:
    """The bridge with its addresses, up; idempotent: a daemon may have died in the midst of it."""
    async with rtnetlink() as route:
        if exists(network.bridge):
            await _keep_address(route, network.bridge)
        else:
            await route.link(
                "add", ifname=network.bridge, kind="bridge", br_forward_delay=0, br_stp_state=0, br_mcast_snooping=0,
                address=mac_of(network.gateway),
            )  # fmt: skip
        index = socket.if_nametoindex(network.bridge)
        # Before it is up: nobody shall tell the host's bridge of routers, a published port of 127.0.0.1 leads through
        # it, and who asks for addresses of other networks' bridges is not answered.
        _sysctl(f"net/ipv6/conf/{network.bridge}/accept_ra", "0")
        _sysctl(f"net/ipv6/conf/{network.bridge}/accept_dad", "0")
        _sysctl(f"net/ipv4/conf/{network.bridge}/route_localnet", "1")
        _sysctl(f"net/ipv4/conf/{network.bridge}/arp_ignore", "1")
        for gateway, subnet in ((network.gateway, network.subnet), (network.gateway6, network.subnet6)):
            if gateway:
                address = ip_interface(f"{gateway}/{ip_network(subnet).prefixlen}")
                # Without a NIC in it the bridge has no carrier, and would wait for one to look for duplicates.
                flags = {"flags": _NODAD} if address.version == 6 else {}
                await route.addr(
                    "replace", index=index, address=str(address.ip), prefixlen=address.network.prefixlen, **flags
                )
        await route.link("set", index=index, state="up", mtu=network.mtu)
    _sysctl("net/ipv4/ip_forward", "1")
    if network.subnet6:
        _sysctl("net/ipv6/conf/all/forwarding", "1")


async def set_further_addresses(bridge: str, addresses: set[str], own: set[str]) -> None:
    """The IPv4 addresses of a bridge beside its `own`, without a subnet: others that it has go. Idempotent."""
    async with rtnetlink() as route:
        index = socket.if_nametoindex(bridge)
        found = {m.get("address") async for m in await route.addr("dump", index=index, family=socket.AF_INET)}
        for address in addresses - found:
            await route.addr("replace", index=index, address=address, prefixlen=32)
        for address in {a for a in found if isinstance(a, str)} - addresses - own:
            await route.addr("del", index=index, address=address, prefixlen=32)


async def _keep_address(route: AsyncIPRoute, bridge: str) -> None:
    """One that nobody gave is the least of its NICs', and changes as they come and go: guests would speak with none."""
    index = socket.if_nametoindex(bridge)
    (found,) = await route.link("get", index=index)
    await route.link("set", index=index, address=found.get("address"))  # from now on it is one that was given


def _sysctl(path: str, value: str) -> None:
    with contextlib.suppress(FileNotFoundError):  # a kernel without IPv6
        Path("/proc/sys", path).write_text(value)


async def remove_bridge(name: str) -> None:
    """Idempotent."""
    if exists(name):
        async with rtnetlink() as route:
            await route.link("del", index=socket.if_nametoindex(name))


async def limit(tap: str, rate: int) -> None:
    """What a tap hands to its guest, in bits per second; the other direction is the ruleset's. Idempotent."""
    async with rtnetlink() as route:
        await route.tc(
            "replace", "tbf", socket.if_nametoindex(tap), 0x10000, rate=rate // 8, burst=_BURST, latency=_LATENCY
        )


def routes_now() -> list[tuple[str, AnyNetwork]]:
    """The IPv4 routes of the main table, for who cannot wait: of /proc/net/route, whose numbers are in the order of
    this host's bytes (proc(5)).
    """
    found: list[tuple[str, AnyNetwork]] = []
    for line in Path("/proc/net/route").read_text().splitlines()[1:]:
        name, destination, *_, mask = line.split()[:8]
        address, bits = (int(x, 16).to_bytes(4, sys.byteorder) for x in (destination, mask))
        if any(address) and not name.startswith((PREFIX, "lo")):
            found.append((f"interface {name}", IPv4Network((address, int.from_bytes(bits, "big").bit_count()))))
    return found


async def routed_subnets() -> list[tuple[str, AnyNetwork]]:
    """What this host routes already, by interface: a new subnet must not hide it."""
    found: list[tuple[str, AnyNetwork]] = []
    async with rtnetlink() as route:
        async for link in await route.addr("dump"):
            name, address = link.get("label") or f"interface {link['index']}", link.get("address")
            if address and not address.startswith("fe80:") and not name.startswith((PREFIX, "lo")):
                found.append((f"interface {name}", ip_network(f"{address}/{link['prefixlen']}", strict=False)))
    return found
