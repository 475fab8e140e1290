# SPDX-License-Identifier: Apache-2.0
"""A machine as xl.cfg(5) and xl-disk-configuration(5) of Xen 4.17 describe a PVH domain."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from pathlib import Path

from ...errors import InvalidArgument, InvalidState
from ..driver import MachineConfig, TapNetwork

MIB = 1 << 20
# xl gives its channels the numbers 0, 1..., where libxl has 0 for the kernel's console, complains of the first and
# leaves it away (ARRAY_EXTEND_INIT in tools/xl/xl_parse.c); should it once count from 1, the first is the console 1.
# So there are two, and the guest's console 1 is that whose name xenstore has there.
CHANNELS = ("first", "second")
CONSOLE = 1  # number of the guest's console that is the agent's
DISKS = 26  # xvda to xvdz
PROCESSORS = 64  # of hyperkernel
_SOCKET = ".sock"


def kernel_command_line(*, talkative: bool = False) -> str:
    """Arguments of the guest's kernel. A PVH domain has no PCI."""
    level = ["loglevel=6"] if talkative else ["quiet", "loglevel=3"]
    return " ".join(["console=hvc0", *level, "panic=-1", "pci=off", f"hyper.channel=hvc:{CONSOLE}"])


def check_domain(config: MachineConfig, driver: str) -> None:
    """What the kinds of a machine's parts do not tell.

    :raise InvalidArgument: it has too many disks or processors, or a path that QEMU cannot be told.
    """
    for what, count, most in (("processors", config.vcpus, PROCESSORS), ("disks", len(config.disks), DISKS)):
        if count > most:
            raise InvalidArgument(f"a machine of the driver {driver!r} has at most {most} {what}")
    if "," in str(config.directory):  # QEMU is told of the channel by words that commas part
        raise InvalidArgument(f"the driver {driver!r} cannot have a comma in the path {str(config.directory)!r}")


def check(config: MachineConfig) -> None:
    """The same, and what xl's file has no words for.

    :raise InvalidArgument: as above, or it is a path that xl cannot be told.
    """
    check_domain(config, "xen")
    for path in (config.kernel, config.initramfs, config.directory):
        _quoted(str(path))


def channel(directory: Path, name: str) -> Path:
    """Where QEMU, as a domain's console of this name, listens."""
    return directory / f"{name}{_SOCKET}"


def names(config: MachineConfig) -> dict[str, str]:
    """What the guest finds each disk by."""
    return {disk.serial: found_by(index) for index, disk in enumerate(config.disks)}


def macs(config: MachineConfig) -> list[str]:
    """Of its network interfaces, with those that it gets later."""
    return [nic.mac for nic in config.networks]


def device(index: int) -> str:
    """What the guest's kernel calls the disk in this place."""
    return f"xvd{chr(ord('a') + index)}"


def document(config: MachineConfig, name: str, loops: Sequence[str], script: str) -> str:
    """The domain's configuration file; `loops` are its disks' devices, `script` what xl runs for each device."""
    nics = [", ".join(vif(nic.mac, script)) for nic in config.networks if isinstance(nic, TapNetwork)]
    disks = [
        disk(index, loop, script, read_only=one.read_only)
        for index, (one, loop) in enumerate(zip(config.disks, loops, strict=True))
    ]
    channels = [f"name={name}, connection=socket, path={channel(config.directory, name)}" for name in CHANNELS]
    settings: Mapping[str, str | int | list[str]] = {
        "name": name,
        "type": "pvh",
        "vcpus": config.vcpus,
        "memory": config.memory // MIB,
        "kernel": str(config.kernel),
        "ramdisk": str(config.initramfs),
        "cmdline": kernel_command_line(talkative=config.talkative),
        "on_poweroff": "destroy",
        "on_reboot": "destroy",  # as hyperstart ends a machine, and a kernel that panics
        "on_crash": "destroy",
        "on_watchdog": "destroy",
        "channel": channels,
        "disk": disks,
        "vif": nics,
    }
    return "".join(f"{key} = {_value(value)}\n" for key, value in settings.items())


def disk(index: int, loop: str, script: str, *, read_only: bool) -> str:
    """The disk in this place, whose device is `loop`."""
    access = "ro" if read_only else "rw"
    return f"format=raw, vdev={device(index)}, access={access}, backendtype=phy, script={script}, target={loop}"


def vif(mac: str, script: str) -> list[str]:
    """A network interface; libxl gives it the next number."""
    return [f"mac={mac}", f"script={script}"]


def free_place(names: Mapping[str, str], driver: str, last: int) -> int:
    """Where none of these disks is; one after the `last`, as a guest may have yet what was taken out a moment ago.

    :raise InvalidState: there is no such place.
    """
    taken = set(names.values())
    for step in range(DISKS):
        index = (last + 1 + step) % DISKS
        if found_by(index) not in taken:
            return index
    raise InvalidState(f"a machine of the driver {driver!r} has at most {DISKS} disks")


def found_by(index: int) -> str:
    """How the guest finds the disk in this place: it has no serial number, but a name of ours."""
    return f"dev:{device(index)}"


def _value(value: str | int | list[str]) -> str:
    if isinstance(value, list):
        return f"[ {', '.join(map(_quoted, value))} ]"
    return str(value) if isinstance(value, int) else _quoted(value)


def _quoted(text: str) -> str:
    """As it is: a backslash would begin something else in the file's grammar (libxlu_cfg.c of Xen).

    :raise InvalidArgument: not every text has a place there.
    """
    for quote in "\"'":
        if not {quote, "\n", "\\"} & set(text):
            return f"{quote}{text}{quote}"
    raise InvalidArgument(
        f"the driver 'xen' cannot have both kinds of quotes, nor a line break or a backslash, in {text!r}"
    )
