# SPDX-License-Identifier: Apache-2.0
"""Tap devices on bridges of the host. One goes when the hypervisor that holds its descriptor ends."""

from __future__ import annotations

import fcntl
import os
import socket
import struct

from ..errors import Conflict, NotFound, PermissionDenied

# https://www.kernel.org/doc/html/latest/networking/tuntap.html
_TUNSETIFF = 0x400454CA
_IFF_TAP, _IFF_NO_PI, _IFF_VNET_HDR = 0x0002, 0x1000, 0x4000
_NAME_MAX = 15  # bytes of an interface's name


async def open_tap(name: str, bridge: str, mtu: int = 0) -> int:
    """A descriptor of a new tap on the bridge; the caller closes it.

    :raise NotFound: no such bridge. :raise Conflict: the name is taken.
    :raise PermissionDenied: without CAP_NET_ADMIN.
    """
    if not os.path.exists(f"/sys/class/net/{bridge}/bridge"):
        raise NotFound(f"there is no bridge {bridge!r} on this host", hint="create it, or name another")
    if os.path.exists(f"/sys/class/net/{name}"):
        raise Conflict(f"the interface name {name!r} is taken on this host", hint="choose another ifname")
    fd = os.open("/dev/net/tun", os.O_RDWR | os.O_CLOEXEC)
    try:
        fcntl.ioctl(fd, _TUNSETIFF, struct.pack("16sH22x", name[:_NAME_MAX].encode(), _IFF_TAP | _IFF_NO_PI | _IFF_VNET_HDR))
        await _join(name[:_NAME_MAX], bridge, mtu)
    except PermissionError as error:
        os.close(fd)
        raise PermissionDenied("a network card on a bridge needs the right to administer the network", hint="run hyperd as root") from error
    except BaseException:
        os.close(fd)
        raise
    return fd


async def _join(name: str, bridge: str, mtu: int) -> None:
    from pyroute2 import AsyncIPRoute  # a tenth of a second to import

    async with AsyncIPRoute() as route:
        index, master = socket.if_nametoindex(name), socket.if_nametoindex(bridge)
        extra = {"mtu": mtu} if mtu else {}
        await route.link("set", index=index, master=master, state="up", **extra)
