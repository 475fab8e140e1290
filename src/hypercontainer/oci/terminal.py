# SPDX-License-Identifier: Apache-2.0
"""A pseudo terminal whose master goes to who asked for it, by a unix socket (runc's --console-socket)."""

from __future__ import annotations

import array
import fcntl
import os
import pty
import socket
import struct
import sys
import termios
from typing import Any

from ..errors import InvalidArgument, Unavailable

_TIMEOUT = 10.0  # seconds for who listens


def is_ours(console_socket: str, *, detached: bool) -> bool:
    """Whether a process shall have the terminal that this command has: nobody else is there to have one."""
    return not console_socket and not detached and sys.stdin.isatty() and sys.stdout.isatty()


def open_terminal(console_socket: str, size: dict[str, Any]) -> int:
    """The slave's descriptor; its master is sent away. `size` is a process's consoleSize.

    :raise InvalidArgument: nobody said where to. :raise Unavailable: nobody takes it.
    """
    if not console_socket:
        raise InvalidArgument("a process with a terminal needs --console-socket")
    master, slave = pty.openpty()
    try:
        if size.get("height"):
            fcntl.ioctl(slave, termios.TIOCSWINSZ, struct.pack("HHHH", size["height"], size.get("width", 0), 0, 0))
        with socket.socket(socket.AF_UNIX) as sock:
            sock.settimeout(_TIMEOUT)
            sock.connect(console_socket)
            rights = (socket.SOL_SOCKET, socket.SCM_RIGHTS, array.array("i", [master]))
            sock.sendmsg([os.ttyname(slave).encode()], [rights])
    except OSError as error:
        os.close(slave)
        raise Unavailable(f"the terminal cannot be sent to {console_socket}: {error}") from None
    finally:
        os.close(master)
    return slave
