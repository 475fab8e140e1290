# SPDX-License-Identifier: Apache-2.0
"""A pod's machine: its network interfaces and shared directories, and all that its driver needs."""

from __future__ import annotations

import contextlib
import os
from collections.abc import Sequence
from pathlib import Path

from ..errors import InvalidArgument
from ..hypervisor.driver import (
    AnyDisk,
    AnyNetwork,
    Disk,
    MachineConfig,
    NineP,
    RbdDisk,
    StreamNetwork,
    TapNetwork,
    UserNetwork,
    VirtioFs,
)
from ..model.network import USER_MODE_OPEN, USER_MODES
from ..model.pods import InterfaceSpec
from ..model.specs import PortMapping
from ..model.status import Pod
from ..network import cni, links, passt, tap, usermode
from ..network.addresses import new_mac
from ..protocol.messages import Interface
from ..volumes import share
from .factory.clones import Nic
from .networks import Networks, tap_name

_LOOPBACK = ("127.0.0.1/8", "::1/128")


def shared_entries(pod: Pod) -> list[share.Entry]:
    """The directories of the host, in the order of their names in the tree."""
    return [share.Entry(Path(v.source), v.read_only) for v in pod.volumes if v.kind == "directory"]


def share_of(pod: Pod, directory: Path, stack: contextlib.ExitStack, *, use_virtiofs: bool) -> VirtioFs | NineP | None:
    """The pod's tree of shared directories; sockets are closed with the stack."""
    entries = shared_entries(pod)
    if not entries:
        return None
    share.check(entries)
    directory.mkdir(mode=0o700, parents=True, exist_ok=True)
    root = os.geteuid() == 0
    if root or (use_virtiofs and share.find_virtiofsd()):
        binary = share.require_virtiofsd(allowed=use_virtiofs)
        sock = stack.enter_context(share.start_virtiofsd(binary, directory, entries, root=root))
        return VirtioFs(share.TAG, sock.fileno())
    tree = directory / "share"
    tree.mkdir(exist_ok=True)
    return NineP(share.TAG, tree, tuple(share.launcher(tree, entries, root=False)), "none")


# -- network ------------------------------------------------------------------------


def interface_specs(pod: Pod, networks: Networks) -> list[InterfaceSpec]:
    """The NICs of a pod: in networks of this host, as it lists them, or one on the user-mode network."""
    nics = networks.nics(pod) + pod.spec.interfaces
    return nics or ([InterfaceSpec()] if pod.spec.network in USER_MODES else [])


async def networks_of(pod: Pod, networks: Networks, stack: contextlib.ExitStack) -> tuple[AnyNetwork, ...]:
    """NICs for the driver; a tap's descriptor is closed with the stack."""
    nics: list[AnyNetwork] = []
    specs = interface_specs(pod, networks)
    if pod.ports and not pod.attachments and not pod.cni and not any(not s.bridge for s in specs):
        raise InvalidArgument(
            "published ports need an interface without a bridge", hint="add an interface that names none"
        )
    for index, spec in enumerate(specs):
        mac = spec.mac or usermode.new_mac()
        if spec.namespace:
            fd = await cni.open_tap(spec.namespace)
            stack.callback(os.close, fd)
            nics.append(TapNetwork(mac, fd))
        elif spec.bridge:
            name = spec.ifname or tap_name(pod, index)
            fd = await tap.open_tap(name, spec.bridge, spec.mtu)
            stack.callback(os.close, fd)
            if pod.spec.ingress_rate:
                await links.limit(name, pod.spec.ingress_rate)
            nics.append(TapNetwork(mac, fd, name))
        else:
            first = not any(isinstance(c, (UserNetwork, StreamNetwork)) for c in nics)
            ports = tuple(pod.ports) if first and not pod.attachments else ()
            nics.append(
                await _user_network(mac, ports, networks, stack, host_loopback=pod.spec.network == USER_MODE_OPEN)
            )
    for index in range(len(specs), len(specs) + networks.spares(pod)):
        name = tap_name(pod, index)
        fd = tap.create_tap(name)
        stack.callback(os.close, fd)
        nics.append(TapNetwork(new_mac(), fd, name))
    return tuple(nics)


