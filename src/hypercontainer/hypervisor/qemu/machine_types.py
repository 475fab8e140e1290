# SPDX-License-Identifier: Apache-2.0
"""QEMU's machine types: those that machines can be of, and the one that is taken. The first is the best.

`microvm` boots soonest and has least for a guest to attack. A QEMU may have been built without it: then a guest is
booted by each of the others, and the first by which it answers is taken.
https://www.qemu.org/docs/master/system/target-i386.html, https://www.qemu.org/docs/master/system/arm/virt.html
"""

from __future__ import annotations

import asyncio
from collections.abc import Awaitable, Callable, Sequence
from dataclasses import dataclass, replace
from typing import NamedTuple

from ...model import architectures
from ..ask import ask

AUTO = "auto"


@dataclass(frozen=True)
class MachineType:
    """What the command line calls it and its devices."""

    name: str
    options: str  # of -machine
    transport: str  # of virtio: the end of its devices' names
    places: int  # for devices
    slots: int = 0  # further ones, for what comes while it runs
    globals: tuple[str, ...] = ()  # properties of all its devices
    cpu: str = "qemu64"  # where it is emulated. A named one boots faster than `max`: the kernel patches less
    console: str = "ttyS0"  # what the guest's kernel calls the serial port
    backwards: bool = False  # the guest's kernel finds the last device of the command line first
    memory: str = "microvm.ram"  # what QEMU calls its memory where nothing else is said, in saved states too
    memory_at: int = 0  # the address where it begins, to the guest

    def device(self, name: str) -> str:
        """A virtio device on its transport."""
        return f"{name}-{self.transport}"

    @property
    def has_bus(self) -> bool:
        """Whether it has one of PCI, for devices of the host."""
        return self.transport == "pci"

    def processors(self, count: int) -> str:
        """Of -smp. SeaBIOS tells a guest without ACPI of the first processor of each socket (its src/fw/mptable.c)."""
        return f"{count},sockets={count},cores=1,threads=1" if self.has_bus else str(count)


# Eight transports of virtio-mmio: without ACPI there are no more. System management mode is for firmware that does
# more than boot.
MICROVM = MachineType("microvm", "acpi=off,rtc=on,isa-serial=on,smm=off", "device", 8)
# What a guest without ACPI does not see is left out, and firmware of NICs, which boots from networks. A PCI bus has 32
# places, of which the chip set has some.
_PC = "acpi=off,hpet=off,vmport=off,smm=off"
# Not of all of virtio at once: vhost-user-fs-pci was never legacy, does not have the property, and is refused for it.
_MODERN = tuple(f"virtio-{name}-pci.disable-legacy=on" for name in ("serial", "blk", "scsi", "net", "balloon"))
_GLOBALS = (*_MODERN, "virtio-net-pci.romfile=")
# Slots are ports of PCI Express, which take a device without ACPI (hyperkernel: CONFIG_HOTPLUG_PCI_PCIE). Each makes an
# emulated boot 0.015 of 0.55 s longer.
Q35 = MachineType("q35", f"{_PC},smbus=off,sata=off", "pci", 24, slots=2, globals=_GLOBALS, memory="pc.ram")
PC = MachineType("pc", _PC, "pci", 24, globals=_GLOBALS, memory="pc.ram")
TYPES = {kind.name: kind for kind in (MICROVM, Q35, PC)}  # of a PC, the earlier the better
# An interrupt controller as the host's with KVM, else the newest that is emulated; there is no bus to send it messages.
# The kernel patches little there: named processors, which an older QEMU lacks, boot in 0.09 of 0.62 s less at best.
VIRT = MachineType(
    "virt",
    "gic-version=max,its=off",
    "device",
    32,
    cpu="max",
    console="ttyAMA0",
    backwards=True,
    memory="mach-virt.ram",
    memory_at=1 << 30,
)


@dataclass(frozen=True)
class Processor:
    """What emulates or runs processors of an architecture."""

    binary: str
    package: str  # of Debian
    types: tuple[MachineType, ...]  # the earlier the better


