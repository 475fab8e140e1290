# SPDX-License-Identifier: Apache-2.0
"""QEMU's command line, as pure functions.

QEMU opens nothing itself: files and sockets come as descriptors. So it can run
as a user that may read nothing, in its own seccomp sandbox.
"""

from __future__ import annotations

from dataclasses import dataclass

from ..driver import GUEST_CHANNEL, MachineConfig, VirtioFs
from . import devices

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
    others: tuple[int, ...] = ()  # of taps and of the shared directory's daemon


def machine_options(accelerator: str, *, shared_memory: bool = False) -> list[str]:
    """Machine type, CPU and accelerator.

    A named CPU boots faster than `max` under TCG: the kernel patches less.
    """
    machine = "microvm,acpi=off,rtc=on,isa-serial=on" + (",memory-backend=mem" if shared_memory else "")
    if accelerator == "kvm":
        return ["-machine", machine, "-accel", "kvm", "-cpu", "host"]
    return ["-machine", machine, "-accel", "tcg,tb-size=32", "-cpu", "qemu64"]


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


def command_line(binary: str, config: MachineConfig, accelerator: str, fds: Descriptors) -> list[str]:
    """The whole command line."""
    return [
        binary,
        "-name", f"hyper-{config.name},process=hyper-{config.name[:9]}",
        *machine_options(accelerator, shared_memory=isinstance(config.share, VirtioFs)),
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
        "-add-fd", f"fd={fds.console},set={devices.FDSET_CONSOLE}",
        "-chardev", f"file,id=console,path=/dev/fdset/{devices.FDSET_CONSOLE},append=on",
        "-serial", "chardev:console",
        "-device", "virtio-serial-device,max_ports=2",
        "-chardev", f"socket,id=guest,fd={fds.channel},server=on,wait=off",
        "-device", f"virtserialport,chardev=guest,name={GUEST_CHANNEL}",
        "-chardev", f"socket,id=monitor,fd={fds.monitor},server=on,wait=off",
        "-mon", "chardev=monitor,mode=control",
        *devices.share_options(config),
        *devices.disk_options(config, fds.disks),
        *devices.network_options(config.networks),
    ]  # fmt: skip
