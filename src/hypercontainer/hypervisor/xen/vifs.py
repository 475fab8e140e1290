# SPDX-License-Identifier: Apache-2.0
"""A domain's network interfaces of this host, each in the place of a tap.

The network has made a tap, and brought it into its bridge by a name that its
rules know. Xen makes an interface of its own, vifDOMAIN.NUMBER, which goes with
its domain: so the tap goes, and the interface has its name and its bridge.
"""

from __future__ import annotations

import os
from collections.abc import Sequence
from dataclasses import dataclass
from typing import TYPE_CHECKING

from ...errors import Unavailable
from ..driver import TapNetwork
from . import tools

if TYPE_CHECKING:
    from pyroute2 import AsyncIPRoute

_HAIRPIN = 1  # as of the tap: `tap.join`
_OURS, _FIRST = "/proc/self/ns/net", "/proc/1/ns/net"


@dataclass(frozen=True)
class _Place:
    """What the tap was."""

    name: str
    bridge: int  # index; 0: in none
    mtu: int


async def take_over(domid: int, nics: Sequence[TapNetwork]) -> None:
    """Put the domain's interfaces in the places of taps, whose descriptors are of nothing from now on.

    :raise Unavailable: this host's network refuses it.
    """
    if not nics:
        return
    from pyroute2 import AsyncIPRoute  # a tenth of a second to import
    from pyroute2.netlink.exceptions import NetlinkError

    try:
        async with AsyncIPRoute() as route:
            for index, nic in enumerate(nics):
                place = await _place(route, nic.name)
                _let_go(nic.fd)
                await _bring(f"vif{domid}.{index}")
                await _put(route, f"vif{domid}.{index}", place)
    except NetlinkError as error:
        raise Unavailable(f"the network interface of a domain finds no place: {error}") from error
    connected = {
        f"/local/domain/0/backend/vif/{domid}/{index}/hotplug-status": "connected" for index in range(len(nics))
    }
    await tools.write(connected)  # what Xen's own script says at its end, which netback waits for


async def _place(route: AsyncIPRoute, tap: str) -> _Place:
    link = (await route.link("get", ifname=tap))[0]
    return _Place(tap, link.get("master") or 0, link.get("mtu"))


def _let_go(fd: int) -> None:
    """The tap ends with the last descriptor of it; its caller closes this one."""
    nothing = os.open(os.devnull, os.O_RDWR | os.O_CLOEXEC)
    os.dup2(nothing, fd, inheritable=False)
    os.close(nothing)


async def _bring(vif: str) -> None:
    """netback makes interfaces in the host's first network, be hyperd in that or not."""
    if not os.path.samefile(_OURS, _FIRST):
        ip = ("ip", "link", "set", vif, "netns", str(os.getpid()))
        await tools.ask("nsenter", f"--net={_FIRST}", *ip)


async def _put(route: AsyncIPRoute, vif: str, place: _Place) -> None:
    index = (await route.link("get", ifname=vif))[0]["index"]
    await route.link("set", index=index, ifname=place.name, mtu=place.mtu)
    if place.bridge:
        await route.link("set", index=index, master=place.bridge, state="up")
        await route.brport("set", index=index, mode=_HAIRPIN)
    else:
        await route.link("set", index=index, state="up")
