# SPDX-License-Identifier: Apache-2.0
"""QEMU's command line, the initramfs, the kernel's search."""

from __future__ import annotations

import asyncio
import json
import os
import signal
import socket
import subprocess
from dataclasses import replace
from pathlib import Path
from typing import Any

import pytest

from hypercontainer.errors import Conflict, InvalidArgument, NotFound, Unavailable
from hypercontainer.guest import initramfs
from hypercontainer.hypervisor.driver import (
    Disk,
    MachineConfig,
    RbdDisk,
    StreamNetwork,
    TapNetwork,
    UserNetwork,
    VirtioFs,
)
from hypercontainer.hypervisor.qemu import command, devices
from hypercontainer.hypervisor.qemu.driver import QemuDriver
from hypercontainer.hypervisor.qemu.machine import QemuMachine
from hypercontainer.hypervisor.qemu.ports import check_port_free
from hypercontainer.kernel.locate import locate
from hypercontainer.model.specs import PortMapping
from hypercontainer.network import passt
from hypercontainer.sys import deadlines
from hypercontainer.sys.process import start_time
from hypercontainer.sys.tasks import within

CONFIG = MachineConfig(
    name="abcdef123456",
    directory=Path("/run/x"),
    vcpus=2,
    memory=128 << 20,
    kernel=Path("/k"),
    initramfs=Path("/i"),
    disks=(Disk("image0", Path("/img"), read_only=True), Disk("scratch0", Path("/scr"), read_only=False)),
    networks=(
        UserNetwork(
            "52:54:00:00:00:01",
            (
                PortMapping(container_port=80, host_port=8080),
                PortMapping(container_port=53, host_port=53, host_ip="127.0.0.1", protocol="udp"),
            ),
        ),
    ),
)
FDS = command.Descriptors(boot=(3, 4), channel=5, monitor=6, console=7, disks=(8, 9))


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


def blocks(options: list[str]) -> list[dict[str, Any]]:
    return [json.loads(v) for k, v in pairs(options) if k == "-blockdev"]


def test_disks() -> None:
    options = devices.disk_options(CONFIG, FDS.disks)
    assert ("-add-fd", "fd=8,set=0") in pairs(options) and ("-add-fd", "fd=9,set=1") in pairs(options)
    assert [b["read-only"] for b in blocks(options)] == [True, False]
    assert (
        "-device",
        "virtio-blk-device,id=dev-scratch0,drive=disk-scratch0,serial=scratch0,write-cache=auto",
    ) in pairs(options)


def test_disks_that_do_not_fit_are_luns() -> None:
    many = replace(CONFIG, disks=tuple(Disk(f"d{i}", Path("/x"), read_only=False) for i in range(7)))
    options = devices.disk_options(many, tuple(range(7)))
    assert ("-device", "virtio-scsi-device,id=scsi") in pairs(options)
    assert ("-device", "scsi-hd,bus=scsi.0,scsi-id=0,id=dev-d6,drive=disk-d6,serial=d6,write-cache=auto") in pairs(
        options
    )
    assert devices.uses_scsi(replace(CONFIG, expandable=True)) and not devices.uses_scsi(CONFIG)


@pytest.mark.parametrize(
    ("mode", "cache", "write_cache"),
    [("", None, "auto"), ("none", {"direct": True}, "auto"), ("off", {"direct": True}, "auto"),
     ("unsafe", {"no-flush": True}, "auto"),
     ("writethrough", None, "off"), ("directsync", {"direct": True}, "off"), ("writeback", None, "auto")],
)  # fmt: skip
def test_cache_modes(mode: str, cache: dict[str, bool] | None, write_cache: str) -> None:
    disk = Disk("d", Path("/x"), read_only=False, cache=mode)
    assert devices.block_node(disk, "n", 0).get("cache") == cache
    assert devices.disk_device(disk, "n", scsi=False)["write-cache"] == write_cache


def test_an_image_cannot_name_another_file() -> None:
    node = devices.block_node(Disk("d", Path("/x"), read_only=False, format="qcow2"), "n", 3)
    assert node["driver"] == "qcow2" and node["backing"] is None and node["file"]["filename"] == "/dev/fdset/3"


def test_a_disk_of_ceph() -> None:
    disk = RbdDisk("r", "pool", "image", ("10.0.0.1:6789", "10.0.0.2:6789"), user="admin", keyring="c2VjcmV0")
    options = devices.disk_options(replace(CONFIG, disks=(disk,)), (7,))
    (node,) = blocks(options)
    assert node["file"]["server"] == [{"host": "10.0.0.1", "port": "6789"}, {"host": "10.0.0.2", "port": "6789"}]
    assert node["file"]["user"] == "admin" and node["file"]["key-secret"] == "disk-r-key"
    assert ("-object", "secret,id=disk-r-key,file=/proc/self/fd/7,format=base64") in pairs(options)


def test_network() -> None:
    assert devices.network_options(()) == []
    netdev = devices.network_options(CONFIG.networks)[1]
    assert "hostfwd=tcp:0.0.0.0:8080-:80" in netdev and "hostfwd=udp:127.0.0.1:53-:53" in netdev
    tap = devices.network_options((TapNetwork("52:54:00:00:00:02", 17),))
    assert ("-netdev", "tap,id=net0,fd=17") in pairs(tap)


