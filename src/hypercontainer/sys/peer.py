# SPDX-License-Identifier: Apache-2.0
"""Who is at the other end of a socket."""

from __future__ import annotations

import socket
import struct
from ipaddress import IPv6Address, ip_address
from typing import Any, Protocol

_UCRED = struct.Struct("iII")  # pid, uid, gid: unix(7)


class Socket(Protocol):
    """A socket, or what asyncio shows of one."""

    @property
    def family(self) -> int: ...

    def getsockopt(self, level: int, option: int, size: int, /) -> bytes: ...

    def getpeername(self) -> Any: ...


def peer_uid(sock: Socket) -> int | None:
    """The user that had connected; None where the kernel does not know, as of TCP."""
    if sock.family != socket.AF_UNIX:
        return None
    _, uid, _ = _UCRED.unpack(sock.getsockopt(socket.SOL_SOCKET, socket.SO_PEERCRED, _UCRED.size))
    return int(uid)


def peer_name(sock: Socket) -> str:
    """Who is counted as one: a user of this host, an IPv4 address, or an IPv6 network of 64 bits, which a host has."""
    if (uid := peer_uid(sock)) is not None:
        return f"uid:{uid}"
    try:
        address = ip_address(sock.getpeername()[0].partition("%")[0])
    except OSError:
        return "gone"
    if isinstance(address, IPv6Address):
        if address.ipv4_mapped:
            return str(address.ipv4_mapped)
        return str(IPv6Address(int(address) >> 64 << 64))
    return str(address)
