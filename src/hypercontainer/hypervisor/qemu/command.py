# SPDX-License-Identifier: Apache-2.0
"""QEMU's command line, as pure functions.

QEMU opens nothing itself: files and sockets come as descriptors. So it can run
as a user that may read nothing, in its own seccomp sandbox.
"""

from __future__ import annotations

from dataclasses import dataclass

from ..driver import GUEST_CHANNEL, MachineConfig, UserNetwork

MIB = 1 << 20


@dataclass(frozen=True)
class Descriptors:
    """Numbers of the descriptors that the QEMU process inherits."""

    kernel: int
    initramfs: int
    channel: int  # listening socket of the guest channel
    monitor: int  # listening socket of QMP
    console: int
    disks: tuple[int, ...] = ()


def machine_options(accelerator: str) -> list[str]:
    """Machine type, CPU and accelerator.

    A named CPU boots faster than `max` under TCG: the kernel patches less.
    """
    if accelerator == "kvm":
        return ["-machine", "microvm,acpi=off,rtc=on,isa-serial=on", "-accel", "kvm", "-cpu", "host"]
    return ["-machine", "microvm,acpi=off,rtc=on,isa-serial=on", "-accel", "tcg,tb-size=32", "-cpu", "qemu64"]


def kernel_command_line(accelerator: str) -> str:
    """Arguments of the guest's kernel; QEMU appends the virtio-mmio devices."""
    # Below the level of errors: a machine without PCI is one to the kernel, and
    # the last words of a guest shall be what ended it.
    arguments = ["console=ttyS0", "quiet", "loglevel=3", "reboot=t", "panic=-1", "no_timer_check"]
    if accelerator == "tcg":
        # Calibration and CPU mitigations cost a third of the boot and protect
        # nothing in an emulated CPU.
        arguments += ["tsc=reliable", "lpj=10000000", "mitigations=off"]
    return " ".join(arguments)


def disk_options(config: MachineConfig, descriptors: Descriptors) -> list[str]:
    """A virtio-blk device per disk, on the descriptor of the same place."""
    options: list[str] = []
    for index, (disk, fd) in enumerate(zip(config.disks, descriptors.disks, strict=True)):
        node, read_only = f"disk{index}", "on" if disk.read_only else "off"
        options += ["-add-fd", f"fd={fd},set={index}"]
        options += ["-blockdev", f"driver=raw,node-name={node},read-only={read_only},discard=unmap,"
                    f"file.driver=file,file.filename=/dev/fdset/{index},file.locking=off"]  # fmt: skip
        options += ["-device", f"virtio-blk-device,drive={node},serial={disk.serial}"]
    return options


def network_options(network: UserNetwork | None) -> list[str]:
    """User-mode network (slirp) with its published ports."""
    if network is None:
        return []
    forwards = "".join(f",hostfwd={p.protocol}:{p.host_ip or '0.0.0.0'}:{p.host_port}-:{p.container_port}" for p in network.ports)
    return ["-netdev", f"user,id=net0,ipv6=off{forwards}",
            "-device", f"virtio-net-device,netdev=net0,mac={network.mac}"]  # fmt: skip


def command_line(binary: str, config: MachineConfig, accelerator: str, fds: Descriptors) -> list[str]:
    """The whole command line."""
    return [
        binary,
        "-name", f"hyper-{config.name},process=hyper-{config.name[:9]}",
        *machine_options(accelerator),
        "-smp", str(config.vcpus),
        "-m", f"{config.memory // MIB}M",
        "-nodefaults",
        "-no-user-config",
        "-nographic",
        "-no-reboot",
        "-sandbox", "on,obsolete=deny,elevateprivileges=deny,spawn=deny,resourcecontrol=deny",
        "-kernel", f"/proc/self/fd/{fds.kernel}",
        "-initrd", f"/proc/self/fd/{fds.initramfs}",
        "-append", kernel_command_line(accelerator),
        "-add-fd", f"fd={fds.console},set=1000",
        "-chardev", "file,id=console,path=/dev/fdset/1000,append=on",
        "-serial", "chardev:console",
        "-device", "virtio-serial-device,max_ports=2",
        "-chardev", f"socket,id=guest,fd={fds.channel},server=on,wait=off",
        "-device", f"virtserialport,chardev=guest,name={GUEST_CHANNEL}",
        "-chardev", f"socket,id=monitor,fd={fds.monitor},server=on,wait=off",
        "-mon", "chardev=monitor,mode=control",
        *disk_options(config, fds),
        *network_options(config.network),
    ]  # fmt: skip
