# SPDX-License-Identifier: Apache-2.0
"""A pod's machine: its network interfaces and shared directories, and all that its driver needs."""

from __future__ import annotations

import contextlib
import os
from collections.abc import Sequence
from pathlib import Path
from typing import NamedTuple

from ..hypervisor.driver import (
    AnyDisk,
    MachineConfig,
    PciDevice,
    VirtioFs,
)
from ..jail.jail import Started
from ..model.status import Pod
from ..network.backend import Link
from ..protocol.messages import Interface
from ..volumes import share
from .pod_network import PodNetwork, for_machine

_NICS_MAX = 6  # with spare ones, and one less beside shared directories: QEMU's microvm has places for no more
_LOOPBACK = ("127.0.0.1/8", "::1/128")


def shared_names(pod: Pod) -> list[str]:
    """The volumes that are directories of the host, as they lie in the tree: the first is `0` there."""
    return [v.name for v in pod.volumes if v.kind == "directory"]


def shared_entries(pod: Pod) -> list[share.Entry]:
    """The directories of the host, in the order of their names in the tree."""
    return [share.Entry(Path(v.source), v.read_only) for v in pod.volumes if v.kind == "directory"]


class Shared(NamedTuple):
    """A pod's tree of shared directories."""

    device: VirtioFs
    server: Started


async def share_of(
    pod: Pod, directory: Path, stack: contextlib.ExitStack, control_groups: Sequence[Path], *, use_virtiofs: bool
) -> Shared | None:
    """The pod's tree of shared directories, for a machine that boots; sockets are closed with the stack."""
    entries = shared_entries(pod)
    if not entries:
        return None
    share.check(entries)
    directory.mkdir(mode=0o700, parents=True, exist_ok=True)
    binary = share.require_virtiofsd(allowed=use_virtiofs)
    sock, server = await share.start_virtiofsd(binary, directory, entries, control_groups, root=os.geteuid() == 0)
    return Shared(VirtioFs(share.TAG, stack.enter_context(sock).fileno()), server)


# -- network ------------------------------------------------------------------------


def guest_interfaces(pod: Pod, links: Sequence[Link], macs: Sequence[str] = ()) -> list[Interface]:
    """What the guest configures; the NICs of a clone get their addresses there."""
    service_addresses = tuple(f"{s.service_ip}/{128 if ':' in s.service_ip else 32}" for s in pod.spec.services)
    found = [Interface("lo", (*_LOOPBACK, *service_addresses))]
    for index, link in enumerate(links):
        mac = macs[index] if index < len(macs) else ""
        found.append(Interface(f"eth{index}", link.addresses, link.gateways, link.mtu, mac=mac))
    return found


async def machine_config(
    pod: Pod,
    disks: list[AnyDisk],
    *,
    network: PodNetwork,
    directory: Path,
    kernel: Path,
    initramfs: Path,
    stack: contextlib.ExitStack,
    shared: VirtioFs | None,
    devices: tuple[PciDevice, ...],
    spares: bool,
) -> MachineConfig:
    """Everything that the driver needs; what it opens is closed with the stack, after the launch.

    `spares` says whether its machine can have NICs that are plugged in later.
    """
    networks = await network.open(pod, stack)
    if spares:
        room = _NICS_MAX - len(networks) - (shared is not None)
        networks += tuple(map(for_machine, network.spares(pod, len(networks))[: max(room, 0)]))
    return MachineConfig(
        name=pod.id[:12],
        directory=directory,
        vcpus=pod.vcpus,
        memory=pod.memory,
        kernel=kernel,
        initramfs=initramfs,
        disks=tuple(disks),
        networks=networks,
        share=shared,
        devices=devices,
        expandable=not pod.implicit,
        architecture=pod.architecture,
    )
