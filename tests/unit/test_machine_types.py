# SPDX-License-Identifier: Apache-2.0
"""Which of its machine types QEMU's machines are of, and what a machine of each is made of."""

from __future__ import annotations

import asyncio
import resource
import shutil
from dataclasses import replace
from pathlib import Path

import pytest

from hypercontainer.errors import InvalidArgument, Unavailable, Unsupported
from hypercontainer.hypervisor.driver import Disk, MachineConfig, PciDevice, SpareNetwork, TapNetwork, VirtioFs
from hypercontainer.hypervisor.drivers import Drivers
from hypercontainer.hypervisor.qemu import command, confinement, devices
from hypercontainer.hypervisor.qemu.driver import QemuDriver
from hypercontainer.hypervisor.qemu.machine_types import MICROVM, PC, Q35, MachineType, TypeChooser, fitted

from .test_hypervisor import CONFIG, FDS, pairs


def qemu(path: Path, *types: str) -> Path:
    """A QEMU that lists these."""
    binary = path / "qemu"
    lines = "\n".join(["Supported machines are:", *(f"{t:20} of some kind" for t in types)])
    binary.write_text(f'#!/bin/sh\n[ "$1" = --version ] && echo "QEMU emulator version 8.0.0" || echo "{lines}"\n')
    binary.chmod(0o755)
    return binary


class Guests:
    """What becomes of guests that are booted by each type."""

    def __init__(self, **troubles: str) -> None:
        self.troubles = troubles
        self.tried: list[str] = []

    async def trouble(self, kind: MachineType) -> str:
        self.tried.append(kind.name)
        await asyncio.sleep(0)
        return self.troubles.get(kind.name, "")


async def test_microvm_is_taken_where_it_is(tmp_path: Path) -> None:
    guests = Guests()
    chosen = await TypeChooser("auto", guests.trouble).choose(str(qemu(tmp_path, "pc", "q35", "microvm")), "8")
    assert chosen == (MICROVM, "QEMU has it") and guests.tried == []


async def test_else_the_first_by_which_a_guest_boots(tmp_path: Path) -> None:
    binary = str(qemu(tmp_path, "pc", "q35", "none"))
    guests = Guests()
    chooser = TypeChooser("auto", guests.trouble)
    found = await asyncio.gather(*(chooser.choose(binary, "8") for _ in range(3)))
    why = "this QEMU has no machine type microvm; a probe guest booted with q35"
    assert found == [(Q35, why)] * 3 and guests.tried == ["q35"]
    assert (await chooser.choose(binary, "9"))[0] is Q35 and guests.tried == ["q35", "q35"]  # another QEMU
    guests = Guests(q35="a probe guest ended early: no")
    chosen = await TypeChooser("auto", guests.trouble).choose(binary, "8")
    assert chosen == (PC, "this QEMU has no machine type microvm; q35: a probe guest ended early: no; "
                          "a probe guest booted with pc")  # fmt: skip


async def test_none_boots(tmp_path: Path) -> None:
    guests = Guests(q35="no", pc="nor this")
    chooser = TypeChooser("auto", guests.trouble)
    binary = str(qemu(tmp_path, "pc", "q35"))
    assert await chooser.choose(binary, "8") == (
        None, "this QEMU has no machine type microvm; q35: no; pc: nor this"
    )  # fmt: skip
    guests.troubles.clear()
    assert (await chooser.choose(binary, "8"))[0] is None and guests.tried == ["q35", "pc"]  # nobody waits again
    chooser.try_again()
    assert (await chooser.choose(binary, "8"))[0] is Q35


@pytest.mark.parametrize("kind", [MICROVM, Q35, PC])
async def test_the_one_that_was_asked_for(tmp_path: Path, kind: MachineType) -> None:
    guests = Guests()
    chosen = await TypeChooser(kind.name, guests.trouble).choose(str(qemu(tmp_path, "pc", "q35", "microvm")), "8")
    assert chosen == (kind, "chosen in the configuration") and guests.tried == []


