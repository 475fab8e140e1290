# SPDX-License-Identifier: Apache-2.0
"""A machine as Firecracker's configuration file describes it: https://github.com/firecracker-microvm/firecracker,
src/firecracker/swagger/firecracker.yaml (1.12)."""

from __future__ import annotations

from typing import Any

from ...errors import InvalidArgument
from ..driver import MachineConfig, TapNetwork
from .places import NOTHING, PORT, VSOCK, Places

MIB = 1 << 20
PROCESSORS = 32  # the swagger's maximum of vcpu_count
# Interrupt lines 5 to 23 of x86_64 (src/vmm/src/arch/x86_64/layout.rs), one each, and one for what tells a guest that
# it is a clone (src/vmm/src/devices/acpi/vmgenid.rs).
DEVICES = 18
_SECOND = 1000  # milliseconds
_CID = 3  # of the guest; each machine has a socket of its own, so all have the same


def kernel_command_line(*, talkative: bool = False) -> str:
    """Arguments of the guest's kernel; Firecracker appends the virtio-mmio devices."""
    level = ["loglevel=6"] if talkative else ["quiet", "loglevel=3"]
    channel = f"hyper.channel=vsock:{PORT}"
    return " ".join(["console=ttyS0", *level, "reboot=t", "panic=-1", "no_timer_check", "pci=off", channel])


def check(config: MachineConfig) -> None:
    """What the kinds of a machine's parts do not tell.

    :raise InvalidArgument: it has too many devices, or processors.
    """
    if config.vcpus > PROCESSORS:
        raise InvalidArgument(f"a machine of the driver 'firecracker' has at most {PROCESSORS} processors",
                              hint="the driver 'qemu' has more: use --driver qemu")  # fmt: skip
    places = _devices(config)
    if places > DEVICES:
        raise InvalidArgument(f"a machine of the driver 'firecracker' has no place for {places} devices",
                              hint=f"it has {DEVICES}; the driver 'qemu' has more: use --driver qemu")  # fmt: skip


def _devices(config: MachineConfig) -> int:
    """Those that a machine cannot be without, with its vsock."""
    return 1 + len(config.disks) + len(config.networks)


def spares(config: MachineConfig) -> tuple[bool, ...]:
    """Drives for disks that come later, as many as there is room for: whether each is read-only.

    A container has two disks, its image's and its own; the balloon keeps its place.
    """
    pairs = (DEVICES - 1 - _devices(config)) // 2 if config.expandable else 0
    return (True, False) * max(pairs, 0)


def device(index: int) -> str:
    """What the guest's kernel calls the drive in this place: it counts them in order."""
    return f"vd{chr(ord('a') + index)}"


def names(config: MachineConfig) -> dict[str, str]:
    """What the guest finds each disk by: they have no serial numbers of ours."""
    return {disk.serial: f"dev:{device(index)}" for index, disk in enumerate(config.disks)}


def drive_id(index: int) -> str:
    """Of the disk in this place."""
    return f"disk{index}"


def nic_id(index: int) -> str:
    """Of the network interface in this place."""
    return f"eth{index}"


def document(config: MachineConfig, boot: tuple[int, int], where: Places, io_rate: int = 0) -> dict[str, Any]:
    """The configuration file; `boot` has the numbers of the kernel's and the initramfs's descriptors in the process.

    `io_rate` is in bytes per second, for what each disk reads and writes together; 0 for as many as it can.
    """
    kernel, initramfs = boot
    # Empty until something is to be given back; the guest takes out of it what it would end programs for.
    balloon = {"balloon": {"amount_mib": 0, "deflate_on_oom": True}} if _devices(config) < DEVICES else {}
    limits = {"rate_limiter": {"bandwidth": {"size": io_rate, "refill_time": _SECOND}}} if io_rate else {}
    nothing = where.directory / NOTHING
    drives = [(where.disks[index], disk.read_only) for index, disk in enumerate(config.disks)]
    drives += [(nothing, read_only) for read_only in spares(config)]
    return {
        "boot-source": {
            "kernel_image_path": f"/proc/self/fd/{kernel}",
            "initrd_path": f"/proc/self/fd/{initramfs}",
            "boot_args": kernel_command_line(talkative=config.talkative),
        },
        "machine-config": {"vcpu_count": config.vcpus, "mem_size_mib": config.memory // MIB},
        "drives": [
            {
                "drive_id": drive_id(index),
                "path_on_host": str(path),
                "is_root_device": False,
                "is_read_only": read_only,
                "cache_type": "Writeback",  # with the other one a guest's flush is none
                **limits,
            }
            for index, (path, read_only) in enumerate(drives)
        ],
        "network-interfaces": [
            {"iface_id": nic_id(index), "guest_mac": nic.mac, "host_dev_name": nic.name}
            for index, nic in enumerate(config.networks)
            if isinstance(nic, TapNetwork)
        ],
        **balloon,
        "vsock": {"guest_cid": _CID, "uds_path": str(where.directory / VSOCK)},
    }
