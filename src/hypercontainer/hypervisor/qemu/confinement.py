# SPDX-License-Identifier: Apache-2.0
"""What QEMU is handed: its files, its user, its system calls. docs/jail.md has the table."""

from __future__ import annotations

import functools
import os
import resource
import stat
from collections.abc import Iterable, Sequence
from dataclasses import replace
from pathlib import Path

from ...errors import Unavailable
from ...jail import seccomp
from ...jail.jail import Entry, Limits, Order
from ...jail.libraries import libraries
from ...jail.report import Grants
from ...sys import process, users
from ..ask import ask
from ..driver import AnyDisk, Disk, MachineConfig, RbdDisk, UserNetwork
from ..facets import Needs

# QEMU looks into `-L help`'s directories for firmware, and into ../lib/*/qemu for parts of itself.
_FIRMWARE = ("bios-microvm.bin", "bios-256k.bin", "qboot.rom", "pvh.bin", "linuxboot_dma.bin", "kvmvapic.bin")
_PARTS = ("accel-tcg-*.so", "block-rbd.so")
_PLACES_OF_PARTS = ("lib/*/qemu", "lib64/qemu", "lib/qemu")
# For librbd, which speaks to the cluster itself.
_NETWORK_FILES = ("/etc/resolv.conf", "/etc/hosts", "/etc/nsswitch.conf", "/etc/host.conf", "/etc/services")
_TIME_ZONE = {"TZ": "UTC0"}  # no file tells it
# Of one in the jail. With arenas of threads glibc opens files, which the filter answers with death: to count
# processors when there are many, and /proc/sys/vm/overcommit_memory when one of them shrinks (malloc/arena.c).
ENVIRONMENT = {**_TIME_ZONE, "MALLOC_ARENA_MAX": "1"}
_SHORT = 256 << 20  # bytes
# Bytes. A host that gives huge pages to all (`always` in /sys/kernel/mm/transparent_hugepage/enabled) backs a larger
# stack by one of them, 2 MiB, as soon as anything lies on it: two of QEMU's threads had one each.
_STACK = 1 << 20
# Bytes, beside the guest's memory: firmware and the devices' own, of all that VFIO keeps where it is.
_LOCKED = 1 << 30
_CAP_SYS_RESOURCE = 24  # linux/capability.h
_OVERHEAD = {"tcg": 192 << 20, "kvm": 128 << 20}  # bytes; page tables are some more, with the guest's memory
_TASKS = 192  # QEMU has 64 threads for disks at most, virtiofsd as many, and a few each
KVM = Path("/dev/kvm")
_DEVICES = (Path("/dev/null"), Path("/dev/urandom"))
CALLS = Path(__file__).with_name("calls.txt")
USER_NETWORK_CALLS = Path(__file__).with_name("user-network-calls.txt")


def own_network(config: MachineConfig) -> bool:
    """Whether it brings frames and blocks to their places by the host's network itself."""
    parts: tuple[object, ...] = (*config.networks, *config.disks)
    return any(isinstance(p, UserNetwork | RbdDisk) for p in parts)


def filtered(config: MachineConfig, *, jailed: bool) -> bool:
    """Whether it has an allow-list of system calls; else, with a client of Ceph in it, QEMU's own list of others."""
    return jailed and not any(isinstance(d, RbdDisk) for d in config.disks)


def order(
    line: tuple[str, ...],
    config: MachineConfig,
    accelerator: str,
    descriptors: Sequence[int],
    output: int,
    *,
    jailed: bool,
) -> Order:
    """How it is started; `jailed` where it sees its own files only.

    :raise Unavailable: its libraries cannot be listed, or it cannot have devices of the host.
    """
    if config.devices:
        _check_devices(config, jailed=jailed)
    user, groups = _identity(accelerator, config, jailed=jailed)
    plain = Order(
        args=line,
        user=user,
        groups=groups,
        output=output,
        descriptors=tuple(descriptors),
        control_groups=config.control_groups,
        limits=Limits(file_size=_file_size(config), stack=_STACK),
        # Nothing of ours: what it has there is in its memory, which a guest may come to read.
        environment={"PATH": os.environ.get("PATH", os.defpath), **_TIME_ZONE},
    )
    if not jailed:
        return plain
    network = own_network(config)
    return replace(
        plain,
        environment=ENVIRONMENT,
        files=(
            *_files(Path(line[0])),
            *(Entry(Path(p)) for p in _NETWORK_FILES if network and os.path.exists(p)),
            *(Entry(device.directory) for device in config.devices),
        ),
        devices=(*_DEVICES, *([KVM] if accelerator == "kvm" else []), *_nodes(config)),
        limits=replace(plain.limits, locked_memory=config.memory + _LOCKED if config.devices else -1),
        host_network=network,
        filter=_filter(network=network) if filtered(config, jailed=jailed) else b"",
        # A QEMU that finds it uses it for its main loop, and would go on to do so under the filter.
        first_filter=seccomp.refusals(frozenset({"io_uring_setup"})),
    )