async def test_what_was_asked_for_is_not_there(tmp_path: Path) -> None:
    driver = QemuDriver(
        binary=str(qemu(tmp_path, "pc", "q35")), accelerator="tcg", cache=tmp_path, machine_type="microvm"
    )
    probe = await driver.probe()
    assert probe.trouble == "this QEMU has no machine type microvm, but q35 and pc"
    assert "machine_type" in probe.hint
    with pytest.raises(Unavailable, match="QEMU starts nothing on this host: .* no machine type microvm"):
        await driver.launch(replace(CONFIG, directory=tmp_path / "machine"))
    assert not (tmp_path / "machine").exists()


async def test_a_qemu_that_does_not_say(tmp_path: Path) -> None:
    """As on a host that is too busy for it."""
    assert (await TypeChooser("auto", Guests().trouble).choose("/no/such/qemu", "8"))[0] is MICROVM
    assert (await TypeChooser("pc", Guests().trouble).choose("/no/such/qemu", "8"))[0] is PC


@pytest.mark.parametrize("kind", [Q35, PC])
def test_devices_of_a_bus(kind: MachineType) -> None:
    config = replace(CONFIG, share=VirtioFs("share", 21))
    options = pairs(command.command_line("qemu", config, "tcg", FDS, machine_type=kind))
    machine = dict(options)["-machine"]
    assert machine.startswith(f"{kind.name},acpi=off,") and machine.endswith(",memory-backend=pc.ram")
    devices_ = [value for key, value in options if key == "-device"]
    names = [value.split(",")[0] for value in devices_]
    assert names == [
        "virtio-serial-pci", "virtserialport", "vhost-user-fs-pci", "virtio-blk-pci", "virtio-blk-pci",
        "virtio-net-pci", "virtio-balloon-pci"
    ]  # fmt: skip
    assert ("-smp", "2,sockets=2,cores=1,threads=1") in options  # SeaBIOS tells of one per socket
    assert ("-global", "virtio-net-pci.romfile=") in options  # no firmware that boots from networks
    modern = {value.partition(".")[0] for key, value in options if key == "-global" and "disable-legacy" in value}
    assert modern >= {name for name in names if name.startswith("virtio-")}
    assert not modern & {"virtio-pci", "vhost-user-fs-pci"}  # QEMU ends where a device lacks a property of its kind


GIVEN = PciDevice("0000:00:11.0", Path("/sys/devices/pci0000:00/0000:00:11.0"), 7, (Path("/dev/vfio/vfio"),))


@pytest.mark.parametrize(
    ("there", "name", "why"),
    [
        (("pc", "q35", "microvm"), "q35", "it has a bus for PCI devices, and microvm has none"),
        (("pc", "microvm"), "pc", "it has a bus for PCI devices, and microvm has none"),
        (("microvm",), "", "this QEMU has no machine type with a bus for PCI devices"),
        (("pc", "q35"), "q35", "this QEMU has no machine type microvm; a probe guest booted with q35"),
    ],
)
async def test_the_one_for_devices_of_the_host(tmp_path: Path, there: tuple[str, ...], name: str, why: str) -> None:
    chooser, binary = TypeChooser("auto", Guests().trouble), str(qemu(tmp_path, *there))
    kind, reason = await chooser.choose_with_bus(binary, "8")
    assert (kind.name if kind else "") == name and reason.startswith(why)
    if "microvm" in there:
        assert (await chooser.choose(binary, "8"))[0] is MICROVM  # for all others