PROCESSORS = {
    "amd64": Processor("qemu-system-x86_64", "qemu-system-x86", tuple(TYPES.values())),
    "arm64": Processor("qemu-system-aarch64", "qemu-system-arm", (VIRT,)),
}


def processor_of_host() -> Processor:
    """That of amd64 where QEMU is not known to run this host's."""
    return PROCESSORS.get(architectures.host(), PROCESSORS["amd64"])


def fitted(kind: MachineType, version: str) -> MachineType:
    """For a QEMU of this version: one before 6.1 cannot be told that ports are to say themselves what comes."""
    numbers = tuple(int(part) for part in version.split(".")[:2] if part.isdecimal())
    return kind if numbers >= (6, 1) else replace(kind, slots=0)


class Chosen(NamedTuple):
    """A machine type and why; or none, and why."""

    machine_type: MachineType | None
    reason: str


class TypeChooser:
    """The machine type of one QEMU's machines."""

    def __init__(
        self,
        wanted: str,
        trouble: Callable[[MachineType], Awaitable[str]],
        types: Sequence[MachineType] = PROCESSORS["amd64"].types,
    ) -> None:
        """`wanted` is a type's name or `auto`; `trouble` boots a guest, and says why it does not answer, or ""."""
        self._types = {kind.name: kind for kind in types}
        self._wanted = wanted
        self._trouble = trouble
        self._choosing = asyncio.Lock()
        self._known: dict[str, Chosen] = {}

    async def choose(self, binary: str, version: str) -> Chosen:
        """It is asked once of each version; a trial takes as long as a boot."""
        async with self._choosing:
            if version not in self._known:
                self._known[version] = await self._choose(await asyncio.to_thread(listed, binary))
            return self._known[version]

    async def choose_with_bus(self, binary: str, version: str) -> Chosen:
        """That of a machine with devices of the host: the same, or the first that has a bus for them."""
        usual = await self.choose(binary, version)
        if usual.machine_type is None or usual.machine_type.has_bus:
            return usual
        there = await asyncio.to_thread(listed, binary)
        for kind in self._types.values() if self._wanted == AUTO else ():
            if kind.has_bus and kind.name in there:
                return Chosen(kind, f"it has a bus for PCI devices, and {usual.machine_type.name} has none")
        return Chosen(None, f"this QEMU has no machine type with a bus for PCI devices{self._others(there)}")

    @property
    def may_have_bus(self) -> bool:
        """Whether one is to be had that has one, by the configuration."""
        return any(kind.has_bus for kind in self._types.values() if self._wanted in (AUTO, kind.name))

    def try_again(self) -> None:
        """Where nothing booted, the next one who chooses tries."""
        self._known = {v: chosen for v, chosen in self._known.items() if chosen.machine_type}

    async def _choose(self, there: frozenset[str]) -> Chosen:
        best = next(iter(self._types.values()))
        if self._wanted != AUTO:
            if (wanted := self._types.get(self._wanted)) and (wanted.name in there or not there):
                return Chosen(wanted, "chosen in the configuration")
            return Chosen(None, f"this QEMU has no machine type {self._wanted}{self._others(there)}")
        if best.name in there or not there:
            return Chosen(best, "QEMU has it" if there else "QEMU does not say which it has")
        tried = [f"this QEMU has no machine type {best.name}"]
        for kind in self._types.values():
            if kind.name in there:
                why = await self._trouble(kind)
                if not why:
                    return Chosen(kind, "; ".join([*tried, f"a probe guest booted with {kind.name}"]))
                tried.append(f"{kind.name}: {why}")
        return Chosen(None, "; ".join(tried))

    def _others(self, there: frozenset[str]) -> str:
        names = [name for name in self._types if name in there]
        return f", but {' and '.join(names)}" if names else ""


def listed(binary: str) -> frozenset[str]:
    """Names of the machine types that this QEMU has; none where it does not say."""
    lines = ask(binary, "-machine", "help").splitlines()
    return frozenset(line.split()[0] for line in lines[1:] if line.strip())
