# SPDX-License-Identifier: Apache-2.0
"""What may take long does not hold up everybody else: the loop goes on meanwhile."""

from __future__ import annotations

import asyncio
import socket
import threading
from pathlib import Path

import pytest

from hypercontainer.engine import guest_mounts
from hypercontainer.errors import InvalidArgument, Unavailable
from hypercontainer.images.waste import Waste
from hypercontainer.model.status import PodVolume
from hypercontainer.sys import removal, tasks
from hypercontainer.volumes import disks, scratch
from hypercontainer.volumes.disks import BlockVolumes

NFS = PodVolume(name="n", kind="nfs", source="server.invalid:/a", fstype="nfs4")


async def test_a_slow_name_server(monkeypatch: pytest.MonkeyPatch) -> None:
    asked, answer = threading.Event(), threading.Event()

    def slow(*_: object, **__: object) -> list[object]:
        asked.set()
        assert answer.wait(20), "the loop was held up"
        return [(socket.AF_INET, socket.SOCK_STREAM, 6, "", ("192.0.2.7", 0))]

    monkeypatch.setattr(socket, "getaddrinfo", slow)
    task = asyncio.ensure_future(guest_mounts.nfs_source(NFS))
    while not asked.is_set():
        await asyncio.sleep(0)
    answer.set()  # by the loop, while the name is looked up
    assert (await task)[0] == "192.0.2.7:/a"


async def test_a_name_server_that_never_answers(monkeypatch: pytest.MonkeyPatch) -> None:
    end = threading.Event()
    monkeypatch.setattr(guest_mounts, "_RESOLVE_TIMEOUT", 0.05)
    monkeypatch.setattr(socket, "getaddrinfo", lambda *_, **__: end.wait(20) and [])
    try:
        with pytest.raises(Unavailable, match=r"the NFS server 'server\.invalid' cannot be resolved"):
            await guest_mounts.nfs_source(NFS)
    finally:
        end.set()


async def test_a_slow_disk(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """Each container's own disk is copied from an empty one."""
    begun, end = threading.Event(), threading.Event()

    def slow(_: Path, target: Path) -> None:
        begun.set()
        assert end.wait(20), "the loop was held up"
        target.write_bytes(b"copied")

    monkeypatch.setattr(scratch, "copy_sparse", slow)
    (tmp_path / f"blank-{1 << 20}.ext4").write_bytes(b"")
    task = asyncio.ensure_future(scratch.ScratchDisks(tmp_path, 1 << 20).create(tmp_path / "scratch.img"))
    while not begun.is_set():
        await asyncio.sleep(0)
    end.set()  # by the loop, while the disk is written
    await task
    assert (tmp_path / "scratch.img").read_bytes() == b"copied"


async def test_a_cancelled_caller_waits_for_its_thread() -> None:
    """Else what it tidies up would be made after that."""
    begun, end, done = threading.Event(), threading.Event(), []

    def work() -> None:
        begun.set()
        end.wait(20)
        done.append(1)

    task = asyncio.ensure_future(tasks.in_thread(work))
    while not begun.is_set():
        await asyncio.sleep(0)
    task.cancel()
    await asyncio.sleep(0)
    assert not task.done()
    end.set()
    with pytest.raises(asyncio.CancelledError):
        await task
    assert done == [1]


@pytest.mark.parametrize("fstype", ["ext4", "xfs"])
async def test_sizes_that_no_disk_has(tmp_path: Path, monkeypatch: pytest.MonkeyPatch, fstype: str) -> None:
    blocks = BlockVolumes(tmp_path / "cache", 1 << 30)
    with pytest.raises(InvalidArgument, match="is too large: give at most 16t"):
        await blocks.create(tmp_path / "a", size=(1 << 63) - 1, fstype=fstype)
    monkeypatch.setattr(disks, "SIZE_MAX", 1 << 63)
    with pytest.raises(InvalidArgument, match=r"takes no file of \d+ bytes: give less"):
        await blocks.create(tmp_path / "a", size=(1 << 63) - 4096, fstype=fstype)
    assert not (tmp_path / "a").exists() and list((tmp_path / "cache").glob("*")) == []


async def test_large_files_go_in_a_thread(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """Of a container; whoever is cancelled meanwhile leaves nothing either."""
    begun, end = threading.Event(), threading.Event()
    real = removal.remove_tree

    def slow(path: Path) -> None:
        begun.set()
        assert end.wait(20), "the loop was held up"
        real(path)

    monkeypatch.setattr(removal, "remove_tree", slow)
    directory = tmp_path / "large"
    directory.mkdir()
    (directory / "scratch.img").touch()
    task = asyncio.ensure_future(removal.removed(directory, tmp_path / "none"))
    while not begun.is_set():
        await asyncio.sleep(0)
    task.cancel()
    await asyncio.sleep(0)
    assert not task.done()
    end.set()  # by the loop, while it goes
    with pytest.raises(asyncio.CancelledError):
        await task
    assert not directory.exists()


async def test_waste_loses_its_name_at_once(tmp_path: Path) -> None:
    staging, file, other = tmp_path / "staging", tmp_path / "blob", tmp_path / "other"
    staging.mkdir()
    file.touch()
    other.touch()
    waste = Waste(staging)
    waste.add(file)
    assert not file.exists() and len(list(staging.iterdir())) == 1
    await waste.removed()
    assert list(staging.iterdir()) == []
    staging.rmdir()
    waste.add(other)
    assert not other.exists(), "where it cannot be moved it goes at once"
