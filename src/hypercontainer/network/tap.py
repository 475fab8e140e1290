# SPDX-License-Identifier: Apache-2.0
"""Tap devices on bridges of the host. One goes when the hypervisor that holds its descriptor ends."""

from __future__ import annotations

import fcntl
import os
import socket
import struct
from pathlib import Path

from ..errors import Conflict, NotFound, PermissionDenied
from . import links

# https://www.kernel.org/doc/html/latest/networking/tuntap.html
_TUNSETIFF = 0x400454CA
_IFF_UP = 0x1
_IFF_TAP, _IFF_NO_PI, _IFF_VNET_HDR = 0x0002, 0x1000, 0x4000
HEADER = 10  # bytes before each frame: struct virtio_net_hdr (linux/virtio_net.h), for `_IFF_VNET_HDR`
_NAME_MAX = 15  # bytes of an interface's name
# Of a tap, what `is_joined` looks at.
_SEEN = ("{name}/ifindex", "{name}/master/ifindex", "{name}/flags", "{name}/brport/hairpin_mode")
_PREFIX = "ht"  # of our taps' names: this, ten digits of the pod's id, and a few characters


def name_of(pod_id: str, which: int | str) -> str:
    """The tap of a pod's NIC: its number, of one that is in a network of this host, or may join one."""
    return f"{_PREFIX}{pod_id[:10]}{which}"


def number_of(pod_id: str, name: str) -> int | None:
    """Which NIC of the pod a tap is; None for one that joins no network of this host."""
    which = name.removeprefix(name_of(pod_id, ""))
    return int(which) if which != name and which.isdecimal() else None


async def open_tap(name: str, bridge: str, mtu: int = 0) -> int:
    """A descriptor of a new tap on the bridge; the caller closes it.

    :raise NotFound: no such bridge. :raise Conflict: the name is taken.
    :raise PermissionDenied: without CAP_NET_ADMIN.
    """
    if not await links.is_bridge(bridge):
        raise NotFound(f"there is no bridge {bridge!r} on this host", hint="create it, or name another")
    if links.exists(name):
        raise Conflict(f"the interface name {name!r} is taken on this host", hint="choose another ifname")
    fd = create_tap(name)
    try:
        await join(name[:_NAME_MAX], bridge, mtu)
    except BaseException:
        os.close(fd)
        raise
    return fd


def create_tap(name: str) -> int:
    """A new tap in this thread's network namespace.

    :raise PermissionDenied: without CAP_NET_ADMIN.
    """
    fd = os.open("/dev/net/tun", os.O_RDWR | os.O_CLOEXEC)
    try:
        fcntl.ioctl(
            fd, _TUNSETIFF, struct.pack("16sH22x", name[:_NAME_MAX].encode(), _IFF_TAP | _IFF_NO_PI | _IFF_VNET_HDR)
        )
    except PermissionError as error:
        os.close(fd)
        raise PermissionDenied(
            "a network interface on a bridge needs the right to administer the network", hint="run hyperd as root"
        ) from error
    except BaseException:
        os.close(fd)
        raise
    return fd


async def move(old: str, name: str, bridge: str, mtu: int) -> None:
    """Give a tap that is down its name, and bring it into a bridge.

    :raise Conflict: the name is taken.
    """
    if links.exists(name):
        raise Conflict(f"the interface name {name!r} is taken on this host", hint="choose another ifname")
    async with links.rtnetlink() as route:
        await route.link("set", index=socket.if_nametoindex(old), ifname=name[:_NAME_MAX])
    await join(name[:_NAME_MAX], bridge, mtu)


async def leave(name: str) -> None:
    """Take a tap out of its bridge; idempotent, also for one that is gone."""
    async with links.rtnetlink() as route:
        if links.exists(name):
            await route.link("set", index=socket.if_nametoindex(name), master=0, state="down")


def is_joined(name: str, bridge: str, sys: Path = Path("/sys/class/net")) -> bool:
    """Whether `join` has nothing to do, as far as it can be seen: what is mounted at /sys may be of another namespace.

    Source: Documentation/ABI/testing/sysfs-class-net of Linux.
    """
    try:
        index, master, flags, hairpin = (int((sys / path.format(name=name)).read_text(), 0) for path in _SEEN)
        of_this_namespace = (index, master) == (socket.if_nametoindex(name), socket.if_nametoindex(bridge))
        return of_this_namespace and bool(flags & _IFF_UP) and hairpin == 1
    except (OSError, ValueError):
        return False


async def join(name: str, bridge: str, mtu: int) -> None:
    """Bring a tap into a bridge."""
    async with links.rtnetlink() as route:
        index, master = socket.if_nametoindex(name), socket.if_nametoindex(bridge)
        extra = {"mtu": mtu} if mtu else {}
        await route.link("set", index=index, master=master, state="up", **extra)
        # With br_netfilter a published port that leads back to who asks is a frame back to its own NIC.
        await route.brport("set", index=index, mode=1)
