# SPDX-License-Identifier: Apache-2.0
"""A machine's drives, and which disk lies behind each.

Firecracker has no hot plug, but puts another file behind a drive that nobody uses. So a machine to which disks come
later has spare drives, with a file of one sector (`places.NOTHING`) behind them.
"""

from __future__ import annotations

import os
from collections.abc import Mapping
from pathlib import Path
from typing import Any

import msgspec

from ...errors import InvalidState, Unsupported
from ..driver import KINDS, AnyDisk, Disk, MachineConfig, RbdDisk, disk_kinds
from .document import device, names, spares

SECTOR = 512  # bytes


class Drive(msgspec.Struct):
    """By its place; whether it can be written to it keeps from its start on."""

    read_only: bool
    serial: str = ""  # of the disk behind it; "" where there is none
    name: str = ""  # what the guest finds that disk by


class Drives:
    """All that a machine has."""

    def __init__(self, drives: list[Drive]) -> None:
        self._drives = drives

    @classmethod
    def of(cls, config: MachineConfig) -> Drives:
        """Those of a machine that is launched so."""
        found = names(config)
        taken = [Drive(disk.read_only, disk.serial, found[disk.serial]) for disk in config.disks]
        return cls(taken + [Drive(read_only) for read_only in spares(config)])

    @classmethod
    def noted(cls, handle: Mapping[str, Any]) -> Drives:
        """As `note` has put them down; an earlier version wrote names only, and had no spare ones."""
        if "drives" in handle:
            return cls(msgspec.convert(handle["drives"], list[Drive]))
        return cls([Drive(False, serial, name) for serial, name in handle["names"].items()])

    def note(self) -> list[dict[str, Any]]:
        """For a machine's handle."""
        return [msgspec.structs.asdict(drive) for drive in self._drives]

    @property
    def names(self) -> dict[str, str]:
        """Serial numbers of disks -> what the guest finds them by."""
        return {drive.serial: drive.name for drive in self._drives if drive.serial}

    @property
    def spare(self) -> bool:
        """Whether there is a drive without a disk."""
        return any(not drive.serial for drive in self._drives)

    def find(self, serial: str) -> int | None:
        """Behind which drive a disk lies."""
        return next((n for n, drive in enumerate(self._drives) if drive.serial == serial), None)

    def free(self, disk: AnyDisk) -> int:
        """A drive for one more disk.

        :raise InvalidState: there is none. :raise Unsupported: Firecracker has no such disks.
        """
        kinds = disk_kinds(disk.format, disk.cache) if isinstance(disk, Disk) else [RbdDisk]
        if kinds:
            raise Unsupported(f"the driver 'firecracker' does not support {KINDS[kinds[0]]}")
        for index, drive in enumerate(self._drives):
            if not drive.serial and drive.read_only == disk.read_only:
                return index
        raise InvalidState("the virtual machine has no place for one more disk",
                           hint="the driver 'qemu' has more of them: use --driver qemu")  # fmt: skip

    def put(self, index: int, serial: str, path: Path) -> None:
        """A disk lies behind a drive now. The guest sees that when it sees the length of its file."""
        drive = self._drives[index]
        drive.serial, drive.name = serial, f"dev:{device(index)}:{sectors(path)}"

    def clear(self, index: int) -> None:
        """None lies there any more."""
        self._drives[index].serial = self._drives[index].name = ""


def sectors(path: Path) -> int:
    """How long a file or a block device is."""
    with open(path, "rb") as f:
        return f.seek(0, os.SEEK_END) // SECTOR
