# SPDX-License-Identifier: Apache-2.0
"""The table of drivers: what each can do, which has what another lacks, and which suits a pod."""

from __future__ import annotations

from ..errors import Unsupported
from .driver import (
    KINDS,
    CachedDisk,
    Driver,
    ForeignProcessor,
    FormattedDisk,
    PciDevice,
    RbdDisk,
    Snapshot,
    StreamNetwork,
    TapNetwork,
    UserNetwork,
    VirtioFs,
    unsupported,
)
from .facets import (
    NAMES,
    Checkpoints,
    DiskErrors,
    DiskHotplug,
    DiskStall,
    FileStream,
    NicHotplug,
    Pause,
    PortForwarding,
    Reconfigure,
    Suspends,
)

# What `hyperctl info` calls them; docs/hypervisors.md has the same rows.
WORDS: dict[type, str] = {
    TapNetwork: "networks",
    UserNetwork: "user-network",
    StreamNetwork: "passt",
    VirtioFs: "directories",
    FormattedDisk: "image-formats",
    CachedDisk: "cache-modes",
    RbdDisk: "ceph",
    DiskHotplug: "disk-hotplug",
    NicHotplug: "network-hotplug",
    PortForwarding: "user-port-hotplug",
    Pause: "pause",
    Snapshot: "templates",
    Reconfigure: "pool",
    Checkpoints: "snapshots",
    Suspends: "suspend",
    DiskStall: "full-disk-wait",
    DiskErrors: "disk-errors",
    ForeignProcessor: "architectures",
    PciDevice: "pci-devices",
}
_OF_DRIVERS = (Checkpoints, Suspends)
# What to do where no driver can, and one could.
_HINTS: dict[type, str] = {
    PciDevice: "QEMU's machine types q35 and pc have a bus for it: see `machine_type` in docs/configuration.md",
}


def has(driver: Driver, what: type) -> bool:
    """Whether its machines can have a part of this kind, or have this facet."""
    if what is VirtioFs and FileStream in driver.facets:
        return True  # directories come either way
    if what in _OF_DRIVERS:
        return isinstance(driver, what)
    return what in driver.takes or what in driver.facets


def words(driver: Driver) -> list[str]:
    """All that it can do."""
    return [word for what, word in WORDS.items() if has(driver, what)]


def refusal(driver: Driver, what: type, others: list[Driver]) -> Unsupported:
    """The error for what a driver lacks; it names one that has it."""
    error = unsupported(driver.name, KINDS.get(what) or NAMES.get(what, what.__name__))
    error.hint = _HINTS.get(what)
    if able := [d.name for d in others if has(d, what)]:
        error.hint = f"the driver {able[0]!r} does: use --driver {able[0]}"
    return error
