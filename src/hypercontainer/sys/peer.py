# SPDX-License-Identifier: Apache-2.0
"""Who is at the other end of a unix socket."""

from __future__ import annotations

import socket
import struct
from typing import Protocol

_UCRED = struct.Struct("iII")  # pid, uid, gid: unix(7)


class Socket(Protocol):
    """A socket, or what asyncio shows of one."""

    @property
    def family(self) -> int: ...

    def getsockopt(self, level: int, option: int, size: int, /) -> bytes: ...


def peer_uid(sock: Socket) -> int | None:
    """The user that had connected; None where the kernel does not know, as of TCP."""
    if sock.family != socket.AF_UNIX:
        return None
    _, uid, _ = _UCRED.unpack(sock.getsockopt(socket.SOL_SOCKET, socket.SO_PEERCRED, _UCRED.size))
    return int(uid)
