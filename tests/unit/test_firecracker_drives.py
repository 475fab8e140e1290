# SPDX-License-Identifier: Apache-2.0
"""Disks that come to a machine of Firecracker's, and go: files behind drives that it has spare."""

from __future__ import annotations

import asyncio
import json
from collections.abc import AsyncIterator
from pathlib import Path
from typing import Any

import pytest

from hypercontainer.errors import InvalidState, Unavailable, Unsupported
from hypercontainer.hypervisor.driver import AnyDisk, Disk, MachineConfig, RbdDisk
from hypercontainer.hypervisor.firecracker import document
from hypercontainer.hypervisor.firecracker.drives import Drives
from hypercontainer.hypervisor.firecracker.late import Late
from hypercontainer.hypervisor.firecracker.machine import FirecrackerMachine
from hypercontainer.hypervisor.firecracker.places import places

Asked = list[tuple[str, str]]


@pytest.fixture
async def asked(tmp_path: Path) -> AsyncIterator[Asked]:
    """Drives and paths that a server in Firecracker's place was told of; it takes none that is called `bad`."""
    questions: Asked = []

    async def serve_one(reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        head = (await reader.readuntil(b"\r\n\r\n")).decode()
        size = int(head.lower().partition("content-length: ")[2].split("\r\n")[0])
        body = json.loads(await reader.readexactly(size))
        assert head.startswith(f"PATCH /drives/{body['drive_id']} ")
        questions.append((body["drive_id"], body["path_on_host"]))
        bad = body["path_on_host"].endswith("bad")
        writer.write(b"HTTP/1.1 400 \r\n\r\n" if bad else b"HTTP/1.1 204 \r\n\r\n")
        writer.close()

    server = await asyncio.start_unix_server(serve_one, tmp_path / "api.sock")
    yield questions
    server.close()
    await server.wait_closed()


def config(path: Path, **how: Any) -> MachineConfig:
    return MachineConfig("a", path, 1, 1 << 27, path / "kernel", path / "initramfs", **{"expandable": True, **how})


def disk(path: Path, serial: str, *, read_only: bool = False, sectors: int = 8) -> Disk:
    (path / serial).write_bytes(bytes(sectors * 512))
    return Disk(serial, path / serial, read_only)


def machine(path: Path, drives: Drives) -> FirecrackerMachine:
    """Without a jail."""
    return FirecrackerMachine(path, 0, 1, drives, inside=path)


def test_it_has_spare_drives_in_pairs(tmp_path: Path) -> None:
    for disks, spare in ((0, 16), (1, 14), (2, 14), (15, 0), (17, 0)):
        wanted = config(tmp_path, disks=tuple(Disk(f"d{n}", tmp_path, read_only=True) for n in range(disks)))
        assert document.spares(wanted) == (True, False) * (spare // 2)
        made = document.document(wanted, (7, 9), places(wanted, jailed=True))
        assert len(made["drives"]) == disks + spare and ("balloon" in made) == (disks < 17)
        assert {d["path_on_host"] for d in made["drives"][disks:]} <= {"/machine/nothing"}
    assert document.spares(config(tmp_path, expandable=False)) == ()


async def test_disks_come_and_go(tmp_path: Path, asked: Asked) -> None:
    one = machine(tmp_path, Drives.of(config(tmp_path, disks=(Disk("boot", tmp_path, read_only=True),))))
    await one.add_disk(disk(tmp_path, "image", read_only=True))
    await one.add_disk(disk(tmp_path, "own", sectors=16))
    assert one.names == {"boot": "dev:vda", "image": "dev:vdb:8", "own": "dev:vdc:16"}
    again = FirecrackerMachine.of(json.loads(json.dumps(one.handle)))
    assert again.handle == one.handle and again.names == one.names
    for _ in range(2):
        await again.remove_disk("image")
    assert again.names == {"boot": "dev:vda", "own": "dev:vdc:16"}
    await again.add_disk(disk(tmp_path, "other", read_only=True, sectors=3))
    assert again.names["other"] == "dev:vdb:3"
    nothing = str(tmp_path / "nothing")
    assert asked == [
        ("disk1", str(tmp_path / "image")), ("disk2", str(tmp_path / "own")), ("disk1", nothing),
        ("disk1", str(tmp_path / "other")),
    ]  # fmt: skip


async def test_one_that_waited_gets_disks_in_its_jail(tmp_path: Path, asked: Asked) -> None:
    """Also after it was renamed to be a pod's."""
    late = Late.make(tmp_path / "late", "pool-1")
    drives = Drives.of(config(tmp_path))
    one = FirecrackerMachine(tmp_path, 0, 1, drives, late=late, inside=Path("/machine"))
    await one.reconfigure(tmp_path, [], [])
    again = FirecrackerMachine.of(json.loads(json.dumps(one.handle)))
    await again.add_disk(disk(tmp_path, "own"))
    await again.remove_disk("own")
    assert asked == [("disk1", "/disks/late/disk1"), ("disk1", "/machine/nothing")]
    assert (tmp_path / "own").stat().st_nlink == 1
    assert [p.name for p in (tmp_path / "late").iterdir()] == [tmp_path.name]
    await again.kill()
    assert not list((tmp_path / "late").iterdir())


async def test_what_it_does_not_open_leaves_its_place_free(tmp_path: Path, asked: Asked) -> None:
    one = machine(tmp_path, Drives.of(config(tmp_path)))
    with pytest.raises(Unavailable, match="did not take"):
        await one.add_disk(disk(tmp_path, "bad"))
    assert asked[-1] == ("disk1", str(tmp_path / "nothing")) and one.names == {}
    await one.add_disk(disk(tmp_path, "good"))
    assert one.names == {"good": "dev:vdb:8"}


async def test_there_are_so_many_places(tmp_path: Path, asked: Asked) -> None:
    one = machine(tmp_path, Drives.of(config(tmp_path)))
    for n in range(8):
        await one.add_disk(disk(tmp_path, f"d{n}"))
    with pytest.raises(InvalidState, match="no place for one more disk: the driver 'qemu' has more"):
        await one.add_disk(disk(tmp_path, "more"))
    await one.add_disk(disk(tmp_path, "image", read_only=True))
    assert len(asked) == 9


@pytest.mark.parametrize(
    "given, what",
    [
        (Disk("d", Path("/x"), read_only=False, format="qcow2"), "formats qcow2 and vdi"),
        (Disk("d", Path("/x"), read_only=False, cache="none"), "cache modes"),
        (RbdDisk("d", "pool", "image", ("127.0.0.1:1",)), "Ceph"),
    ],
)
async def test_disks_of_other_kinds_are_refused(tmp_path: Path, given: AnyDisk, what: str) -> None:
    with pytest.raises(Unsupported, match=what):
        await machine(tmp_path, Drives.of(config(tmp_path))).add_disk(given)


async def test_a_machine_of_an_earlier_version_keeps_its_disks(tmp_path: Path, asked: Asked) -> None:
    handle = {"directory": str(tmp_path), "pid": 1, "pidStarted": 1, "names": {"d": "dev:vda"}, "taps": []}
    one = FirecrackerMachine.of(handle)
    assert one.names == {"d": "dev:vda"}
    with pytest.raises(InvalidState):
        await one.add_disk(disk(tmp_path, "more"))
    await one.remove_disk("d")
    assert asked == []


async def test_directories_come_by_a_port_of_the_host(tmp_path: Path) -> None:
    one = machine(tmp_path, Drives([]))

    async def mount(channel: str) -> None:
        assert channel == "vsock:1025"
        _, guest = await asyncio.open_unix_connection(tmp_path / "vsock.sock_1025")
        guest.write(b"asks")
        guest.close()

    with await one.open_files(mount) as stream:
        assert await asyncio.get_running_loop().sock_recv(stream, 4) == b"asks"
    assert not (tmp_path / "vsock.sock_1025").exists()


async def test_a_guest_that_does_not_open_them(tmp_path: Path) -> None:
    async def mount(_: str) -> None:
        raise Unavailable("it has ended")

    with pytest.raises(Unavailable, match="it has ended"):
        await machine(tmp_path, Drives([])).open_files(mount)
    assert not (tmp_path / "vsock.sock_1025").exists()
