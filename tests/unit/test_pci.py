# SPDX-License-Identifier: Apache-2.0
"""Whether a PCI device of the host can be handed over, on a sysfs of files; and how people name one."""

from __future__ import annotations

import os
import re
from pathlib import Path

import msgspec
import pytest

from hypercontainer.errors import HyperError, InvalidArgument
from hypercontainer.model.devices import parse_device
from hypercontainer.model.pods import PodSpec
from hypercontainer.sys.pci import PciBus

NIC, TWIN, PORT, PLAIN = "0000:01:00.0", "0000:01:00.1", "0000:00:02.0", "0000:05:00.0"


class Host:
    """Files as those of sysfs and of VFIO."""

    def __init__(self, top: Path) -> None:
        self.sysfs, self.nodes = top / "sys", top / "vfio"
        self.bus = PciBus(self.sysfs, self.nodes)
        self.nodes.mkdir(parents=True)
        (self.nodes / "vfio").touch()

    def add(self, address: str, driver: str, group: int | None, class_: str = "0x020000") -> None:
        real = self.sysfs / "devices/pci0000:00" / address
        real.mkdir(parents=True)
        (real / "class").write_text(f"{class_}\n")
        by_address = self.sysfs / "bus/pci/devices"
        by_address.mkdir(parents=True, exist_ok=True)
        (by_address / address).symlink_to(real)
        if driver:
            (real / "driver").symlink_to(f"../../../bus/pci/drivers/{driver}")
        if group is not None:
            members = self.sysfs / f"kernel/iommu_groups/{group}/devices"
            members.mkdir(parents=True, exist_ok=True)
            (members / address).symlink_to(real)
            (real / "iommu_group").symlink_to(f"../../../kernel/iommu_groups/{group}")


@pytest.fixture
def host(tmp_path: Path) -> Host:
    """A NIC of two functions behind a port, all in one group, and a device that no IOMMU knows."""
    made = Host(tmp_path)
    made.add(PORT, "pcieport", 7, "0x060400")
    made.add(NIC, "vfio-pci", 7)
    made.add(TWIN, "vfio-pci", 7)
    made.add(PLAIN, "vfio-pci", None)
    (made.nodes / "7").touch()
    return made


def rebind(host: Host, address: str, driver: str) -> None:
    link = host.sysfs / "devices/pci0000:00" / address / "driver"
    link.unlink()
    if driver:
        link.symlink_to(f"../../../bus/pci/drivers/{driver}")


def test_by_address_and_by_group(host: Host) -> None:
    (found,) = host.bus.find(NIC)
    assert (found.address, found.group) == (NIC, 7)
    assert found.directory == (host.sysfs / "devices/pci0000:00" / NIC).resolve()
    assert [d.address for d in host.bus.find("/dev/vfio/7")] == [NIC, TWIN]  # bridges stay the host's
    assert host.bus.nodes_of(found) == (host.nodes / "vfio", host.nodes / "7")


def test_others_of_the_group_without_a_driver(host: Host) -> None:
    rebind(host, TWIN, "")
    assert host.bus.find(NIC)


def _no_node(host: Host) -> None:
    (host.nodes / "7").unlink()


@pytest.mark.parametrize(
    ("name", "change", "said"),
    [
        ("0000:09:00.0", None, "this host has no PCI device 0000:09:00.0: `lspci -D` has their addresses"),
        ("/dev/vfio/9", None, "this host has no group 9 of PCI devices"),
        (PORT, None, f"the PCI device {PORT} is a bridge: give what lies behind it"),
        (PLAIN, None, f"no IOMMU keeps the PCI device {PLAIN} from this host's memory: switch the IOMMU on"),
        (NIC, lambda h: rebind(h, NIC, "e1000e"), f"{NIC} is the driver e1000e's, and not vfio-pci's: `driver"),
        (NIC, lambda h: rebind(h, NIC, ""), f"{NIC} has no driver, and not vfio-pci's"),
        (NIC, lambda h: rebind(h, TWIN, "igb"), f"{TWIN} is in one IOMMU group with {NIC}, and the driver igb's: both"),
        (NIC, _no_node, f"the PCI device {NIC} has no "),
    ],
)  # fmt: skip
def test_what_stands_in_the_way(host: Host, name: str, change: object, said: str) -> None:
    if callable(change):
        change(host)
    with pytest.raises(HyperError, match=re.escape(said)):
        host.bus.find(name)


def test_a_node_that_is_not_ours(host: Host, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(os, "access", lambda path, mode: False)  # root may open all
    with pytest.raises(HyperError, match="hyperd may not open .*/vfio, by which"):
        host.bus.find(NIC)


@pytest.mark.parametrize(
    ("text", "name"),
    [
        ("0000:00:04.0", "0000:00:04.0"), ("00:1f.2", "0000:00:1f.2"), ("10000:E1:00.0", "10000:e1:00.0"),
        ("/dev/vfio/7", "/dev/vfio/7"), ("/dev/vfio/7:/dev/vfio/7:rwm", "/dev/vfio/7"),
    ],
)  # fmt: skip
def test_how_people_name_one(text: str, name: str) -> None:
    assert parse_device(text) == name
    assert msgspec.convert({"devices": [name]}, PodSpec).devices == [name]


@pytest.mark.parametrize("text", ["/dev/fuse", "/dev/vfio/vfio", "00:04", "00:20.0", "00:04.8", "", "/dev/vfio/7x"])
def test_what_is_none(text: str) -> None:
    with pytest.raises(InvalidArgument, match="a device of this host cannot be brought into a virtual machine"):
        parse_device(text)
    with pytest.raises(msgspec.ValidationError):
        msgspec.convert({"devices": [text]}, PodSpec)