def test_who_asks_for_microvm_has_no_devices_of_the_host(tmp_path: Path) -> None:
    def driver(machine_type: str) -> QemuDriver:
        return QemuDriver(binary="qemu", accelerator="tcg", cache=tmp_path, machine_type=machine_type)

    assert PciDevice in driver("auto").takes and PciDevice in driver("q35").takes
    with pytest.raises(Unsupported) as refused:
        Drivers([driver("microvm")]).check(driver("microvm"), [PciDevice])
    assert str(refused.value).startswith(
        "the driver 'qemu' does not support passthrough of PCI devices: QEMU's machine types q35 and pc have a bus"
    )


def test_devices_of_the_host_are_the_last_on_the_bus() -> None:
    config = replace(CONFIG, devices=(GIVEN,))
    line = command.command_line("qemu", config, "kvm", FDS, machine_type=Q35)
    given = [value for key, value in pairs(line) if key == "-device"]
    assert given[-1] == f"vfio-pci,sysfsdev={GIVEN.directory},rombar=0"
    assert not any(value.startswith("virtio-balloon") for value in given)  # its memory stays where it is


def test_what_qemu_is_handed_with_a_device_of_the_host(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(confinement, "_may_raise_limits", lambda: True)
    config, binary = replace(CONFIG, disks=(), devices=(GIVEN,)), shutil.which("true") or ""
    order = confinement.order((binary,), config, "tcg", (), 1, jailed=True)
    assert Path("/dev/vfio/vfio") in order.devices and GIVEN.directory in [e.source for e in order.files]
    assert order.limits.locked_memory == config.memory + (1 << 30)
    assert (
        confinement.order((binary,), replace(config, devices=()), "tcg", (), 1, jailed=True).limits.locked_memory == -1
    )
    with pytest.raises(Unavailable, match="handed over in a jail only, and there is none"):
        confinement.order((binary,), config, "tcg", (), 1, jailed=False)


def test_a_limit_of_locked_memory_that_is_too_low(monkeypatch: pytest.MonkeyPatch) -> None:
    config, binary = replace(CONFIG, devices=(GIVEN,)), shutil.which("true") or ""
    monkeypatch.setattr(confinement, "_may_raise_limits", lambda: False)
    monkeypatch.setattr(resource, "getrlimit", lambda which: (8 << 20, 8 << 20))
    with pytest.raises(Unavailable, match="locks 1152 MiB of memory, and hyperd may lock 8 MiB: .*LimitMEMLOCK"):
        confinement.order((binary,), config, "tcg", (), 1, jailed=True)


def test_slots_for_what_comes_while_it_runs() -> None:
    """A QEMU before 6.1 does not know the property by which ports say so."""

    joins = replace(CONFIG, networks=(SpareNetwork("52:54:00:00:00:02", "t"),))

    def line(version: str, kind: MachineType = Q35, config: MachineConfig = joins) -> list[str]:
        return command.command_line("qemu", config, "tcg", FDS, machine_type=fitted(kind, version))

    told = "ICH9-LPC.acpi-pci-hotplug-with-bridge-support=off"
    for version in ("6.1.0", "7.2.22", "10.0"):
        assert told in line(version) and sum("pcie-root-port" in word for word in line(version)) == 2
    without = [line("6.0.1"), line("5.2"), line(""), line("8.0", MICROVM), line("8.0", PC), line("8.0", config=CONFIG)]
    for old in (*without, line("8.0", config=replace(joins, devices=(GIVEN,)))):
        assert told not in old and not any("pcie-root-port" in word for word in old)


def test_a_bus_has_more_places() -> None:
    many = replace(CONFIG, disks=tuple(Disk(f"d{i}", Path("/x"), read_only=False) for i in range(12)))
    assert devices.uses_scsi(many) and not devices.uses_scsi(many, Q35)
    nics = replace(CONFIG, networks=tuple(TapNetwork("52:54:00:00:00:02", 17) for _ in range(8)))
    with pytest.raises(InvalidArgument):
        devices.check_places(nics)
    devices.check_places(nics, Q35)
    with pytest.raises(InvalidArgument, match="give at most 21"):
        devices.check_places(replace(nics, networks=nics.networks * 4), PC)
