# SPDX-License-Identifier: Apache-2.0
"""What this host has of what HyperContainer needs, each with a hint."""

from __future__ import annotations

import os
import shutil
from pathlib import Path

from ..errors import HyperError
from ..guest.initramfs import hyperstart_path, hyperstart_version
from ..hypervisor import abilities
from ..hypervisor.driver import Driver, ForeignProcessor, Probe
from ..hypervisor.drivers import Drivers
from ..hypervisor.facets import Emulation
from ..kernel.locate import Kernel
from ..model import architectures
from ..model.host import Check, DriverStatus, ForeignStatus
from ..model.units import format_size
from ..network.passt import find_passt
from .paths import FindBootFiles, Paths

_TOOLS = {"skopeo": "skopeo", "mkfs.ext4": "e2fsprogs"}
_LOW_SPACE = 2 << 30  # bytes


async def examine(drivers: Drivers, kernel: Kernel | None, paths: Paths, boot: FindBootFiles) -> list[Check]:
    """All checks, in the order in which a start would meet them."""
    checks = []
    for driver in drivers:
        probe = await driver.probe()
        needed = driver is drivers.default
        checks.append(_hypervisor(driver, probe, needed=needed))
        if not probe.trouble and needed:
            checks.append(_accelerator(probe))
    checks += [_kernel(kernel), _guest(), _channel(), _network()]
    checks += [_foreign(status) for status in await foreign_status(drivers, boot)]
    checks += [_tool(tool, package) for tool, package in _TOOLS.items()]
    checks.append(_space(paths.root))
    return checks


def _hypervisor(driver: Driver, probe: Probe, *, needed: bool) -> Check:
    """One that is not the default need not be there: it is told in the same words, and is no fault."""
    if probe.trouble and needed:
        return Check(name=driver.name, status="fail", found=probe.trouble, hint=probe.hint)
    if probe.trouble:
        return Check(name=driver.name, status="ok", found=f"not in use: {probe.trouble}", hint=probe.hint)
    how = "" if needed else f", {probe.accelerator}: {probe.reason}"
    how += _machine_type(probe)
    found = f"{driver.name} {driver.version}{how}; can {', '.join(abilities.words(driver))}"
    return Check(name=driver.name, status="ok", found=found)


async def driver_status(driver: Driver, *, default: bool) -> DriverStatus:
    """What `info` shows of a driver."""
    probe = await driver.probe()
    return DriverStatus(
        name=driver.name,
        version=driver.version,
        usable=not probe.trouble,
        reason=probe.trouble or f"{probe.accelerator}: {probe.reason}{_machine_type(probe)}",
        hint=probe.hint,
        default=default,
        can=abilities.words(driver),
    )


async def foreign_status(drivers: Drivers, boot: FindBootFiles) -> list[ForeignStatus]:
    """The architectures beside this host's, by the first driver that emulates any."""
    driver = next((d for d in drivers if isinstance(d, Emulation) and abilities.has(d, ForeignProcessor)), None)
    names = [name for name in architectures.MACHINES if architectures.is_foreign(name)]
    return [await _status_of(driver, name, boot) for name in names] if driver else []


async def _status_of(driver: Emulation, name: str, boot: FindBootFiles) -> ForeignStatus:
    probe = await driver.emulation(name)
    if probe.trouble:
        return ForeignStatus(name=name, usable=False, reason=probe.trouble, hint=probe.hint)
    try:
        kernel = boot(name).kernel
    except HyperError as error:
        return ForeignStatus(name=name, usable=False, reason=error.message, hint=error.hint or "")
    return ForeignStatus(name=name, usable=True, reason=f"{probe.reason}; kernel {kernel}")


def _foreign(status: ForeignStatus) -> Check:
    """What need not be there: it is no fault."""
    found = status.reason if status.usable else f"not in use: {status.reason}"
    return Check(name=f"images for {status.name}", status="ok", found=found, hint=status.hint)


def _machine_type(probe: Probe) -> str:
    return f"; machine type {probe.machine_type}" if probe.machine_type else ""


def _accelerator(probe: Probe) -> Check:
    if probe.accelerator != "tcg":
        return Check(name="accelerator", status="ok", found=f"{probe.accelerator}: {probe.reason}")
    hint = "guests run emulated and several times slower; `hyperctl doctor --probe` tries KVM again"
    return Check(name="accelerator", status="warn", found=f"{probe.accelerator}: {probe.reason}", hint=hint)


def _kernel(kernel: Kernel | None) -> Check:
    if kernel is None:
        return Check(
            name="kernel",
            status="fail",
            found="none",
            hint="build it with `hyperctl kernel build`, or start hyperd with --kernel",
        )
    if not kernel.version:
        return Check(
            name="kernel",
            status="warn",
            found=str(kernel.path),
            hint="a kernel of your own: it needs what hyperkernel/fragment.config lists",
        )
    return Check(
        name="kernel", status="ok", found=f"hyperkernel {kernel.version} ({kernel.config_hash[:12]}) at {kernel.path}"
    )


def _guest() -> Check:
    try:
        path = hyperstart_path()
    except HyperError as error:
        return Check(name="hyperstart", status="fail", found=error.message, hint=error.hint or "")
    return Check(
        name="hyperstart", status="ok", found=f"{hyperstart_version(path)}, {format_size(path.stat().st_size)}"
    )


def _channel() -> Check:
    vsock = Path("/dev/vhost-vsock").exists()
    found = "virtio-serial" + (
        "; /dev/vhost-vsock is there too" if vsock else "; no /dev/vhost-vsock, and none is needed"
    )
    return Check(name="guest channel", status="ok", found=found)


def _network() -> Check:
    user = "passt" if find_passt() else "QEMU's slirp"
    found = f"user-mode network by {user}"
    if os.geteuid() != 0 and not find_passt():
        return Check(
            name="network",
            status="warn",
            found=f"{found}, by which pods reach what listens on this host's loopback",
            hint="install passt, or use --network none for code that must not",
        )
    if os.geteuid() != 0:
        return Check(name="network", status="ok", found=found)
    if not shutil.which("nft"):
        return Check(
            name="network",
            status="warn",
            found=f"{found}; no networks of this host",
            hint="install the package nftables",
        )
    if not os.access("/dev/net/tun", os.W_OK):
        return Check(
            name="network", status="warn", found=f"{found}; no networks of this host", hint="load the kernel module tun"
        )
    return Check(name="network", status="ok", found=f"bridges of this host; {found}")


def _tool(tool: str, package: str) -> Check:
    path = shutil.which(tool)
    if path:
        return Check(name=tool, status="ok", found=path)
    return Check(name=tool, status="fail", found="not installed", hint=f"install the package {package}")


def _space(root: Path) -> Check:
    free = shutil.disk_usage(root).free
    found = f"{format_size(free)} free at {root}"
    if free < _LOW_SPACE:
        return Check(
            name="disk space", status="warn", found=found, hint="free some, for example by `hyperctl image-prune -a`"
        )
    return Check(name="disk space", status="ok", found=found)
