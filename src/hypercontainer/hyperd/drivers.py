# SPDX-License-Identifier: Apache-2.0
"""The hypervisors that this hyperd has, made from its configuration."""

from __future__ import annotations

import logging
import os

from ..engine.paths import Paths
from ..guest import initramfs
from ..hypervisor.driver import MachineConfig
from ..hypervisor.drivers import AUTO, Drivers
from ..hypervisor.firecracker import driver as firecracker_driver
from ..hypervisor.firecracker.driver import FirecrackerDriver
from ..hypervisor.libvirt import driver as libvirt_driver
from ..hypervisor.libvirt.driver import LibvirtDriver
from ..hypervisor.libvirt.libxl_driver import LibxlDriver
from ..hypervisor.qemu.driver import QemuDriver
from ..hypervisor.xen.driver import XenDriver
from ..jail import helpers, interpreter
from ..jail.choose import choose
from ..jail.control_groups import ControlGroups, NoGroups
from ..jail.hierarchies import IoLimits, whole_disk
from ..jail.host_groups import HostGroups
from ..jail.jail import Jail
from ..jail.plain import PlainJail
from ..kernel.locate import Kernel
from .config import Config

log = logging.getLogger(__name__)
_PROBE_MEMORY = 128 << 20


def build_drivers(config: Config, paths: Paths, kernel: Kernel | None) -> Drivers:
    """:raise InvalidArgument: when the configuration names one that there is not."""
    jail = choose(config.jail, paths.run / "jail")
    helpers.use(_for_helpers(jail))
    qemu, firecracker = _qemu(config, paths, jail), _firecracker(config, paths, jail)
    libvirt = _libvirt(config, paths)
    if kernel:
        tried = (qemu, firecracker, libvirt)  # Xen has no other way to run a guest
        for driver in (d for d in tried if not isinstance(d, LibxlDriver)):
            driver.set_probe_machine(_probe_machine(driver.name, paths, kernel))
    dense = config.driver == AUTO and config.prefer == "density"
    xen = XenDriver(boot_timeout=config.boot_timeout)
    return Drivers([*((firecracker, qemu) if dense else (qemu, firecracker)), xen, libvirt], config.driver)


def build_groups(config: Config, paths: Paths) -> ControlGroups:
    """:raise Unavailable: there must be control groups, and there cannot be."""
    if config.control_groups == "off":
        return NoGroups()
    io = IoLimits(config.io_weight, config.io_bytes, whole_disk(paths.root) if config.io_rate else "")
    made = HostGroups(paths.run, parent=config.control_group_path, required=config.control_groups == "on", io=io)
    made.sweep()
    return made


def _for_helpers(jail: Jail) -> Jail:
    """Without the rights of root a jail can show nobody what only hyperd's own capabilities let it read."""
    if os.geteuid() == 0 or not jail.confines or interpreter.reachable():
        return jail
    log.warning("helpers run without a jail: this user may not read %s and its modules", interpreter.binary())
    return PlainJail()


def _qemu(config: Config, paths: Paths, jail: Jail) -> QemuDriver:
    return QemuDriver(
        binary=config.qemu, accelerator=config.accelerator, cache=paths.cache, tsc_khz=initramfs.tsc_khz, jail=jail,
        machine_type=config.machine_type,
    )  # fmt: skip


def _firecracker(config: Config, paths: Paths, jail: Jail) -> FirecrackerDriver:
    return firecracker_driver.make(
        binary=config.firecracker, accelerator=config.accelerator, cache=paths.cache,
        boot_timeout=config.boot_timeout, jail=jail, io_rate=config.io_bytes,
    )  # fmt: skip


def _libvirt(config: Config, paths: Paths) -> LibvirtDriver | LibxlDriver:
    return libvirt_driver.make(
        uri=config.libvirt_uri, accelerator=config.accelerator, cache=paths.cache, run=paths.run,
        machine_type=config.machine_type, tsc_khz=initramfs.tsc_khz, boot_timeout=config.boot_timeout,
    )  # fmt: skip


def _probe_machine(driver: str, paths: Paths, kernel: Kernel) -> MachineConfig:
    """What a trial of KVM boots."""
    return MachineConfig(
        name="probe", directory=paths.machine(f"probe-{driver}"), vcpus=1, memory=_PROBE_MEMORY,
        kernel=kernel.path, initramfs=initramfs.cached(paths.cache),
    )  # fmt: skip
