# SPDX-License-Identifier: Apache-2.0
"""PCI devices of this host, and whether one can be handed over by VFIO.

What the host's IOMMU cannot tell apart is one group, and handed over as a whole: each device of it is bound to
vfio-pci, or to no driver. https://docs.kernel.org/driver-api/vfio.html, https://docs.kernel.org/PCI/sysfs-pci.html
"""

from __future__ import annotations

import os
from dataclasses import dataclass
from pathlib import Path

from ..errors import InvalidArgument, NotFound, PermissionDenied, Unavailable

DRIVER = "vfio-pci"
_BRIDGE = "0x06"  # a class of the PCI code and ID assignment specification
_HARMLESS = ("", DRIVER, "pci-stub")  # drivers of others in a group (drivers/vfio/vfio_main.c)
_IOMMU_HINT = (
    "switch the IOMMU on: VT-d or AMD-Vi in the firmware's setup, and intel_iommu=on on the command line of an Intel "
    "host's kernel"
)


@dataclass(frozen=True)
class Bound:
    """A device that can be handed over."""

    address: str  # DOMAIN:BUS:SLOT.FUNCTION
    directory: Path  # of it in sysfs, without symbolic links
    group: int  # of the IOMMU


class PciBus:
    """Those of this host."""

    def __init__(self, sysfs: Path = Path("/sys"), nodes: Path = Path("/dev/vfio")) -> None:
        self._devices = sysfs / "bus/pci/devices"
        self._groups = sysfs / "kernel/iommu_groups"
        self._nodes = nodes  # of VFIO: one by the number of each group, and `vfio`

    def find(self, name: str) -> list[Bound]:
        """The device with this address; with a path of a group's node, all devices of that.

        :raise NotFound: there is none. :raise InvalidArgument: it is a bridge.
        :raise Unavailable: it cannot be handed over as it is. :raise PermissionDenied: not by this user.
        """
        if name.startswith("/"):
            group = name.rpartition("/")[2]
            members = [a for a in self._members(group) if not self._is_bridge(a)]
            if not members:
                raise NotFound(f"this host has no group {group} of PCI devices", hint=f"see {self._groups}")
            return [self._bound(a) for a in members]
        return [self._bound(name)]

    def _bound(self, address: str) -> Bound:
        directory = self._devices / address
        if not directory.exists():
            raise NotFound(f"this host has no PCI device {address}", hint="`lspci -D` has their addresses")
        if self._is_bridge(address):
            raise InvalidArgument(f"the PCI device {address} is a bridge", hint="give what lies behind it")
        group = _target(directory / "iommu_group")
        if not group:
            raise Unavailable(f"no IOMMU keeps the PCI device {address} from this host's memory", hint=_IOMMU_HINT)
        if (driver := self._driver(address)) != DRIVER:
            has = f"is the driver {driver}'s" if driver else "has no driver"
            raise Unavailable(f"the PCI device {address} {has}, and not {DRIVER}'s", hint=_how_to_bind(address))
        for other in self._members(group):
            if not self._is_bridge(other) and (driver := self._driver(other)) not in _HARMLESS:
                raise Unavailable(f"the PCI device {other} is in one IOMMU group with {address}, and the driver "
                                  f"{driver}'s: both have to be {DRIVER}'s", hint=_how_to_bind(other))  # fmt: skip
        found = Bound(address, directory.resolve(), int(group))
        self._check_nodes(found)
        return found

    def nodes_of(self, device: Bound) -> tuple[Path, ...]:
        """What a hypervisor opens to have it."""
        return self._nodes / "vfio", self._nodes / str(device.group)

    def _check_nodes(self, device: Bound) -> None:
        for node in self.nodes_of(device):
            if not node.exists():
                why = f"the PCI device {device.address} has no {node}"
                raise Unavailable(why, hint=f"`modprobe {DRIVER}` makes it")
            if not os.access(node, os.R_OK | os.W_OK):
                raise PermissionDenied(f"hyperd may not open {node}, by which {device.address} is handed over",
                                       hint=f"let hyperd's user have it: `chown USER {node}`")  # fmt: skip

    def _members(self, group: str) -> list[str]:
        directory = self._groups / group / "devices"
        return sorted(os.listdir(directory)) if directory.is_dir() else []

    def _driver(self, address: str) -> str:
        return _target(self._devices / address / "driver")

    def _is_bridge(self, address: str) -> bool:
        return (self._devices / address / "class").read_text().startswith(_BRIDGE)


def _target(link: Path) -> str:
    """The last part of where a symbolic link leads; "" when there is none."""
    try:
        return os.path.basename(os.readlink(link))
    except OSError:
        return ""


def _how_to_bind(address: str) -> str:
    device = f"/sys/bus/pci/devices/{address}"
    return (
        f"`driverctl set-override {address} {DRIVER}`, or `modprobe {DRIVER}; echo {DRIVER} >{device}/driver_override; "
        f"echo {address} >{device}/driver/unbind; echo {address} >/sys/bus/pci/drivers_probe`; this host has it no "
        "longer then"
    )
