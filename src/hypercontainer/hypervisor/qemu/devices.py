# SPDX-License-Identifier: Apache-2.0
"""QEMU's devices, as pure functions: option lists for the command line, arguments for QMP.

A machine has few places and takes nothing new there while it runs. So disks are
virtio-blk as long as they fit, and LUNs of one virtio-scsi else.
"""

from __future__ import annotations

import json
from typing import Any

from ...errors import InvalidArgument
from ..driver import (
    AnyDisk,
    AnyNetwork,
    Disk,
    MachineConfig,
    RbdDisk,
    SpareNetwork,
    StreamNetwork,
    UserNetwork,
    VirtioFs,
)
from .machine_types import MICROVM, MachineType

SCSI = "scsi"
SLOT = "slot"  # and a number: of those for what comes while the machine runs
FDSET_DISKS = 0  # fdset numbers: disks count from here
FDSET_EXCHANGED = 2000  # disks that replace others count from here
FDSET_STATE = FDSET_EXCHANGED + (1 << 30)  # states that are saved; a number in a path is one of 31 bits
# https://www.qemu.org/docs/master/system/qemu-manpage.html, -drive cache=
_CACHE: dict[str, dict[str, bool]] = {
    "": {}, "writeback": {}, "writethrough": {}, "off": {"direct": True}, "none": {"direct": True},
    "directsync": {"direct": True}, "unsafe": {"no-flush": True},
}  # fmt: skip
_WRITE_THROUGH = ("writethrough", "directsync")


def _others(config: MachineConfig) -> int:
    """Places that are taken by what is no disk."""
    return 1 + len(config.networks) + (config.share is not None) + len(config.devices)  # one for the serial channel


def uses_scsi(config: MachineConfig, machine_type: MachineType = MICROVM) -> bool:
    """Whether the disks are LUNs."""
    return config.expandable or _others(config) + len(config.disks) > machine_type.places


def _places(config: MachineConfig, machine_type: MachineType) -> int:
    """How many all of them take."""
    return _others(config) + (1 if uses_scsi(config, machine_type) else len(config.disks))


def block_node(disk: AnyDisk, node: str, fdset: int) -> dict[str, Any]:
    """Arguments of blockdev-add."""
    if isinstance(disk, RbdDisk):
        servers = [dict(zip(("host", "port"), m.rsplit(":", 1), strict=True)) for m in disk.monitors]
        user = {"user": disk.user, "key-secret": f"{node}-key"} if disk.user else {}
        return {
            "driver": "raw",
            "node-name": node,
            "read-only": disk.read_only,
            "file": {"driver": "rbd", "pool": disk.pool, "image": disk.image, "server": servers, **user},
        }
    cache = {"cache": _CACHE[disk.cache]} if _CACHE[disk.cache] else {}
    file = {"driver": "file", "filename": f"/dev/fdset/{fdset}", "locking": "off", "discard": "unmap", **cache}
    # Whoever wrote the file must not make us open another one.
    backing = {"backing": None} if disk.format == "qcow2" else {}
    return {
        "driver": disk.format,
        "node-name": node,
        "read-only": disk.read_only,
        "discard": "unmap",
        "file": file,
        **cache,
        **backing,
    }


def disk_device(disk: AnyDisk, node: str, *, scsi: bool, machine_type: MachineType = MICROVM) -> dict[str, Any]:
    """Arguments of device_add."""
    lun = {"driver": "scsi-hd", "bus": f"{SCSI}.0", "scsi-id": 0}
    driver = lun if scsi else {"driver": machine_type.device("virtio-blk")}
    through = isinstance(disk, Disk) and disk.cache in _WRITE_THROUGH
    return {
        **driver,
        "id": f"dev-{disk.serial}",
        "drive": node,
        "serial": disk.serial,
        "write-cache": "off" if through else "auto",
    }


def escaped(value: object) -> str:
    """A value in one of QEMU's option strings: a comma would begin the next option, so it is doubled."""
    return str(value).replace(",", ",,")


def _device_option(arguments: dict[str, Any]) -> str:
    driver = arguments["driver"]
    return ",".join([driver, *(f"{k}={escaped(v)}" for k, v in arguments.items() if k != "driver")])


def disk_options(config: MachineConfig, fds: tuple[int, ...], machine_type: MachineType = MICROVM) -> list[str]:
    """All disks of the command line; `fds` has one per file, or per key of a cluster, in their order."""
    options: list[str] = []
    scsi = uses_scsi(config, machine_type)
    if scsi:
        options += ["-device", f"{machine_type.device('virtio-scsi')},id={SCSI}"]
    numbers = iter(fds)
    for index, disk in enumerate(config.disks):
        node = f"disk-{disk.serial}"
        if isinstance(disk, Disk):
            options += ["-add-fd", f"fd={next(numbers)},set={FDSET_DISKS + index}"]
        elif disk.keyring:
            options += ["-object", f"secret,id={node}-key,file=/proc/self/fd/{next(numbers)},format=base64"]
        options += ["-blockdev", json.dumps(block_node(disk, node, FDSET_DISKS + index))]
        device = disk_device(disk, node, scsi=scsi, machine_type=machine_type)
        options += ["-device", _device_option(device)]
    return options


