# SPDX-License-Identifier: Apache-2.0
"""Taps for a program that opens them by name.

A tap that a descriptor made has room for that one descriptor, and goes with
it. So it is made to stay, its descriptor is given up, and when the program has
it, what it has is told that the tap goes with it: whatever becomes of us, none is left.
Source: drivers/net/tun.c of Linux, pidfd_getfd(2).
"""

from __future__ import annotations

import contextlib
import ctypes
import errno
import fcntl
import logging
import os
import struct
from collections.abc import Iterable
from pathlib import Path

from ..errors import Unavailable
from .driver import TapNetwork

log = logging.getLogger(__name__)
DEVICE = Path("/dev/net/tun")
_TUNSETIFF, _TUNSETPERSIST, _TUNSETOWNER = 0x400454CA, 0x400454CB, 0x400454CC  # linux/if_tun.h
_FLAGS = 0x0002 | 0x1000 | 0x4000  # IFF_TAP, IFF_NO_PI, IFF_VNET_HDR: of the tap, and what is asked for
_NOTE = "taps"
_PIDFD_GETFD = 438  # the same number on all machines


def note(directory: Path, names: list[str]) -> None:
    """Write down in a machine's directory which taps it is about to have."""
    if names:
        (directory / _NOTE).write_text("\n".join(names))


def noted(directory: Path) -> list[str]:
    """What `note` wrote."""
    try:
        return (directory / _NOTE).read_text().split()
    except OSError:
        return []


def hand_over(nics: Iterable[TapNetwork], user: int) -> None:
    """Let a program of this user open these taps by their names.

    The callers' descriptors, which they close, are of nothing from now on.
    """
    for nic in nics:
        fcntl.ioctl(nic.fd, _TUNSETOWNER, user)
        fcntl.ioctl(nic.fd, _TUNSETPERSIST, 1)
        nothing = os.open(os.devnull, os.O_RDWR | os.O_CLOEXEC)
        os.dup2(nothing, nic.fd, inheritable=False)
        os.close(nothing)


def tie(pid: int) -> None:
    """Have all taps of a process go with it.

    :raise Unavailable: when that cannot be said.
    """
    with contextlib.ExitStack() as stack:
        try:
            process = os.pidfd_open(pid)
        except ProcessLookupError as error:
            raise Unavailable("the virtual machine has ended") from error
        stack.callback(os.close, process)
        for number in _of_taps(pid):
            fd = _fd_of(process, number)
            stack.callback(os.close, fd)
            fcntl.ioctl(fd, _TUNSETPERSIST, 0)


def _of_taps(pid: int) -> list[int]:
    return [int(e.name) for e in Path(f"/proc/{pid}/fd").iterdir() if _is_tap(e)]


def _is_tap(entry: Path) -> bool:
    """By what it is called where the program is: a jail has a node of its own."""
    try:
        return os.readlink(entry).endswith("/net/tun")
    except OSError:
        return False


def _fd_of(process: int, number: int) -> int:
    """Another process's descriptor, as one of ours."""
    libc = ctypes.CDLL(None, use_errno=True)
    if (fd := libc.syscall(_PIDFD_GETFD, process, number, 0)) < 0:
        code = ctypes.get_errno()
        if code == errno.ENOSYS:
            raise Unavailable("networks of this host with this driver need Linux 5.6 or newer")
        raise Unavailable(f"the tap of a virtual machine cannot be tied to it: {os.strerror(code)}")
    return int(fd)


def drop(names: Iterable[str]) -> None:
    """Taps that were handed over and that nobody has; idempotent, and those in use stay."""
    for name in names:
        fd = os.open(DEVICE, os.O_RDWR | os.O_CLOEXEC)
        try:
            fcntl.ioctl(fd, _TUNSETIFF, struct.pack("16sH22x", name.encode(), _FLAGS))
            fcntl.ioctl(fd, _TUNSETPERSIST, 0)
        except OSError as error:
            log.debug("the tap %s stays: %s", name, error)
        finally:
            os.close(fd)
