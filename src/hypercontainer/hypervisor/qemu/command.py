# SPDX-License-Identifier: Apache-2.0
"""QEMU's command line, as pure functions.

QEMU opens nothing itself: files and sockets come as descriptors. So it can run
as a user that may read nothing, in its own seccomp sandbox.
"""

from __future__ import annotations

from dataclasses import dataclass

from ..driver import MachineConfig, VirtioFs
from . import devices, migration
from .machine_types import MICROVM, VIRT, MachineType

MIB = 1 << 20
_SANDBOX = ("-sandbox", "on,obsolete=deny,elevateprivileges=deny,spawn=deny,resourcecontrol=deny")
GUEST_CHANNEL, FILES_CHANNEL = "sh.hyper.guest.0", "sh.hyper.files.0"  # names of ports


@dataclass(frozen=True)
class Descriptors:
    """Numbers of the descriptors that the QEMU process inherits."""

    boot: tuple[int, ...]  # the kernel and its initramfs; of a snapshot the memory and the state
    channel: int  # listening socket of the guest channel
    monitor: int  # listening socket of QMP
    console: int  # listening socket of the serial port
    disks: tuple[int, ...] = ()
    others: tuple[int, ...] = ()  # of taps, of the shared directory's daemon, of a memory file
    files: int = -1  # listening socket of the channel for files, which machines have that take further disks


def machine_options(
    accelerator: str, machine_type: MachineType = MICROVM, *, memory_backend: bool = False
) -> list[str]:
    """Machine type, CPU and accelerator."""
    machine = f"{machine_type.name},{machine_type.options}" + (
        f",memory-backend={machine_type.memory}" if memory_backend else ""
    )
    properties = [word for one in machine_type.globals for word in ("-global", one)]
    if accelerator == "kvm":
        return ["-machine", machine, "-accel", "kvm", "-cpu", "host", *properties]
    return ["-machine", machine, "-accel", "tcg,tb-size=32", "-cpu", machine_type.cpu, *properties]


def kernel_command_line(
    accelerator: str, tsc_khz: int = 0, *, talkative: bool = False, machine_type: MachineType = MICROVM
) -> str:
    """Arguments of the guest's kernel; QEMU appends the virtio-mmio devices, or tells of them in a device tree.

    `tsc_khz` is the rate of the host's time stamp counter, 0 if it is not known.
    """
    # Below the level of errors: a machine without PCI is one to the kernel, and
    # the last words of a guest shall be what ended it.
    # Each byte leaves the guest: all of the kernel's messages would double a boot where that takes long.
    level = ["loglevel=6"] if talkative else ["quiet", "loglevel=3"]
    arguments = [f"console={machine_type.console}", *level, "panic=-1"]
    arguments += [f"hyper.channel=port:{GUEST_CHANNEL}"]  # hyperstart/src/port.c
    emulated = accelerator == "tcg"
    return " ".join([*arguments, *([] if machine_type is VIRT else _of_a_pc(tsc_khz, emulated=emulated))])


def _of_a_pc(tsc_khz: int, *, emulated: bool) -> list[str]:
    """What only a kernel for x86 is told."""
    arguments = ["reboot=t", "no_timer_check"]
    if emulated:
        # Calibration and CPU mitigations cost a third of the boot and protect
        # nothing in an emulated CPU.
        # So does taking locks out of the code for one processor: each patched page is translated again.
        # The emulated APIC's timer runs at 1 GHz (QEMU, hw/intc/apic.c); measuring it takes 0.26 s.
        arguments += ["tsc=reliable", "lpj=10000000", "mitigations=off", "noreplace-smp", "lapic_timer_khz=1000000"]
        # An emulated timer chip is too unsteady to measure the counter with:
        # a guest that fails has a clock of 10 ms, and no finer timers.
        arguments += [f"tsc_early_khz={tsc_khz}"] if tsc_khz else []
    return arguments