def _nodes(config: MachineConfig) -> tuple[Path, ...]:
    """Of its devices of the host, each once."""
    return tuple(dict.fromkeys(node for device in config.devices for node in device.nodes))


def grants(places: Sequence[str]) -> Grants:
    """What a machine has with devices of the host, by their directories in sysfs, for who looks at its jail."""
    return Grants(places=tuple(places), devices=frozenset({"vfio"} if places else ()))


def _check_devices(config: MachineConfig, *, jailed: bool) -> None:
    """:raise Unavailable: hyperd cannot give it devices of the host."""
    if not jailed:
        raise Unavailable("PCI devices of this host are handed over in a jail only, and there is none",
                          hint="see `jail` in docs/configuration.md")  # fmt: skip
    _, hard = resource.getrlimit(resource.RLIMIT_MEMLOCK)
    wanted = config.memory + _LOCKED
    if hard != resource.RLIM_INFINITY and hard < wanted and not _may_raise_limits():
        raise Unavailable(
            f"a machine with a PCI device locks {wanted >> 20} MiB of memory, and hyperd may lock {hard >> 20} MiB",
            hint="give hyperd a higher limit: `ulimit -l`, or LimitMEMLOCK=infinity of its service",
        )


def footprint(accelerator: str, vcpus: int, memory: int) -> Needs:
    """What QEMU takes with passt and virtiofsd; docs/jail.md has the measurements."""
    # Of a clone's memory twice: what it has read of its template may be counted as its own, and what it has written is.
    return Needs(memory=2 * memory + memory // 64 + _OVERHEAD[accelerator], tasks=vcpus + _TASKS)


def largest_file(disks: Iterable[AnyDisk]) -> int:
    """How long, in bytes, a file may be that it writes to with these disks; -1 where that is not known.

    An image with a format grows beyond its disk, and a device is no file. Logs and states of templates are short.
    """
    largest = _SHORT
    for disk in disks:
        if isinstance(disk, Disk) and not disk.read_only:
            about = os.stat(disk.path)
            if disk.format != "raw" or not stat.S_ISREG(about.st_mode):
                return -1
            largest = max(largest, about.st_size)
    return largest


def _file_size(config: MachineConfig) -> int:
    """None where it may get larger disks while it runs, and its limit could not be raised then."""
    return -1 if config.expandable and not _may_raise_limits() else largest_file(config.disks)


@functools.cache
def _may_raise_limits() -> bool:
    """CAP_SYS_RESOURCE (capabilities(7))."""
    return process.has_capability(_CAP_SYS_RESOURCE)


@functools.cache
def _filter(*, network: bool) -> bytes:
    """Of one that uses the host's network itself, or of one that does not."""
    return seccomp.program((*seccomp.read(CALLS), *(seccomp.read(USER_NETWORK_CALLS) if network else ())))


def _identity(accelerator: str, config: MachineConfig, *, jailed: bool) -> tuple[int, tuple[int, ...]]:
    """User, and groups for it; a jail makes devices that are the user's own."""
    groups: tuple[int, ...] = ()
    if accelerator == "kvm" and not jailed and os.geteuid() == 0:
        device = os.stat(KVM)
        if device.st_mode & 0o066 == 0:
            return 0, ()  # only root may open it, and QEMU opens it by its path
        groups = (device.st_gid,)
    return config.user or users.pick(), groups


@functools.lru_cache(maxsize=4)
def _files(binary: Path) -> tuple[Entry, ...]:
    """The binary, what it loads, and firmware; found once for a daemon."""
    found = {binary: None, **dict.fromkeys(libraries(binary))}
    for directory in _data_directories(binary):
        found |= dict.fromkeys(directory / name for name in _FIRMWARE if (directory / name).exists())
    for part in _parts(binary.parent.parent):
        found |= {part: None, **dict.fromkeys(libraries(part))}
    return tuple(Entry(path) for path in found)


def _parts(prefix: Path) -> list[Path]:
    return [part for place in _PLACES_OF_PARTS for name in _PARTS for part in prefix.glob(f"{place}/{name}")]


def _data_directories(binary: Path) -> list[Path]:
    lines = ask(binary, "-L", "help").splitlines()
    return [Path(os.path.normpath(line)) for line in lines if line.startswith("/")]
