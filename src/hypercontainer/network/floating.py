# SPDX-License-Identifier: Apache-2.0
"""Floating addresses: which there are, which pods have some, and how this host answers for them."""

from __future__ import annotations

import contextlib
import logging
import socket
from collections.abc import Collection, Iterable, Iterator, Mapping
from dataclasses import dataclass, field
from ipaddress import ip_address

from ..errors import InvalidArgument
from ..model.addresses import ip_version
from ..model.status import Pod
from .addresses import AnyNetwork
from .links import exists, rtnetlink
from .ruleset import Float

log = logging.getLogger(__name__)
_NODAD = 0x02  # IFA_F_NODAD: nobody looks for duplicates of it, which would take a second
_POOL_MAX = 1 << 16  # addresses of one


@dataclass(frozen=True)
class FipSettings:
    """What the administrator gives away."""

    pools: tuple[AnyNetwork, ...] = ()
    interface: str = ""  # of this host, which answers for those that a running pod has; "": they are routed here

    def check(self) -> None:
        """:raise InvalidArgument: pools that overlap, or are too large."""
        for i, pool in enumerate(self.pools):
            if pool.num_addresses > _POOL_MAX:
                raise InvalidArgument(f"fips.pools: {pool} has more than {_POOL_MAX} addresses", hint="give a part")
            if any(pool.version == other.version and pool.overlaps(other) for other in self.pools[:i]):
                raise InvalidArgument(f"fips.pools: {pool} overlaps with another", hint="give each address once")

    def addresses(self, version: int) -> Iterator[str]:
        """All of an IP version, in their order."""
        for pool in self.pools:
            if pool.version == version:
                yield from map(str, pool)

    def has(self, address: str) -> bool:
        """Whether it is of a pool."""
        wanted = ip_address(address)
        return any(wanted.version == pool.version and wanted in pool for pool in self.pools)


@dataclass(frozen=True)
class Floating:
    """Those that are given to pods."""

    settings: FipSettings = field(default_factory=FipSettings)
    of_pods: Mapping[str, Collection[str]] = field(default_factory=dict)  # by the pods' ids


def floats_of(running: Iterable[Pod], floating: Floating) -> tuple[tuple[Float, ...], tuple[str, ...]]:
    """Those of pods that run, each of which leads to the pod's first network; and the pools."""
    found = []
    for pod in (p for p in running if p.id in floating.of_pods):
        for first in pod.attachments[:1]:
            own = {4: first.ip, 6: first.ip6}
            given = ((a, own[ip_version(a)]) for a in floating.of_pods[pod.id])
            found += [Float(address, ip) for address, ip in given if ip]
    return tuple(found), tuple(map(str, floating.settings.pools))


async def answer(settings: FipSettings, wanted: Collection[str]) -> None:
    """The interface has these addresses of the pools, and no other of them. Idempotent.

    What cannot be is logged: pods that have none go on.
    """
    if not settings.interface or not (wanted or exists(settings.interface)):
        return
    from pyroute2.netlink.exceptions import NetlinkError

    try:
        index = socket.if_nametoindex(settings.interface)
        async with rtnetlink() as route:
            found = [a.get("address") async for a in await route.addr("dump", index=index)]
            there = {address for address in found if settings.has(address)}
            for address in there - set(wanted):
                with contextlib.suppress(NetlinkError):  # somebody else took it away
                    await route.addr("del", index=index, address=address, prefixlen=_bits(address))
            for address in set(wanted) - there:
                # Nothing of this host's own shall speak by it: it is a deprecated one (RFC 4862).
                flags = {"flags": _NODAD, "preferred": 0, "valid": 0xFFFFFFFF} if ":" in address else {}
                await route.addr("add", index=index, address=address, prefixlen=_bits(address), **flags)
    except (OSError, NetlinkError) as error:
        log.warning("the interface %s does not answer for floating addresses: %s", settings.interface, error)


def _bits(address: str) -> int:
    return 128 if ":" in address else 32