def boot_options(
    config: MachineConfig, accelerator: str, fds: Descriptors, tsc_khz: int, machine_type: MachineType
) -> list[str]:
    """A kernel that boots, or a machine that goes on."""
    if config.snapshot:
        # What `snapshots.save_devices` leaves begins with the devices: the name of the machine type is not before them.
        bare = ["-global", "migration.send-configuration=off"] if config.snapshot.live else []
        return ["-incoming", "defer", *bare, *(["-S"] if config.early else [])]  # `snapshots.load` says what
    if config.incoming is not None:
        bare = ["-global", "migration.send-configuration=off"] if migration.is_bare(config.incoming) else []
        return ["-incoming", "defer", "-S", *bare]  # `migration.receive` says what
    kernel, initramfs = fds.boot
    return [
        "-kernel",
        f"/proc/self/fd/{kernel}",
        "-initrd",
        f"/proc/self/fd/{initramfs}",
        "-append",
        kernel_command_line(accelerator, tsc_khz, talkative=config.talkative, machine_type=machine_type),
    ]


def memory_options(config: MachineConfig, fds: Descriptors, machine_type: MachineType = MICROVM) -> list[str]:
    """Memory in a file, which a template writes and its clones map privately."""
    if config.snapshot:
        path, share = f"/proc/self/fd/{fds.boot[0]}", "off"
    elif config.memory_file is not None:
        path, share = f"/proc/self/fd/{config.memory_file}", "on"
    else:
        return []
    backend = f"memory-backend-file,id={machine_type.memory},size={config.memory}"
    return ["-object", f"{backend},mem-path={path},share={share}"]


def port_options(config: MachineConfig, fds: Descriptors, machine_type: MachineType) -> list[str]:
    """The guest's channels."""
    ports = [("guest", fds.channel, GUEST_CHANNEL)]
    if config.expandable:
        ports.append(("files", fds.files, FILES_CHANNEL))
    options = ["-device", f"{machine_type.device('virtio-serial')},max_ports={len(ports) + 1}"]
    for name, fd, channel in ports:
        options += ["-chardev", f"socket,id={name},fd={fd},server=on,wait=off"]
        options += ["-device", f"virtserialport,chardev={name},name={channel}"]
    return options


def command_line(
    binary: str,
    config: MachineConfig,
    accelerator: str,
    fds: Descriptors,
    tsc_khz: int = 0,
    *,
    machine_type: MachineType = MICROVM,
    filtered: bool = False,
) -> list[str]:
    """The whole command line; QEMU's own filter of system calls is in it unless it is `filtered` by another."""
    memory = memory_options(config, fds, machine_type)
    return [
        binary,
        "-name", f"hyper-{devices.escaped(config.name)},process=hyper-{devices.escaped(config.name[:9])}",
        *machine_options(accelerator, machine_type, memory_backend=isinstance(config.share, VirtioFs) or bool(memory)),
        "-smp", machine_type.processors(config.vcpus),
        "-m", f"{config.memory // MIB}M",
        "-nodefaults",
        "-no-user-config",
        "-display", "none",
        "-no-reboot",
        *([] if filtered else _SANDBOX),
        *memory,
        *boot_options(config, accelerator, fds, tsc_khz, machine_type),
        "-chardev", f"socket,id=console,fd={fds.console},server=on,wait=off",
        "-serial", "chardev:console",
        *port_options(config, fds, machine_type),
        "-chardev", f"socket,id=monitor,fd={fds.monitor},server=on,wait=off",
        "-mon", "chardev=monitor,mode=control",
        *devices.share_options(config, machine_type),
        *devices.disk_options(config, fds.disks, machine_type),
        *devices.network_options(config.networks, machine_type),
        *devices.balloon_options(config, machine_type),
        *devices.slot_options(config, machine_type),
        *devices.host_device_options(config),
    ]  # fmt: skip
