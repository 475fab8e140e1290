# SPDX-License-Identifier: Apache-2.0
"""A domain of Xen as libvirt's XML describes it, for its driver libxl: https://libvirt.org/drvxen.html."""

from __future__ import annotations

from collections.abc import Sequence
from xml.etree import ElementTree as XML

from ..driver import MachineConfig, TapNetwork
from ..xen.document import device, kernel_command_line
from .document import CHANNEL, Known, begin, listening, text

_XEN = "http://libvirt.org/schemas/domain/xen/1.0"
_AGENT = "agent"  # the channel's name, which nobody reads
XML.register_namespace("xen", _XEN)


def domain(config: MachineConfig, known: Known, loops: Sequence[str], script: str) -> str:
    """The whole document; `loops` are its disks' devices, `script` what Xen runs for each network interface.

    libvirt leaves the numbers of channels to libxl, which begins with 1: so the first is the guest's console `hvc1`.
    """
    root = begin("xen", config, known)
    system = XML.SubElement(root, "os")
    text(system, "type", "xenpvh", arch="x86_64", machine="xenpvh")
    text(system, "kernel", str(config.kernel))
    text(system, "initrd", str(config.initramfs))
    text(system, "cmdline", kernel_command_line(talkative=config.talkative))
    devices = XML.SubElement(root, "devices")
    for index, (one, loop) in enumerate(zip(config.disks, loops, strict=True)):
        devices.append(disk(index, loop, read_only=one.read_only))
    for nic in config.networks:
        if isinstance(nic, TapNetwork):
            element = XML.SubElement(devices, "interface", type="ethernet")
            XML.SubElement(element, "mac", address=nic.mac)
            XML.SubElement(element, "script", path=script)
    XML.SubElement(XML.SubElement(devices, "console", type="pty"), "target", type="xen", port="0")
    channel = XML.SubElement(devices, "channel", type="unix")
    listening(channel, config.directory / CHANNEL, type="xen", name=_AGENT)
    line = XML.SubElement(root, f"{{{_XEN}}}commandline")
    for word in ("-uuid", known.uuid):  # it does nothing for a guest, and tells whose process that is
        XML.SubElement(line, f"{{{_XEN}}}arg", value=word)
    return XML.tostring(root, encoding="unicode")


def disk(index: int, loop: str, *, read_only: bool) -> XML.Element:
    """The disk in this place, whose device is `loop`."""
    element = XML.Element("disk", type="block", device="disk")
    XML.SubElement(element, "driver", name="phy", type="raw")
    XML.SubElement(element, "source", dev=loop)
    XML.SubElement(element, "target", dev=device(index), bus="xen")
    if read_only:
        XML.SubElement(element, "readonly")
    return element
