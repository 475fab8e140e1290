# SPDX-License-Identifier: Apache-2.0
"""A domain's network interfaces of this host, each in the place of a tap.

The network has made a tap, and brought it into its bridge by a name that its
rules know. Xen makes an interface of its own, vifDOMAIN.NUMBER, which goes with
its domain: so the tap goes, and the interface has its name and its bridge.
"""

from __future__ import annotations

import asyncio
import os
import re
from collections.abc import Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING

from ...errors import Unavailable
from ...sys import deadlines
from ..driver import TapNetwork
from . import tools

if TYPE_CHECKING:
    from pyroute2 import AsyncIPRoute

_HAIRPIN = 1  # as of the tap: `tap.join`
_BACKEND = "/local/domain/0/backend/vif/{domid}"  # a domain's interfaces in xenstore, where its guest cannot write
_DEVICE = "/sys/bus/xen-backend/devices/vif-{domid}-{number}"  # netback's; the interface goes before it
_LOOK = 0.01  # seconds between looks at that
_READY = "connected"  # the word of Xen's own script at its end, which netback waits for
_KEY = re.compile(r"(\d+)/(mac|hotplug-status)")
_OURS, _FIRST = "/proc/self/ns/net", "/proc/1/ns/net"


@dataclass(frozen=True)
class _Place:
    """What the tap was."""

    name: str
    bridge: int  # index; 0: in none
    mtu: int


@dataclass(frozen=True)
class Vif:
    """One that a domain has."""

    number: int
    joined: bool  # it is in its tap's place


async def find(domid: int, mac: str) -> Vif | None:
    """The domain's interface with this address.

    :raise Unavailable: xenstored does not answer.
    """
    path, known = _BACKEND.format(domid=domid), dict[int, dict[str, str]]()
    for key, value in (await tools.listed(path)).items():
        if told := _KEY.fullmatch(key.removeprefix(f"{path}/")):
            known.setdefault(int(told[1]), {})[told[2]] = value
    for number, about in known.items():
        if about.get("mac", "").lower() == mac.lower():
            return Vif(number, about.get("hotplug-status") == _READY)
    return None


async def gone(domid: int, number: int) -> None:
    """Return when an interface that the domain has no more is this host's no more, either.

    :raise Unavailable: it stays.
    """
    path, clock = Path(_DEVICE.format(domid=domid, number=number)), asyncio.get_running_loop().time
    end = clock() + deadlines.MONITOR
    while path.exists():
        if clock() > end:
            raise Unavailable(f"netback keeps the interface vif{domid}.{number} of a domain")
        await asyncio.sleep(_LOOK)


async def take_over(domid: int, nics: Mapping[int, TapNetwork]) -> None:
    """Put the domain's interfaces of these numbers in the places of taps, whose descriptors are of nothing from now on.

    :raise Unavailable: this host's network refuses it.
    """
    if not nics:
        return
    from pyroute2 import AsyncIPRoute  # a tenth of a second to import
    from pyroute2.netlink.exceptions import NetlinkError

    try:
        async with AsyncIPRoute() as route:
            for number, nic in nics.items():
                place = await _place(route, nic.name)
                _let_go(nic.fd)
                await _bring(f"vif{domid}.{number}")
                await _put(route, f"vif{domid}.{number}", place)
    except NetlinkError as error:
        raise Unavailable(f"the network interface of a domain finds no place: {error}") from error
    await tools.write({f"{_BACKEND.format(domid=domid)}/{number}/hotplug-status": _READY for number in nics})


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
