# SPDX-License-Identifier: Apache-2.0
"""Disks of a domain: files behind loop devices, which blkback in dom0's kernel serves.

A loop device of ours goes when nobody has it open: we do until blkback does, and blkback until the domain has ended.
So none is left, whoever is killed when. (The QEMU of a domain would serve files without them, but version 7.2 takes no
disk that is read-only.) Source: linux/loop.h, Documentation/ABI/testing/sysfs-driver-xen-blkback of Linux,
xl-disk-configuration(5).
"""

from __future__ import annotations

import asyncio
import contextlib
import errno
import fcntl
import os
import struct
from collections.abc import Sequence
from pathlib import Path

from ...errors import Unavailable
from ...sys import deadlines
from ..driver import Disk
from . import tools

_CONTROL = Path("/dev/loop-control")
_GET_FREE, _CONFIGURE = 0x4C82, 0x4C0A  # LOOP_CTL_GET_FREE, LOOP_CONFIGURE
# struct loop_config: descriptor, block size, and of struct loop_info64 the flags; all else is zero.
_CONFIG = struct.Struct("=II52xI240x")
_READ_ONLY, _AUTOCLEAR = 1, 4  # LO_FLAGS_*
_TRIES = 64
_SHORT, _MAJOR, _EXTENDED = 16, 202, 1 << 28  # xen/include/public/io/blkif.h, docs/man/xen-vbd-interface
_BACKEND = "/local/domain/0/backend/vbd/{domid}/{number}"
_OPENED = "/sys/bus/xen-backend/devices/vbd-{domid}-{number}/physical_device"
_LOOK = 0.01  # seconds between looks at whether blkback has opened a disk


def number(index: int) -> int:
    """Of the disk in this place, in xenstore."""
    return _MAJOR << 8 | index << 4 if index < _SHORT else _EXTENDED | index << 8


class Loops:
    """The loop devices of a domain's disks, in their order; held open until `close`."""

    def __init__(self) -> None:
        self.paths: list[str] = []
        self._fds: list[int] = []

    def add(self, disk: Disk) -> None:
        """:raise Unavailable: there is no such file, or this host has no loop device for it."""
        try:
            fd = os.open(disk.path, (os.O_RDONLY if disk.read_only else os.O_RDWR) | os.O_CLOEXEC)
        except OSError as error:
            raise Unavailable(f"the disk {disk.path} cannot be opened: {error.strerror}") from error
        try:
            loop, path = _configured(fd, _AUTOCLEAR | (_READ_ONLY if disk.read_only else 0))
        except OSError as error:
            raise Unavailable(f"no loop device for the disk {disk.path}: {error.strerror}",
                              hint="dom0's kernel needs the module loop, of Linux 5.8 or newer") from error  # fmt: skip
        finally:
            os.close(fd)
        self._fds.append(loop)
        self.paths.append(path)

    async def hand_over(self, domid: int, first: int = 0) -> None:
        """Let blkback open them, which no script of Xen's has told, and return when it has; `first` is the first one's
        place.

        :raise Unavailable: it does not.
        """
        devices = {number(index): os.fstat(fd).st_rdev for index, fd in enumerate(self._fds, first)}
        where = {
            f"{_BACKEND.format(domid=domid, number=n)}/physical-device": f"{os.major(d):x}:{os.minor(d):x}"
            for n, d in devices.items()
        }
        ready = {f"{_BACKEND.format(domid=domid, number=n)}/hotplug-status": "connected" for n in devices}
        if devices:
            await tools.write({**where, **ready})
        await self.opened(domid, first)

    async def opened(self, domid: int, first: int = 0) -> None:
        """Return when blkback, which knows of them, has opened them.

        :raise Unavailable: it does not.
        """
        devices = [number(index) for index in range(first, first + len(self._fds))]
        clock = asyncio.get_running_loop().time
        end = clock() + deadlines.MONITOR
        while missing := [n for n in devices if not Path(_OPENED.format(domid=domid, number=n)).exists()]:
            if clock() > end:
                raise Unavailable(f"blkback opened {len(missing)} disks of a domain not within {deadlines.MONITOR:g} s",
                                  hint="dom0's kernel needs xen-blkback, and its log may say more")  # fmt: skip
            await asyncio.sleep(_LOOK)

    def close(self) -> None:
        """Hold them no longer. Idempotent."""
        while self._fds:
            os.close(self._fds.pop())


def loops(disks: Sequence[Disk], stack: contextlib.ExitStack) -> Loops:
    """Loop devices of these, held until the stack is left."""
    made = Loops()
    stack.callback(made.close)
    for disk in disks:
        made.add(disk)
    return made


def _configured(fd: int, flags: int) -> tuple[int, str]:
    """A loop device of this file, open, and its path.

    :raise OSError: there is none.
    """
    control = os.open(_CONTROL, os.O_RDWR | os.O_CLOEXEC)
    try:
        for _ in range(_TRIES):
            path = f"/dev/loop{fcntl.ioctl(control, _GET_FREE)}"
            loop = os.open(path, os.O_RDWR | os.O_CLOEXEC)
            try:
                fcntl.ioctl(loop, _CONFIGURE, _CONFIG.pack(fd, 0, flags))
                return loop, path
            except OSError as error:
                os.close(loop)
                if error.errno != errno.EBUSY:  # somebody else was faster
                    raise
        raise OSError(errno.EBUSY, os.strerror(errno.EBUSY))
    finally:
        os.close(control)
