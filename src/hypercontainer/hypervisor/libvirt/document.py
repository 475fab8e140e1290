# SPDX-License-Identifier: Apache-2.0
"""A domain as libvirt's XML describes it, as pure functions: https://libvirt.org/formatdomain.html.

Places on the bus are ours to give: libvirt would put a bridge before each device of a PCI bus, and knows no places of
a `microvm`.
"""

from __future__ import annotations

import re
import uuid
from collections.abc import Iterator
from dataclasses import dataclass
from pathlib import Path
from typing import NamedTuple
from xml.etree import ElementTree as XML

from ..driver import Disk, MachineConfig, TapNetwork, UserNetwork
from ..qemu.command import GUEST_CHANNEL, kernel_command_line
from ..qemu.devices import balloon_options, network_options, uses_scsi
from ..qemu.machine_types import MachineType

CHANNEL, CONSOLE = "guest.sock", "console.sock"
METADATA = "urn:hypercontainer:machine:1"  # the namespace of our element in a domain's metadata
_QEMU = "http://libvirt.org/schemas/domain/qemu/1.0"
_FIRST_SLOT = 3  # of a PCI bus: the chip set has those before it
_TRANSLATED = 32  # MiB for the code of an emulated processor, as with QEMU alone
_CACHE = {"": "writeback", "off": "none"}  # what QEMU calls otherwise
XML.register_namespace("qemu", _QEMU)
XML.register_namespace("hyper", METADATA)


class Known(NamedTuple):
    """What libvirt knows a domain by."""

    name: str
    uuid: str


def known_anew(name: str) -> Known:
    """For a machine of this name, which libvirt may not take as it is."""
    number = str(uuid.uuid4())
    return Known(f"hyper-{re.sub('[^A-Za-z0-9_.-]', '-', name)[:40]}-{number[:8]}", number)


class Owner(NamedTuple):
    """As whom root's QEMU runs, as numbers."""

    user: int
    group: int


@dataclass(frozen=True)
class Shape:
    """What a machine's description needs beside its configuration."""

    known: Known
    accelerator: str
    machine_type: MachineType
    kernel: Path  # where its QEMU may read it
    initramfs: Path
    owner: Owner | None = None  # None: of libvirt's user, who is ours
    tsc_khz: int = 0


def domain(config: MachineConfig, shape: Shape, mark: dict[str, str]) -> str:
    """The whole document; `mark` is for the environment of its process."""
    root = begin("kvm" if shape.accelerator == "kvm" else "qemu", config, shape.known)
    _boot(root, config, shape)
    _processor(root, config, shape)
    _devices(XML.SubElement(root, "devices"), config, shape)
    if shape.owner:
        label = XML.SubElement(root, "seclabel", type="static", model="dac", relabel="no")
        text(label, "label", f"+{shape.owner.user}:+{shape.owner.group}")
    _for_qemu(root, config, shape, mark)
    return XML.tostring(root, encoding="unicode")


def begin(kind: str, config: MachineConfig, known: Known) -> XML.Element:
    """What a domain of every hypervisor has; `kind` is libvirt's word for the hypervisor."""
    root = XML.Element("domain", type=kind)
    text(root, "name", known.name)
    text(root, "uuid", known.uuid)
    XML.SubElement(
        XML.SubElement(root, "metadata"), f"{{{METADATA}}}machine", name=config.name, directory=str(config.directory)
    )
    text(root, "memory", str(config.memory), unit="bytes")
    text(root, "vcpu", str(config.vcpus))
    for event in ("on_poweroff", "on_reboot", "on_crash"):  # hyperstart ends a machine by its reboot
        text(root, event, "destroy")
    return root


def text(parent: XML.Element, tag: str, content: str, **attributes: str) -> None:
    """An element that has text."""
    XML.SubElement(parent, tag, attributes).text = content


def _boot(root: XML.Element, config: MachineConfig, shape: Shape) -> None:
    system = XML.SubElement(root, "os")
    text(system, "type", "hvm", arch="x86_64", machine=shape.machine_type.name)
    text(system, "kernel", str(shape.kernel))
    text(system, "initrd", str(shape.initramfs))
    text(system, "cmdline", kernel_command_line(shape.accelerator, shape.tsc_khz, talkative=config.talkative))


def _processor(root: XML.Element, config: MachineConfig, shape: Shape) -> None:
    if shape.accelerator == "kvm":
        cpu = XML.SubElement(root, "cpu", mode="host-passthrough")
    else:
        translated = XML.SubElement(XML.SubElement(root, "features"), "tcg")
        text(translated, "tb-cache", str(_TRANSLATED), unit="MiB")
        cpu = XML.SubElement(root, "cpu", mode="custom", match="exact", check="none")
        text(cpu, "model", "qemu64", fallback="allow")
    # Without ACPI a guest hears of the first processor of each socket (`MachineType.processors`).
    XML.SubElement(cpu, "topology", sockets=str(config.vcpus), cores="1", threads="1")


