# SPDX-License-Identifier: Apache-2.0
"""Machines whose processors are not this host's: QEMU's other programs, and their command lines."""

from __future__ import annotations

from pathlib import Path

import pytest

from hypercontainer.errors import InvalidArgument, Unavailable, Unsupported
from hypercontainer.hypervisor.driver import Disk, MachineConfig, UserNetwork, VirtioFs, processor_kinds
from hypercontainer.hypervisor.qemu import command, devices
from hypercontainer.hypervisor.qemu.driver import QemuDriver
from hypercontainer.hypervisor.qemu.machine_types import MICROVM, VIRT, processor_of_host
from hypercontainer.model import architectures


@pytest.fixture(params=["x86_64", "aarch64"])
def machine(request: pytest.FixtureRequest, monkeypatch: pytest.MonkeyPatch) -> str:
    """A host of each kind."""
    monkeypatch.setattr("platform.machine", lambda: request.param)
    return str(request.param)


def config(**more: object) -> MachineConfig:
    made = MachineConfig("m", Path("/m"), 2, 256 << 20, Path("/k"), Path("/i"), architecture="arm64")
    return MachineConfig(**{**made.__dict__, **more})


def line(accelerator: str, made: MachineConfig) -> list[str]:
    fds = command.Descriptors((3, 4), 5, 6, 7, tuple(range(10, 10 + len(made.disks))))
    return command.command_line("qemu-system-aarch64", made, accelerator, fds, 2_000_000, machine_type=VIRT)


def test_a_board_without_a_bus() -> None:
    disks = tuple(Disk(f"d{n}", Path(f"/d{n}"), read_only=False) for n in range(12))
    found = line("tcg", config(disks=disks, networks=(UserNetwork("52:54:00:00:00:01"),), share=VirtioFs("t", 9)))
    assert found[found.index("-machine") + 1] == "virt,gic-version=max,its=off,memory-backend=mach-virt.ram"
    devices = [found[i + 1].partition(",")[0] for i, word in enumerate(found) if word == "-device"]
    assert devices.count("virtio-blk-device") == 12  # a place for each
    assert {"virtio-serial-device", "virtio-net-device", "vhost-user-fs-device", "virtio-balloon-device"} <= {*devices}
    assert not any("pci" in word for word in found)


def test_its_network_interfaces_are_in_their_order() -> None:
    """Its kernel finds the last one first."""
    macs = [f"52:54:00:00:00:0{n}" for n in range(3)]
    for kind, expected in ((VIRT, macs[::-1]), (MICROVM, macs)):
        found = devices.network_options(tuple(map(UserNetwork, macs)), kind)
        told = [word for word in found if "mac=" in word]
        assert [word.partition("mac=")[2] for word in told] == expected
        assert [f"netdev=net{macs.index(m)}," in word for m, word in zip(expected, told, strict=True)] == [True] * 3


@pytest.mark.parametrize("accelerator", ["tcg", "kvm"])
def test_its_kernel_is_told_nothing_of_a_pc(accelerator: str) -> None:
    found = line(accelerator, config())
    assert found[found.index("-append") + 1] == (
        "console=ttyAMA0 quiet loglevel=3 panic=-1 hyper.channel=port:sh.hyper.guest.0"
    )
    assert found[found.index("-cpu") + 1] == (VIRT.cpu if accelerator == "tcg" else "host")


def test_a_pc_is_as_before() -> None:
    words = command.kernel_command_line("tcg", 2_000_000, machine_type=MICROVM).split()
    assert {"console=ttyS0", "reboot=t", "no_timer_check", "tsc_early_khz=2000000", "mitigations=off"} <= {*words}


def test_which_machines_run_which_images(machine: str) -> None:
    host = architectures.host()
    assert host == {"x86_64": "amd64", "aarch64": "arm64"}[machine]
    assert [architectures.machine_for("linux", name) for name in ("amd64", "arm64", "386", "")] == [
        "amd64", "arm64", "amd64", host
    ]  # fmt: skip
    assert [len(processor_kinds(name)) for name in ("", host, "amd64", "arm64")].count(1) == 1
    assert processor_of_host().binary == f"qemu-system-{machine}"
    for os_, architecture in (("linux", "riscv64"), ("windows", "amd64"), ("linux", "arm")):
        with pytest.raises(InvalidArgument, match=f"images for {os_}/{architecture} cannot be run"):
            architectures.machine_for(os_, architecture)


async def test_the_program_that_emulates(machine: str, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """It may be installed while hyperd runs."""
    monkeypatch.setenv("PATH", str(tmp_path))
    other, package = {"x86_64": ("aarch64", "qemu-system-arm"), "aarch64": ("x86_64", "qemu-system-x86")}[machine]
    architecture = {"aarch64": "arm64", "x86_64": "amd64"}[other]
    driver = QemuDriver(binary="none", accelerator="tcg", cache=tmp_path)
    probe = await driver.emulation(architecture)
    assert (probe.trouble, probe.hint) == (
        f"qemu-system-{other} is not installed", f"install the package {package}"
    )  # fmt: skip
    with pytest.raises(Unavailable, match=f"qemu-system-{other} is not installed"):
        await driver.launch(config(architecture=architecture))
    binary = tmp_path / f"qemu-system-{other}"
    binary.write_text("#!/bin/sh\necho QEMU emulator version 7.2.22 '(Debian)'\n")
    binary.chmod(0o755)
    probe = await driver.emulation(architecture)
    assert (probe.trouble, probe.reason) == ("", f"QEMU 7.2.22, emulated: this host is {architectures.host()}")
    with pytest.raises(Unsupported, match="virtual machines of the architecture vax"):
        await driver.emulation("vax")


async def test_what_it_takes_is_that_of_emulation(tmp_path: Path) -> None:
    """On a host whose own machines run by KVM, too."""
    driver = QemuDriver(binary="none", accelerator="kvm", cache=tmp_path)
    other = next(name for name in architectures.MACHINES if architectures.is_foreign(name))
    assert (await driver.footprint(1, 1 << 28, other)).memory > (await driver.footprint(1, 1 << 28)).memory
