# SPDX-License-Identifier: Apache-2.0
"""Machines of a given layout: what lies behind their devices, disks, and NICs that lead nowhere yet."""

from __future__ import annotations

import contextlib
from collections.abc import Mapping, Sequence
from pathlib import Path

from ...hypervisor.driver import AnyNetwork, Disk, MachineConfig, SpareNetwork
from ...model.layout import MachineLayout
from ...model.status import Pod
from ...network.backend import Nic, NicKind
from ...network.idle import IdleNic
from ...sys.files import make_sparse
from ..allotments import Allotment
from ..paths import BootFiles
from ..pod_network import for_machine

_MAC = "52:54:00:00:01:{:02x}"  # the guest has another, which is in what was saved; QEMU announces this one


def idle_nics(layout: MachineLayout, undo: contextlib.AsyncExitStack) -> list[IdleNic]:
    """One for each that is not spare; `undo` closes them."""
    made = []
    for kind in layout.nics:
        if kind != NicKind.SPARE:
            made.append(IdleNic.make(kind))
            undo.callback(made[-1].close)
    return made


def machine_like(
    pod: Pod, layout: MachineLayout, files: BootFiles, allotment: Allotment, directory: Path,
    networks: tuple[AnyNetwork, ...], disks: tuple[Disk, ...],
) -> MachineConfig:  # fmt: skip
    """A machine of a pod with the devices of a layout; its directory is there."""
    return MachineConfig(
        name=directory.name, directory=directory, vcpus=pod.vcpus, memory=pod.memory, kernel=files.kernel,
        initramfs=files.initramfs, networks=networks, disks=disks, expandable=layout.expandable,
        balloon=layout.balloon, architecture=pod.architecture, user=allotment.user,
        control_groups=allotment.group.directories,
    )  # fmt: skip


def networks(
    layout: MachineLayout, idle: list[IdleNic], spares: Sequence[Nic] = (), macs: Sequence[str] = ()
) -> tuple[AnyNetwork, ...]:  # fmt: skip
    """In the layout's order; spare ones are named by `spares`, others have `macs`, as far as there are some."""
    found: list[AnyNetwork] = []
    waiting, named, known = iter(idle), iter(spares), iter(macs)
    for number, kind in enumerate(layout.nics):
        mac = _MAC.format(number)
        if kind == NicKind.SPARE:
            spare = next(named, None)
            found.append(SpareNetwork(spare.mac, spare.tap) if spare else SpareNetwork(mac))
        else:
            nic = next(waiting)
            found.append(for_machine(Nic(NicKind(kind), next(known, mac), nic.fd, nic.tap)))
    return tuple(found)


def disks(layout: MachineLayout, known: Mapping[str, Disk], directory: Path, blank_size: int) -> tuple[Disk, ...]:
    """Those that are known by what the guest finds them by, and blank ones, made in `directory`."""
    found: list[Disk] = []
    for serial in layout.disks:
        disk = known.get(serial)
        if disk is None:
            path = directory / f"blank-{len(found)}.img"
            make_sparse(path, blank_size)
            disk = Disk(serial, path, read_only=False)
        found.append(disk)
    return tuple(found)