def test_passt() -> None:
    line = passt.arguments(
        "passt",
        9,
        (
            PortMapping(container_port=80, host_port=8080),
            PortMapping(container_port=53, host_port=5353, host_ip="127.0.0.1", protocol="udp"),
        ),
    )
    assert "--no-map-gw" in line and "--no-map-gw" not in passt.arguments("passt", 9, (), host_loopback=True)
    assert (
        ("-t", "8080:80") in pairs(line) and ("-u", "127.0.0.1/5353:53") in pairs(line) and ("--fd", "9") in pairs(line)
    )
    options = devices.network_options((StreamNetwork("52:54:00:00:00:02", 17),))
    assert ("-netdev", "stream,id=net0,server=off,addr.type=fd,addr.str=17") in pairs(options)


def test_shared_directories() -> None:
    served = replace(CONFIG, share=VirtioFs("share", 21))
    line = command.command_line("qemu", served, "tcg", FDS)
    assert "memory-backend=microvm.ram" in line[line.index("-machine") + 1]
    assert ("-chardev", "socket,id=share,fd=21") in pairs(line) and (
        "-device",
        "vhost-user-fs-device,chardev=share,tag=share",
    ) in pairs(line)


def test_too_many_nics_are_refused() -> None:
    nics = tuple(TapNetwork("52:54:00:00:00:02", 17) for _ in range(8))
    with pytest.raises(InvalidArgument, match="8 network interfaces do not fit"):
        devices.check_places(replace(CONFIG, networks=nics))


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
    assert driver.version == ""
    with pytest.raises(Unavailable, match="no-such-qemu is not installed"):
        await driver.launch(CONFIG)


async def test_a_qemu_that_did_not_answer_is_asked_again(tmp_path: Path) -> None:
    """As on a host that is too busy for it."""
    binary = tmp_path / "qemu"
    binary.write_text("#!/bin/sh\nexit 1\n")
    binary.chmod(0o755)
    driver = QemuDriver(binary=str(binary), accelerator="tcg", cache=tmp_path)
    assert driver.version == "" and (await driver.probe()).trouble == "it does not say its version"
    binary.write_text("#!/bin/sh\necho QEMU emulator version 7.2.22 '(Debian)'\n")
    assert driver.version == "7.2.22" and (await driver.probe()).trouble == ""


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
    assert locate(architecture="amd64").path == build / "vmlinux"  # one of before there was another
    mine = tmp_path / "mine"
    mine.write_bytes(b"x")
    assert locate(str(mine)).version == ""
    with pytest.raises(NotFound, match="does not exist"):
        locate(str(tmp_path / "gone"))


def test_each_architecture_has_a_kernel_of_its_own(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """The newest build is for another machine than this host's: nobody boots it here by mistake."""
    monkeypatch.setenv("HYPER_CACHE", str(tmp_path))
    monkeypatch.setattr("hypercontainer.kernel.locate.SYSTEM", tmp_path / "none")
    monkeypatch.setattr("platform.machine", lambda: "x86_64")
    with pytest.raises(Unavailable, match="there is no guest kernel for arm64") as refused:
        locate(architecture="arm64")
    assert "hyperctl kernel build --arch arm64" in str(refused.value.hint)
    for age, (architecture, image) in enumerate({"arm64": "Image", "amd64": "vmlinux"}.items()):
        build = tmp_path / "kernel" / architecture
        build.mkdir(parents=True)
        (build / image).touch()
        about = {"version": "6", "config_hash": architecture, "architecture": architecture}
        (build / "kernel.json").write_text(json.dumps(about))
        os.utime(build / "kernel.json", (1000 - age, 1000 - age))
    assert [locate(architecture=name).path.name for name in ("", "amd64", "arm64")] == ["vmlinux", "vmlinux", "Image"]
    assert locate(str(tmp_path / "kernel/arm64/Image"), "arm64").config_hash == "arm64"


@pytest.mark.parametrize("ended_before", [True, False])
async def test_no_zombie_stays(tmp_path: Path, ended_before: bool) -> None:
    """Whether the machine's end came before somebody waited for it, or later."""
    pid = os.posix_spawn("/bin/sleep", ["sleep", "1000"], os.environ)
    machine = QemuMachine(tmp_path, pid, start_time(pid), "tcg")
    os.kill(pid, signal.SIGKILL)
    if ended_before:
        await asyncio.to_thread(os.waitid, os.P_PID, pid, os.WEXITED | os.WNOWAIT)
    await within(machine.wait(), 30)
    assert not Path(f"/proc/{pid}").exists()


async def test_a_process_that_sigkill_does_not_end_is_not_waited_for(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, caplog: pytest.LogCaptureFixture
) -> None:
    """The kernel keeps one whose disk does not answer: here it is one that gets no signal."""
    monkeypatch.setattr(deadlines, "DEATH", 0.05)
    monkeypatch.setattr("hypercontainer.sys.process.kill", lambda *_: None)
    process = subprocess.Popen(["sleep", "1000"])
    try:
        machine = QemuMachine(tmp_path, process.pid, start_time(process.pid), "tcg")
        await within(machine.kill(), 20)
        assert f"process {process.pid}, a virtual machine, was killed and has not ended" in caplog.text
    finally:
        process.kill()
        process.wait()
