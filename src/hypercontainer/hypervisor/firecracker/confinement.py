# SPDX-License-Identifier: Apache-2.0
"""What Firecracker is handed: its files, its user, its rights. docs/jail.md has the table.

It is static, and brings filters of its own, one for each of its threads, that
look at arguments too; they are in force before the guest runs. What it may
not call from its first instruction on is ours.
"""

from __future__ import annotations

import os
from collections.abc import Sequence
from pathlib import Path

from ...jail import seccomp
from ...jail.jail import Entry, Limits, Order
from ...jail.report import Grants
from ...sys import users
from .. import taps
from ..driver import Disk, MachineConfig
from ..facets import Needs
from .late import INSIDE
from .places import DIRECTORY, DISKS, Places

KVM = Path("/dev/kvm")
_DEVICES = (Path("/dev/null"), Path("/dev/urandom"), KVM)
# It opens disks by their paths, as a user that nobody has, while they are hyperd's or somebody's. The right to
# (linux/capability.h) says nothing here but for what lies in its root, and that was handed to it.
_CAP_DAC_OVERRIDE = 1
_OVERHEAD, _TASKS = 64 << 20, 16  # bytes; threads beside the processors'


def order(
    line: tuple[str, ...],
    config: MachineConfig,
    where: Places,
    descriptors: Sequence[int],
    output: int,
    *,
    late: Path | None,
) -> Order:
    """How it is started; `late` is where it gets files later, in a jail, where it sees its own files only."""
    if not late:  # it opens files by their paths, so it must be who may: our user
        return Order(
            args=line,
            user=os.geteuid(),
            output=output,
            descriptors=tuple(descriptors),
            control_groups=config.control_groups,
        )
    disks = [
        Entry(disk.path, str(path), writable=not disk.read_only)
        for disk, path in zip(config.disks, where.disks, strict=True)
        if isinstance(disk, Disk)
    ]
    return Order(
        args=line,
        user=config.user or users.pick(),
        output=output,
        files=(
            Entry(Path(line[0])),
            Entry(config.directory, str(where.directory), writable=True),
            *disks,
            Entry(late, str(INSIDE), writable=True),
        ),
        devices=(*_DEVICES, *([taps.DEVICE] if config.taps else [])),
        descriptors=tuple(descriptors),
        control_groups=config.control_groups,
        limits=Limits(),
        host_network=bool(config.taps),  # a tap is opened in the network that it is in
        first_filter=seccomp.refusals(),
        capabilities=_capabilities(),
    )


def _capabilities() -> frozenset[int]:
    return frozenset({_CAP_DAC_OVERRIDE}) if os.geteuid() == 0 else frozenset()


def grants(*, taps: bool) -> Grants:
    """What its jail has beside that of others; with `taps` when it opens some."""
    return Grants(
        capabilities=_capabilities(),
        places=(str(DIRECTORY), str(DISKS)),
        devices=frozenset({"net"}) if taps else frozenset(),
        host_network=taps,
        readable=True,  # a process that may read its program whatever its rights is dumpable: fs/exec.c, would_dump
    )


def footprint(vcpus: int, memory: int) -> Needs:
    """What it takes: of a clone's memory twice, since what it has read of its template may be counted as its own."""
    return Needs(memory=2 * memory + memory // 64 + _OVERHEAD, tasks=vcpus + _TASKS)
