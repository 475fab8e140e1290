# SPDX-License-Identifier: Apache-2.0
"""Firecracker's saved machines, as far as they go without KVM: with servers in the place of Firecracker."""

from __future__ import annotations

import asyncio
import json
import os
from collections.abc import AsyncIterator
from pathlib import Path
from typing import Any

import pytest

from hypercontainer.errors import Unavailable
from hypercontainer.hypervisor.driver import Disk, MachineConfig, Snapshot
from hypercontainer.hypervisor.facets import Reconfigure, Save, Snapshots
from hypercontainer.hypervisor.firecracker.driver import make
from hypercontainer.hypervisor.firecracker.drives import Drive, Drives
from hypercontainer.hypervisor.firecracker.holes import punch
from hypercontainer.hypervisor.firecracker.late import Late, sweep
from hypercontainer.hypervisor.firecracker.machine import FirecrackerMachine
from hypercontainer.hypervisor.firecracker.saving import Saving
from hypercontainer.hypervisor.memory_file import MemoryFile
from hypercontainer.jail.hyperjail import HyperJail
from hypercontainer.jail.plain import PlainJail

PAGE = 4096
Asked = list[tuple[str, str, dict[str, Any]]]


@pytest.fixture
async def asked(tmp_path: Path) -> AsyncIterator[Asked]:
    """What the server beside this was asked; for a snapshot it leaves a state in the machine's directory."""
    questions: Asked = []

    async def serve_one(reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        head = (await reader.readuntil(b"\r\n\r\n")).decode()
        method, what, _ = head.split(" ", 2)
        size = int(head.lower().partition("content-length: ")[2].split("\r\n")[0])
        questions.append((method, what, json.loads(await reader.readexactly(size))))
        if what == "/snapshot/create":
            (tmp_path / "state").write_bytes(b"its devices")
        writer.write(b"HTTP/1.1 204 \r\n\r\n")
        writer.close()

    server = await asyncio.start_unix_server(serve_one, tmp_path / "api.sock")
    yield questions
    server.close()
    await server.wait_closed()


async def test_a_machine_is_saved(tmp_path: Path, asked: Asked) -> None:
    memory, state = os.memfd_create("memory"), os.memfd_create("state")
    os.write(memory, bytes(3 * PAGE) + b"x" * PAGE)
    saving = Saving(Path("/machine"), MemoryFile.of(memory), 4 * PAGE)
    machine = FirecrackerMachine(tmp_path, os.getpid(), 1, Drives([]), saving=saving)  # it has that file
    await machine.save(state)
    assert asked == [
        ("PATCH", "/vm", {"state": "Paused"}),
        (
            "PUT",
            "/snapshot/create",
            {"snapshot_type": "Full", "snapshot_path": "/machine/state", "mem_file_path": f"/proc/self/fd/{memory}"},
        ),
    ]
    assert os.pread(state, 100, 0) == b"its devices" and not (tmp_path / "state").exists()
    assert os.lseek(memory, 0, os.SEEK_DATA) == 3 * PAGE
    machine.drop_memory()
    assert os.fstat(memory).st_size == 0
    await machine.kill()
    await machine.kill()
    os.close(memory)
    os.close(state)


async def test_one_that_was_not_launched_for_it_is_not_saved(tmp_path: Path) -> None:
    with pytest.raises(Unavailable, match="was not launched to be saved"):
        await FirecrackerMachine(tmp_path, 0, 1, Drives([])).save(0)


async def test_a_clone_has_its_own_taps(tmp_path: Path, asked: Asked) -> None:
    machine = FirecrackerMachine(tmp_path, 0, 1, Drives([]))
    await machine.load("/proc/self/fd/5", "/proc/self/fd/6", ["ht0"], timeout=5)
    await machine.load("/proc/self/fd/5", "/proc/self/fd/6", [], timeout=5)
    body = {
        "snapshot_path": "/proc/self/fd/6",
        "mem_backend": {"backend_type": "File", "backend_path": "/proc/self/fd/5"},
        "resume_vm": True,
    }
    overrides = [{"iface_id": "eth0", "host_dev_name": "ht0"}]
    assert asked == [
        ("PUT", "/snapshot/load", {**body, "network_overrides": overrides}),
        ("PUT", "/snapshot/load", body),
    ]


async def test_a_machine_that_waited_gets_other_files(tmp_path: Path, asked: Asked) -> None:
    """Each is shown to it for as long as it is asked; then there is nothing more to be had."""
    drives = Drives([Drive(True, "image", "dev:vda"), Drive(False, "scratch", "dev:vdb")])
    late = Late.make(tmp_path / "late", "pool-1")
    machine = FirecrackerMachine(tmp_path, 0, 1, drives, late=late)
    (tmp_path / "mine").write_bytes(b"x")
    await machine.reconfigure(tmp_path, [Disk("scratch", tmp_path / "mine", read_only=False)], [])
    assert asked == [("PATCH", "/drives/disk1", {"drive_id": "disk1", "path_on_host": "/disks/late/disk1"})]
    assert (tmp_path / "mine").stat().st_nlink == 1 and not late.directory.exists()
    await machine.reconfigure(tmp_path, [], [])


async def test_a_file_of_another_file_system_is_not_shown(tmp_path: Path) -> None:
    late = Late.make(tmp_path / "late", "pool-1")
    machine = FirecrackerMachine(tmp_path, 0, 1, Drives([Drive(False, "scratch", "dev:vda")]), late=late)
    with pytest.raises(Unavailable, match="cannot be shown to a machine that runs"):
        await machine.reconfigure(tmp_path, [Disk("scratch", Path("/proc/version"), read_only=True)], [])
    await machine.kill()
    assert not late.directory.exists()


def test_what_a_killed_daemon_was_showing_is_shown_again(tmp_path: Path) -> None:
    late, mine = Late.make(tmp_path / "late", "pool-1"), tmp_path / "mine"
    mine.write_bytes(b"x")
    (late.directory / "disk1").hardlink_to(mine)
    with late.shown(mine, "disk1"):
        assert mine.stat().st_nlink == 2
    assert mine.stat().st_nlink == 1


def test_what_a_killed_daemon_left_of_them_goes(tmp_path: Path) -> None:
    gone, there = (Late.make(tmp_path / "late", name) for name in ("gone", "there"))
    (tmp_path / "pods" / "there").mkdir(parents=True)
    (gone.directory / "disk1").touch()
    sweep(tmp_path / "late", tmp_path / "pods")
    assert there.directory.exists() and not gone.directory.exists()
    sweep(tmp_path / "none", tmp_path / "pods")


@pytest.mark.parametrize("pattern", ["0", "x", "x0", "0x", "0x00x0", "x" * 3, "0" * 2000 + "x"])
def test_pages_of_zeros_become_holes(tmp_path: Path, pattern: str) -> None:
    fd = os.memfd_create("memory")
    content = b"".join((b"x" if c == "x" else b"\0") * PAGE for c in pattern)
    os.write(fd, content)
    punch(fd, os.fstat(fd).st_size)
    assert os.pread(fd, len(content), 0) == content and os.fstat(fd).st_size == len(content)
    assert os.fstat(fd).st_blocks * 512 == pattern.count("x") * PAGE
    os.close(fd)


def test_it_takes_a_jail(tmp_path: Path) -> None:
    """A saved machine's paths are those of its clones."""

    def made(jail: Any) -> Any:
        return make(binary="firecracker", accelerator="kvm", cache=tmp_path, boot_timeout=1, jail=jail)

    with_jail, without = made(HyperJail(tmp_path / "jail")), made(PlainJail())
    assert isinstance(with_jail, Snapshots) and Snapshot in with_jail.takes and {Save, Reconfigure} <= with_jail.facets
    assert not isinstance(without, Snapshots) and Snapshot not in without.takes
    assert not {Save, Reconfigure} & without.facets


async def test_what_a_snapshot_fits(tmp_path: Path) -> None:
    driver = make(binary="/no", accelerator="kvm", cache=tmp_path, boot_timeout=1, jail=HyperJail(tmp_path / "jail"))
    assert isinstance(driver, Snapshots)

    def config(name: str = "a", memory: int = 128 << 20) -> MachineConfig:
        return MachineConfig(name, tmp_path / name, 1, memory, tmp_path, tmp_path)

    assert await driver.fingerprint(config()) == await driver.fingerprint(config("b"))
    assert await driver.fingerprint(config()) != await driver.fingerprint(config(memory=256 << 20))