def network_options(networks: tuple[AnyNetwork, ...], machine_type: MachineType = MICROVM) -> list[str]:
    """A NIC per network: slirp with its published ports, passt's stream, a tap, or a hub that has no other port yet."""
    options: list[str] = []
    numbered = list(enumerate(networks))
    # The guest's names of them follow from their order: the first is eth0.
    for index, network in reversed(numbered) if machine_type.backwards else numbered:
        if isinstance(network, UserNetwork):
            forwards = "".join(
                f",hostfwd={escaped(forward(p.protocol, p.host_ip, p.host_port, p.container_port))}"
                for p in network.ports
            )
            options += ["-netdev", f"user,id=net{index},ipv6=off{forwards}"]
        elif isinstance(network, StreamNetwork):
            options += ["-netdev", f"stream,id=net{index},server=off,addr.type=fd,addr.str={network.fd}"]
        elif isinstance(network, SpareNetwork):
            options += ["-netdev", f"hubport,id=net{index},hubid={index}"]
        else:
            options += ["-netdev", f"tap,id=net{index},fd={network.fd}"]
        device = machine_type.device("virtio-net")
        options += ["-device", f"{device},netdev=net{index},mac={escaped(network.mac)}"]
    return options


def forward(protocol: str, host_ip: str, host_port: int, container_port: int) -> str:
    """A rule of slirp's hostfwd."""
    return f"{protocol}:{host_ip or '0.0.0.0'}:{host_port}-:{container_port}"


def share_options(config: MachineConfig, machine_type: MachineType = MICROVM) -> list[str]:
    """The directory tree of the host that the pod's volumes are taken from."""
    share = config.share
    if isinstance(share, VirtioFs):
        device = machine_type.device("vhost-user-fs")
        # The daemon reads the guest's memory, and speaks virtio 1 only.
        return ["-object", f"memory-backend-memfd,id={machine_type.memory},size={config.memory},share=on",
                "-global", "virtio-mmio.force-legacy=false",
                "-chardev", f"socket,id=share,fd={share.socket}",
                "-device", f"{device},chardev=share,tag={escaped(share.tag)}"]  # fmt: skip
    return []


def slot_options(config: MachineConfig, machine_type: MachineType) -> list[str]:
    """Ports of PCI Express, each with a slot for a NIC that comes while the machine runs, where it may join networks.

    With a device of the host it may not: that can be a NIC, which the guest has counted.
    """
    joins = any(isinstance(network, SpareNetwork) for network in config.networks) and not config.devices
    if not machine_type.slots or not joins:
        return []
    ports = [f"pcie-root-port,id={SLOT}{n},chassis={n + 1}" for n in range(machine_type.slots)]
    # QEMU would tell the guest of what comes by ACPI, and hide that the ports can.
    own = ["-global", "ICH9-LPC.acpi-pci-hotplug-with-bridge-support=off"]
    return [*own, *(word for option in ports for word in ("-device", option))]


def nic_in_slot(nic: int, mac: str, slot: int) -> dict[str, Any]:
    """Arguments of device_add, for a NIC that comes while the machine runs; its id says where it is."""
    return {
        "driver": "virtio-net-pci", "netdev": f"net{nic}", "mac": mac, "bus": f"{SLOT}{slot}",
        "id": f"nic{nic}.{SLOT}{slot}",
    }  # fmt: skip


def host_device_options(config: MachineConfig) -> list[str]:
    """PCI devices of the host, the last on the bus: the guest names its interfaces and disks in the bus's order.

    What a device has for firmware (its ROM) is not run.
    """
    given = [f"vfio-pci,sysfsdev={escaped(device.directory)},rombar=0" for device in config.devices]
    return [word for option in given for word in ("-device", option)]


def balloon_options(config: MachineConfig, machine_type: MachineType = MICROVM) -> list[str]:
    """A balloon through which the guest reports free pages, which go back to the host; where there is a place for it.

    Not where memory lies in a file that others map: QEMU gives a page back by punching a hole into that file.
    """
    full = _places(config, machine_type) >= machine_type.places
    in_file = config.snapshot is not None or config.memory_file is not None
    # A device of the host reaches all memory at any time, so it stays where it is.
    if full or config.devices or (in_file if config.balloon is None else not config.balloon):
        return []
    return ["-device", f"{machine_type.device('virtio-balloon')},free-page-reporting=on"]


def check_places(config: MachineConfig, machine_type: MachineType = MICROVM) -> None:
    """:raise InvalidArgument: when there are more network interfaces, or devices, than the machine has places."""
    if _places(config, machine_type) > machine_type.places:
        if config.devices:
            raise InvalidArgument(f"{len(config.devices)} PCI devices of this host do not fit into one machine")
        raise InvalidArgument(f"{len(config.networks)} network interfaces do not fit into one machine",
                              hint=f"give at most {machine_type.places - 3}")  # fmt: skip