def _addresses(machine_type: MachineType) -> Iterator[dict[str, str]]:
    """Of one device after the other."""
    slot = _FIRST_SLOT
    while True:
        if machine_type.transport == "pci":
            yield {"type": "pci", "domain": "0x0000", "bus": "0x00", "slot": f"{slot:#04x}", "function": "0x0"}
        else:
            yield {"type": "virtio-mmio"}
        slot += 1


def _devices(devices: XML.Element, config: MachineConfig, shape: Shape) -> None:
    addresses = _addresses(shape.machine_type)

    def placed(tag: str, **attributes: str) -> XML.Element:
        made = XML.SubElement(devices, tag, attributes)
        XML.SubElement(made, "address", next(addresses))
        return made

    XML.SubElement(devices, "controller", type="usb", model="none")
    placed("controller", type="virtio-serial", index="0", ports="2")
    listening(XML.SubElement(devices, "serial", type="unix"), config.directory / CONSOLE, type="isa-serial")
    channel = XML.SubElement(devices, "channel", type="unix")
    listening(channel, config.directory / CHANNEL, type="virtio", name=GUEST_CHANNEL)
    scsi = uses_scsi(config, shape.machine_type)
    if scsi:
        placed("controller", type="scsi", index="0", model="virtio-scsi")
    for index, one in enumerate(config.disks):
        if isinstance(one, Disk):
            element = disk(one, index, scsi=scsi, handed=shape.owner is not None)
            if not scsi:
                XML.SubElement(element, "address", next(addresses))
            devices.append(element)
    for network in config.networks:
        if isinstance(network, TapNetwork):
            nic = placed("interface", type="ethernet")
            XML.SubElement(nic, "mac", address=network.mac)
            XML.SubElement(nic, "target", dev=network.name, managed="no")
            XML.SubElement(nic, "model", type="virtio")
            XML.SubElement(nic, "driver", name="qemu")
    if balloon_options(config, shape.machine_type):
        placed("memballoon", model="virtio", freePageReporting="on")
    else:
        XML.SubElement(devices, "memballoon", model="none")


def listening(port: XML.Element, path: Path, **target: str) -> None:
    """A port of the guest's, behind which QEMU listens at a socket."""
    XML.SubElement(port, "source", mode="bind", path=str(path))
    XML.SubElement(port, "target", target)


def disk(one: Disk, index: int, *, scsi: bool, handed: bool) -> XML.Element:
    """A disk in this place, whose descriptors are `handed` over by its serial number, or whose file QEMU opens."""
    element = XML.Element("disk", type="file", device="disk")
    how = {"cache": _CACHE.get(one.cache, one.cache)} if one.cache else {}
    XML.SubElement(element, "driver", {"name": "qemu", "type": one.format, "discard": "unmap", **how})
    XML.SubElement(element, "source", {"file": str(one.path), **({"fdgroup": one.serial} if handed else {})})
    XML.SubElement(element, "backingStore")  # whoever wrote the file must not make it open another one
    name = "sd" if scsi else "vd"
    XML.SubElement(element, "target", dev=f"{name}{_letters(index)}", bus="scsi" if scsi else "virtio")
    if one.read_only:
        XML.SubElement(element, "readonly")
    text(element, "serial", one.serial)
    if scsi:  # as QEMU's driver does it: one target, a LUN each would need numbers that are free
        place = {"type": "drive", "controller": "0", "bus": "0", "target": str(index), "unit": "0"}
        XML.SubElement(element, "address", place)
    return element


def _letters(index: int) -> str:
    """What the kernel counts disks by: a to z, aa and on."""
    letters = ""
    index += 1
    while index:
        index, digit = divmod(index - 1, 26)
        letters = chr(ord("a") + digit) + letters
    return letters


def _for_qemu(root: XML.Element, config: MachineConfig, shape: Shape, mark: dict[str, str]) -> None:
    """What libvirt has no element for: ports of QEMU's user-mode network, variables of the environment."""
    line = XML.SubElement(root, f"{{{_QEMU}}}commandline")
    own = tuple(n for n in config.networks if isinstance(n, UserNetwork))
    for word in network_options(own, shape.machine_type):
        XML.SubElement(line, f"{{{_QEMU}}}arg", value=word)
    for name, value in mark.items():
        XML.SubElement(line, f"{{{_QEMU}}}env", name=name, value=value)


def serials(described: str) -> dict[str, tuple[str, int]]:
    """Of a running domain's disks on the SCSI bus: serial number -> the disk's own element, and its target."""
    found = {}
    for element in XML.fromstring(described).iterfind("devices/disk"):
        serial, address = element.findtext("serial"), element.find("address")
        if serial and address is not None and address.get("type") == "drive":
            found[serial] = XML.tostring(element, encoding="unicode"), int(address.get("target") or 0)
    return found


def expandable(described: str) -> bool:
    """Whether it has a bus that takes disks."""
    return XML.fromstring(described).find("devices/controller[@type='scsi']") is not None
