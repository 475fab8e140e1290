# SPDX-License-Identifier: Apache-2.0
"""QEMU's command line, the initramfs, the kernel's search."""

from __future__ import annotations

import json
import socket
import subprocess
from pathlib import Path

import pytest

from hypercontainer.errors import Conflict, NotFound, Unavailable
from hypercontainer.guest import initramfs
from hypercontainer.hypervisor.driver import Disk, MachineConfig, UserNetwork
from hypercontainer.hypervisor.qemu import command
from hypercontainer.hypervisor.qemu.driver import QemuDriver, check_port_free
from hypercontainer.kernel.locate import locate
from hypercontainer.model.specs import PortMapping

CONFIG = MachineConfig(
    name="abcdef123456", directory=Path("/run/x"), vcpus=2, memory=128 << 20, kernel=Path("/k"), initramfs=Path("/i"),
    disks=(Disk("image0", Path("/img"), read_only=True), Disk("scratch0", Path("/scr"), read_only=False)),
    network=UserNetwork("52:54:00:00:00:01", (PortMapping(container_port=80, host_port=8080), PortMapping(container_port=53, host_port=53, host_ip="127.0.0.1", protocol="udp"))),
)  # fmt: skip
FDS = command.Descriptors(kernel=3, initramfs=4, channel=5, monitor=6, console=7, disks=(8, 9))


def pairs(line: list[str]) -> list[tuple[str, str]]:
    return list(zip(line, line[1:], strict=False))


def test_command_line() -> None:
    line = command.command_line("/usr/bin/qemu", CONFIG, "tcg", FDS)
    options = pairs(line)
    assert line[0] == "/usr/bin/qemu"
    assert ("-smp", "2") in options and ("-m", "128M") in options
    assert ("-kernel", "/proc/self/fd/3") in options and ("-initrd", "/proc/self/fd/4") in options
    assert ("-chardev", "socket,id=guest,fd=5,server=on,wait=off") in options
    assert ("-sandbox", "on,obsolete=deny,elevateprivileges=deny,spawn=deny,resourcecontrol=deny") in options
    assert "-nodefaults" in line and "-no-reboot" in line


def test_nothing_is_opened_by_path() -> None:
    line = " ".join(command.command_line("qemu", CONFIG, "tcg", FDS))
    assert not any(path in line for path in ("/img", "/scr", "/run/x", "=/k", "=/i"))


def test_disks() -> None:
    options = pairs(command.disk_options(CONFIG, FDS))
    assert ("-add-fd", "fd=8,set=0") in options and ("-add-fd", "fd=9,set=1") in options
    blocks = [v for k, v in options if k == "-blockdev"]
    assert "read-only=on" in blocks[0] and "read-only=off" in blocks[1]
    assert ("-device", "virtio-blk-device,drive=disk1,serial=scratch0") in options


def test_network() -> None:
    assert command.network_options(None) == []
    netdev = command.network_options(CONFIG.network)[1]
    assert "hostfwd=tcp:0.0.0.0:8080-:80" in netdev and "hostfwd=udp:127.0.0.1:53-:53" in netdev


def test_accelerators() -> None:
    assert "host" in command.machine_options("kvm") and "qemu64" in command.machine_options("tcg")
    assert "mitigations=off" in command.kernel_command_line("tcg")
    assert "mitigations=off" not in command.kernel_command_line("kvm")


def test_a_taken_port_is_refused() -> None:
    with socket.socket() as taken:
        taken.bind(("127.0.0.1", 0))
        taken.listen()
        port = taken.getsockname()[1]
        with pytest.raises(Conflict, match=rf"cannot publish 127.0.0.1:{port}/tcp"):
            check_port_free(PortMapping(container_port=1, host_port=port, host_ip="127.0.0.1"))
    with pytest.raises(Conflict, match="cannot publish 192.0.2.77"):
        check_port_free(PortMapping(container_port=1, host_port=1, host_ip="192.0.2.77"))


async def test_missing_qemu(tmp_path: Path) -> None:
    driver = QemuDriver(binary="no-such-qemu", accelerator="tcg", cache=tmp_path)
    assert driver.version() == ""
    with pytest.raises(Unavailable, match="no-such-qemu is not installed"):
        await driver.launch(CONFIG)


async def test_without_a_kernel_kvm_is_not_tried(tmp_path: Path) -> None:
    name, reason = await QemuDriver(binary="qemu-system-x86_64", accelerator="auto", cache=tmp_path).accelerator()
    assert name == "tcg" and ("kernel" in reason or "/dev/kvm" in reason)


def test_initramfs_is_a_cpio_with_init(tmp_path: Path) -> None:
    archive = initramfs.build(b"#!init")
    out = tmp_path / "out"
    out.mkdir()
    subprocess.run(["cpio", "-idm", "--quiet"], input=archive, cwd=out, check=True)
    assert (out / "init").read_bytes() == b"#!init" and (out / "init").stat().st_mode & 0o777 == 0o755


def test_both_binaries_are_packaged() -> None:
    for machine in ("x86_64", "aarch64"):
        data = initramfs.hyperstart_path(machine).read_bytes()
        assert data[:4] == b"\x7fELF" and len(data) < 400_000
    with pytest.raises(Unavailable, match="no hyperstart for vax"):
        initramfs.hyperstart_path("vax")


def test_kernel_is_found(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("HYPER_CACHE", str(tmp_path))
    monkeypatch.setattr("hypercontainer.kernel.locate.SYSTEM", tmp_path / "none")
    with pytest.raises(Unavailable, match="there is no guest kernel"):
        locate()
    build = tmp_path / "kernel/abc"
    build.mkdir(parents=True)
    (build / "vmlinux").write_bytes(b"elf")
    (build / "kernel.json").write_text(json.dumps({"version": "6.1-hyper", "config_hash": "f00"}))
    assert (locate().version, locate().path) == ("6.1-hyper", build / "vmlinux")
    mine = tmp_path / "mine"
    mine.write_bytes(b"x")
    assert locate(str(mine)).version == ""
    with pytest.raises(NotFound, match="does not exist"):
        locate(str(tmp_path / "gone"))
