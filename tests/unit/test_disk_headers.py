# SPDX-License-Identifier: Apache-2.0
"""Disk images that lead to other files are refused before QEMU opens them; made by qemu-img."""

from __future__ import annotations

import os
import struct
import subprocess
from dataclasses import replace
from pathlib import Path

import pytest

from hypercontainer.errors import InvalidArgument
from hypercontainer.hypervisor.driver import Disk, MachineConfig
from hypercontainer.hypervisor.qemu import live_disks
from hypercontainer.hypervisor.qemu.driver import QemuDriver
from hypercontainer.hypervisor.qemu.monitor import Monitor


def image(path: Path, *options: str, format: str = "qcow2") -> Path:
    subprocess.run(["qemu-img", "create", "-q", "-f", format, *options, path, "1M"], check=True)
    return path


def with_data_file(path: Path) -> Path:
    (path.parent / "victim.raw").write_bytes(b"secret" + bytes(1 << 20))
    return image(path, "-o", f"data_file={path.parent / 'victim.raw'},data_file_raw=on")


def without_its_bit(path: Path) -> Path:
    """The name is left in the header, for somebody to set the bit later."""
    with open(with_data_file(path), "r+b") as f:
        f.seek(72)
        f.write(struct.pack(">Q", 0))
    return path


def with_backing(path: Path) -> Path:
    return image(path, "-b", str(image(path.parent / "below.qcow2")), "-F", "qcow2")


def with_parent(path: Path) -> Path:
    with open(image(path, format="vdi"), "r+b") as f:
        f.seek(440)
        f.write(b"\1" * 16)
    return path


HOSTILE = {
    "data_file": (with_data_file, "qcow2", "another file"),
    "data_file_unset": (without_its_bit, "qcow2", "another file"),
    "backing": (with_backing, "qcow2", "backing file"),
    "parent": (with_parent, "vdi", "another image"),
    "raw_as_qcow2": (lambda p: image(p, format="raw"), "qcow2", "not a qcow2"),
    "raw_as_vdi": (lambda p: image(p, format="raw"), "vdi", "not a vdi"),
}


def config(directory: Path, *disks: Disk) -> MachineConfig:
    for name in ("kernel", "initramfs"):
        (directory / name).write_bytes(b"none")
    return MachineConfig(
        name="x",
        directory=directory,
        vcpus=1,
        memory=64 << 20,
        kernel=directory / "kernel",
        initramfs=directory / "initramfs",
        disks=disks,
    )


@pytest.mark.parametrize("kind", HOSTILE)
async def test_refused_at_the_launch(tmp_path: Path, kind: str) -> None:
    make, format_, words = HOSTILE[kind]
    disk = Disk("v", make(tmp_path / "disk"), read_only=False, format=format_)
    # `true` would start in QEMU's place.
    driver = QemuDriver(binary="true", accelerator="tcg", cache=tmp_path)
    with pytest.raises(InvalidArgument, match=words):
        await driver.launch(config(tmp_path, disk))


@pytest.mark.parametrize("kind", HOSTILE)
async def test_refused_when_plugged_in(tmp_path: Path, kind: str) -> None:
    make, format_, words = HOSTILE[kind]
    disk = Disk("v", make(tmp_path / "disk"), read_only=False, format=format_)
    monitor = Monitor(tmp_path / "none")
    with pytest.raises(InvalidArgument, match=words):
        await live_disks.add(monitor, disk)
    with pytest.raises(InvalidArgument, match=words):
        await live_disks.exchange(monitor, [disk], {})
    await monitor.__aexit__()


@pytest.mark.parametrize(
    ("format_", "options"), [("qcow2", ()), ("qcow2", ("-o", "compat=0.10")), ("vdi", ()), ("raw", ())]
)
async def test_taken(tmp_path: Path, format_: str, options: tuple[str, ...]) -> None:
    disk = Disk("v", image(tmp_path / "disk", *options, format=format_), read_only=False, format=format_)
    machine = await QemuDriver(binary="true", accelerator="tcg", cache=tmp_path).launch(
        replace(config(tmp_path), disks=(disk,))
    )
    await machine.kill()
    assert not os.path.exists(f"/proc/{machine.pid}/exe")