async def _user_network(
    mac: str, ports: tuple[PortMapping, ...], networks: Networks, stack: contextlib.ExitStack, *, host_loopback: bool
) -> AnyNetwork:  # fmt: skip
    if not networks.uses_passt:
        return UserNetwork(mac, ports, host_loopback)
    return StreamNetwork(mac, stack.enter_context(await passt.start(ports, host_loopback=host_loopback)).fileno())


def kinds(pod: Pod, networks: Networks, *, virtiofs: bool) -> set[type]:
    """Which kinds of disks, networks and shared directories its machine has (`Driver.takes`)."""
    found: set[type] = {Disk}
    for volume in pod.volumes:
        if volume.kind == "rbd":
            found.add(RbdDisk)
        elif volume.kind == "directory":
            found.add(VirtioFs if os.geteuid() == 0 or (virtiofs and share.find_virtiofsd()) else NineP)
    for spec in interface_specs(pod, networks):
        if spec.namespace or spec.bridge:
            found.add(TapNetwork)
        else:
            found.add(StreamNetwork if networks.uses_passt else UserNetwork)
    return found


def nic_address(pod: Pod, networks: Networks) -> str:
    """The MAC address that the NIC of a machine that waited gets; "" without one."""
    specs = interface_specs(pod, networks)
    return (specs[0].mac or usermode.new_mac()) if specs else ""


async def plug_in(nic: Nic, pod: Pod, networks: Networks) -> None:
    """Bring the NIC of a machine that waited into the pod's network.

    :raise Conflict: a published port is taken.
    """
    specs = interface_specs(pod, networks)
    if nic.tap:
        spec = specs[0]
        name = spec.ifname or tap_name(pod, 0)
        await tap.move(nic.tap, name, spec.bridge, spec.mtu)
        if pod.spec.ingress_rate:
            await links.limit(name, pod.spec.ingress_rate)
    elif nic.peer:
        await passt.serve(tuple(pod.ports), nic.peer, host_loopback=pod.spec.network == USER_MODE_OPEN)


def guest_interfaces(pod: Pod, networks: Networks, macs: Sequence[str] = ()) -> list[Interface]:
    """What the guest configures; the NICs of a clone get their addresses there."""
    service_addresses = tuple(f"{s.service_ip}/{128 if ':' in s.service_ip else 32}" for s in pod.spec.services)
    found = [Interface("lo", (*_LOOPBACK, *service_addresses))]
    for index, spec in enumerate(interface_specs(pod, networks)):
        mac = macs[index] if index < len(macs) else ""
        if spec.bridge or spec.namespace:
            gateways = tuple(filter(None, (spec.gateway, spec.gateway6)))
            found.append(Interface(f"eth{index}", tuple(spec.addresses), gateways, spec.mtu, mac=mac))
        else:
            found.append(Interface(f"eth{index}", (usermode.ADDRESS,), (usermode.GATEWAY,), spec.mtu, mac=mac))
    return found


async def machine_config(
    pod: Pod,
    disks: list[AnyDisk],
    *,
    networks: Networks,
    directory: Path,
    kernel: Path,
    initramfs: Path,
    stack: contextlib.ExitStack,
    virtiofs: bool,
) -> MachineConfig:
    """Everything that the driver needs; what it opens is closed with the stack, after the launch."""
    return MachineConfig(
        name=pod.id[:12],
        directory=directory,
        vcpus=pod.vcpus,
        memory=pod.memory,
        kernel=kernel,
        initramfs=initramfs,
        disks=tuple(disks),
        networks=await networks_of(pod, networks, stack),
        share=share_of(pod, directory, stack, use_virtiofs=virtiofs),
        expandable=not pod.implicit,
    )
