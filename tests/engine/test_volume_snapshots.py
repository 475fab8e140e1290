# SPDX-License-Identifier: Apache-2.0
"""Snapshots of volumes over fakes: what is in them, what is refused, and what is left."""

from __future__ import annotations

import asyncio
import os
import shutil
import threading
from pathlib import Path
from types import SimpleNamespace
from typing import Any

import pytest

from hypercontainer.api.progress import send_progress
from hypercontainer.engine import held_volumes, still_disks, volume_copies, volume_snapshots
from hypercontainer.engine.principal import asked_by
from hypercontainer.errors import (
    Conflict,
    GuestError,
    InvalidArgument,
    NoSpace,
    NotFound,
    QuotaExceeded,
    Unavailable,
    Unsupported,
)
from hypercontainer.guest.fake import FakeGuest
from hypercontainer.images.progress import Progress
from hypercontainer.model.pods import VolumeSpec
from hypercontainer.model.principal import Principal
from hypercontainer.model.quotas import Quota
from hypercontainer.model.volume_snapshots import VolumeSnapshot, VolumeSnapshotRequest
from hypercontainer.protocol.constants import Builtin, Capability
from hypercontainer.sys import files

from .scenes import VOLUME, plan, spec, volumes
from .stage import Stage

ANN = Principal("token:ann")
PLACE = 1 << 20  # in a volume's file, where nothing of its file system is


def disk(s: Stage, name: str = "vol") -> Path:
    return Path(s.engine.registry.volume(name).path)


def write(path: Path, data: bytes) -> None:
    with path.open("r+b") as f:
        f.seek(PLACE)
        f.write(data)


def read(path: Path) -> bytes:
    with path.open("rb") as f:
        f.seek(PLACE)
        return f.read(3)


async def take(s: Stage, name: str = "shot", volume: str = "vol", **how: Any) -> VolumeSnapshot:
    request = VolumeSnapshotRequest(volume=volume, name=name, **how)
    return await s.call(s.engine.volume_snapshots.create(request, Progress()))


async def make(s: Stage, name: str = "new", snapshot: str = "shot", **how: Any) -> Path:
    await s.call(s.engine.volume_snapshots.create_volume(VolumeSpec(name=name, snapshot=snapshot, **how)))
    return disk(s, name)


class Slow:
    """In the place of what copies: each copy waits until it is told to go on."""

    def __init__(self, monkeypatch: pytest.MonkeyPatch) -> None:
        self.copies, self.begun, self.go_on = 0, asyncio.Event(), asyncio.Event()
        make = volume_copies._Copy.make

        async def slowly(copy: Any) -> None:
            self.copies += 1
            self.begun.set()
            await self.go_on.wait()
            await make(copy)

        monkeypatch.setattr(volume_copies._Copy, "make", slowly)


def test_a_volume_that_nobody_uses(act: Any) -> None:
    async def scenario(s: Stage) -> None:
        await volumes(VolumeSpec(name="vol", labels={"a": "b"}))(s)
        write(disk(s), b"old")
        made = await take(s, labels={"c": "d"})
        assert (made.name, made.volume, made.manner, made.still_ms) == ("shot", "vol", "idle", 0)
        assert made.labels == {"c": "d"} and made.size == s.engine.registry.volume("vol").size and made.disk_usage > 0
        write(disk(s), b"new")
        assert read(await make(s)) == b"old" and read(disk(s)) == b"new"
        assert s.engine.registry.volume("new").size == made.size
        await s.call(s.engine.volumes.remove("vol"))
        assert s.engine.volume_snapshots.info("shot").volume == "vol"
        assert read(await make(s, "again", made.id[:12])) == b"old"
        await s.call(s.engine.volume_snapshots.remove(made.id))
        assert s.engine.volume_snapshots.all() == [] and list(s.paths.volume_snapshots.iterdir()) == []

    act(scenario)


def test_a_volume_of_a_pod_that_runs_is_frozen_as_long_as_it_is_copied(
    act: Any, monkeypatch: pytest.MonkeyPatch
) -> None:
    async def scenario(s: Stage) -> None:
        await s.run("a", mounts=VOLUME)
        guest, slow = s.guest(s.machine("a")), Slow(monkeypatch)
        taking = asyncio.ensure_future(take(s))
        await slow.begun.wait()
        assert len(guest.held) == 1 and guest.held <= set(guest.volumes)
        await asyncio.sleep(held_volumes._SILENCE + 10)  # of a guest that hears of us it goes on for as long
        assert guest.held
        slow.go_on.set()
        made = await taking
        assert made.manner == "frozen" and not guest.held and s.status("a") == "running"
        await s.call(s.engine.containers.pause("a"))
        assert (await take(s, "other")).manner == "frozen"  # its programs stand still, and its machine does not

    act(scenario)


def test_a_copy_that_takes_too_long_is_none(act: Any, monkeypatch: pytest.MonkeyPatch) -> None:
    async def scenario(s: Stage) -> None:
        await s.run("a", mounts=VOLUME)
        guest, slow = s.guest(s.machine("a")), Slow(monkeypatch)
        taking = asyncio.ensure_future(take(s))
        await slow.begun.wait()
        await asyncio.sleep(still_disks.WAIT + 10)
        assert not guest.held
        slow.go_on.set()
        with pytest.raises(Unavailable, match="volume vol was written to before all of it was copied"):
            await taking
        assert s.engine.volume_snapshots.all() == [] and list(s.paths.volume_snapshots.iterdir()) == []
        assert (await take(s)).manner == "frozen"

    act(scenario)


def test_a_guest_goes_on_by_itself_when_its_daemon_is_gone(act: Any, monkeypatch: pytest.MonkeyPatch) -> None:
    async def scenario(s: Stage) -> None:
        await s.run("a", mounts=VOLUME)
        guest, slow = s.guest(s.machine("a")), Slow(monkeypatch)
        assert s.daemon
        s.daemon.call(s.engine.volume_snapshots.create(VolumeSnapshotRequest(volume="vol"), Progress()))
        await slow.begun.wait()
        assert guest.held
        s.kill()
        await asyncio.sleep(held_volumes._SILENCE + 1)
        assert not guest.held
        slow.go_on.set()
        await s.open()
        assert s.engine.volume_snapshots.all() == [] and s.status("a") == "running"
        assert (await take(s)).manner == "frozen"

    act(scenario)


def test_a_guest_that_cannot_freeze_has_its_machine_paused(act: Any) -> None:
    async def scenario(s: Stage) -> None:
        made = s._guest

        def guest(config: Any) -> FakeGuest:
            found = made(config)
            found.capabilities = ~Capability.HOLD
            return found

        s.host._guest = guest
        await s.call(s.engine.pods.create(plan(spec("a", mounts=VOLUME))))
        await s.call(s.engine.pods.start("pod"))
        assert (await take(s)).manner == "paused"
        await s.call(s.engine.pods.pause("pod"))
        assert (await take(s, "of-what-is-paused")).manner == "paused"

    act(scenario)


def test_a_pod_that_is_suspended_has_not_written_all(act: Any) -> None:
    async def scenario(s: Stage) -> None:
        await s.run("a", mounts=VOLUME)
        await s.call(s.engine.suspensions.suspend("a"))
        assert (await take(s)).manner == "paused"
        await s.call(s.engine.suspensions.resume("a"))
        assert (await take(s, "other")).manner == "frozen"

    act(scenario, factory=True)


def test_what_the_guest_says_of_a_file_system_that_it_cannot_freeze(act: Any) -> None:
    async def scenario(s: Stage) -> None:
        await s.run("a", mounts=VOLUME)
        failing = s.guest(s.machine("a")).failing
        failing[Builtin.HOLD] = 1, "freezing the file system: Device or resource busy\n"
        with pytest.raises(GuestError, match="volume vol cannot be frozen: freezing the file system: Device or reso"):
            await take(s)
        failing.clear()
        await take(s)

    act(scenario)


def test_a_pod_that_begins_while_its_volume_is_copied(act: Any, monkeypatch: pytest.MonkeyPatch) -> None:
    """It is copied anew, when that pod runs."""

    async def scenario(s: Stage) -> None:
        await s.create("a", mounts=VOLUME)
        slow = Slow(monkeypatch)
        taking = asyncio.ensure_future(take(s))
        await slow.begun.wait()
        await s.call(s.engine.containers.start("a"))
        slow.go_on.set()
        assert (await taking).manner == "frozen" and slow.copies == 2

    act(scenario)


def test_what_was_written_meanwhile_by_a_pod_that_has_ended_since(act: Any, monkeypatch: pytest.MonkeyPatch) -> None:
    async def scenario(s: Stage) -> None:
        await volumes(VolumeSpec(name="vol"))(s)
        os.utime(disk(s), (1, 1))  # what is written next is later, whatever clock the file system goes by
        make_it, done = volume_copies._Copy.make, 0

        async def make_and_write(copy: Any) -> None:
            nonlocal done
            await make_it(copy)
            done += 1
            if done == 1:
                write(copy.source, b"new")

        monkeypatch.setattr(volume_copies._Copy, "make", make_and_write)
        await take(s)
        assert done == 2 and read(await make(s)) == b"new"

    act(scenario)


def test_a_pod_that_ends_while_its_volume_is_copied(act: Any, monkeypatch: pytest.MonkeyPatch) -> None:
    async def scenario(s: Stage) -> None:
        await s.run("a", mounts=VOLUME)
        slow = Slow(monkeypatch)
        taking = asyncio.ensure_future(take(s))
        await slow.begun.wait()
        await s.call(s.engine.containers.remove("a", force=True))
        slow.go_on.set()
        assert (await taking).manner == "idle"

    act(scenario)


def test_whoever_goes_has_it_taken_back(act: Any, monkeypatch: pytest.MonkeyPatch) -> None:
    async def scenario(s: Stage) -> None:
        await s.run("a", mounts=VOLUME)
        slow = Slow(monkeypatch)
        assert s.daemon
        taking = s.daemon.call(s.engine.volume_snapshots.create(VolumeSnapshotRequest(volume="vol"), Progress()))
        await slow.begun.wait()
        taking.cancel()
        await asyncio.wait([taking])
        await asyncio.sleep(1)
        assert not s.guest(s.machine("a")).held and list(s.paths.volume_snapshots.iterdir()) == []
        slow.go_on.set()
        await take(s)

    act(scenario)


def test_a_volume_that_is_made_has_nobody_wait_and_ends_with_its_client(
    act: Any, monkeypatch: pytest.MonkeyPatch
) -> None:
    async def scenario(s: Stage) -> None:
        await volumes(VolumeSpec(name="vol"))(s)
        await take(s)
        begun, go_on, pieces, copy = asyncio.Event(), threading.Event(), 0, files._copy_range
        loop = asyncio.get_running_loop()

        def slowly(*args: int) -> int:
            nonlocal pieces
            pieces += 1
            if pieces == 1:
                loop.call_soon_threadsafe(begun.set)
                assert go_on.wait(60)
            return copy(*args)

        monkeypatch.setattr(files, "_PIECE", 4096)
        monkeypatch.setattr(files, "_copy_range", slowly)
        assert s.daemon
        making = s.daemon.call(s.engine.volume_snapshots.create_volume(VolumeSpec(name="new", snapshot="shot")))
        try:
            await begun.wait()
            await asyncio.wait_for(s.call(s.engine.volumes.create(VolumeSpec(name="other"))), 60)
            assert not making.done()
            pieces = 1  # the other's may be copied, too
            making.cancel()
            for _ in range(20):  # it has heard of that
                await asyncio.sleep(0)
        finally:
            go_on.set()
            await asyncio.wait([making])
        assert pieces == 1 and sorted(os.listdir(s.paths.volumes)) == ["other", "vol"]
        await s.call(s.engine.volume_snapshots.remove("shot"))

    act(scenario)


def test_what_is_kept_is_on_the_disk_before_it_is_known(act: Any, monkeypatch: pytest.MonkeyPatch) -> None:
    async def scenario(s: Stage) -> None:
        await volumes(VolumeSpec(name="vol"))(s)
        synced: list[str] = []
        sync = os.fsync

        def heard(fd: int) -> None:
            synced.append(os.readlink(f"/proc/self/fd/{fd}"))
            sync(fd)

        monkeypatch.setattr(os, "fsync", heard)
        await take(s)
        first, second = (os.path.basename(path) for path in synced[:2])
        assert first == volume_snapshots.DISK and volume_snapshots.DOCUMENT in second
        made = await make(s)
        assert any(path.endswith(made.name) for path in synced[2:])

    act(scenario)


def test_one_whose_files_somebody_took_away(act: Any) -> None:
    async def scenario(s: Stage) -> None:
        await volumes(VolumeSpec(name="vol"))(s)
        made = await take(s)
        shutil.rmtree(s.paths.volume_snapshots / made.id)
        with pytest.raises(Unavailable, match="the disk of the snapshot shot has gone"):
            await make(s)
        await s.call(s.engine.volume_snapshots.remove("shot"))
        assert s.engine.volume_snapshots.all() == [] and sorted(os.listdir(s.paths.volumes)) == ["vol"]

    act(scenario)


async def test_a_client_that_goes_before_its_answer_has_begun(monkeypatch: pytest.MonkeyPatch) -> None:
    ended: list[bool] = []

    async def work() -> None:
        try:
            await asyncio.Event().wait()
        finally:
            ended.append(True)

    async def gone(*_: Any) -> None:
        await asyncio.sleep(0)
        raise ConnectionResetError

    monkeypatch.setattr("aiohttp.web.StreamResponse.prepare", gone)
    c: Any = SimpleNamespace(request=None)
    with pytest.raises(ConnectionResetError):
        await send_progress(c, Progress(), work(), lambda _: None)
    for _ in range(3):
        await asyncio.sleep(0)
    assert ended


def test_which_are_listed(act: Any) -> None:
    async def scenario(s: Stage) -> None:
        await volumes(VolumeSpec(name="vol"), VolumeSpec(name="vol2"))(s)
        await take(s, "one", labels={"a": "b"})
        await take(s, "two", "vol2")
        wanted: dict[str, dict[str, list[str]]] = {
            "one": {"volume": ["vol"]}, "two": {"name": ["tw"]}, "one two": {"manner": ["idle"]},
            "": {"manner": ["frozen"]}, "one ": {"label": ["a=b"]},
        }  # fmt: skip
        for names, filters in wanted.items():
            assert sorted(f.name for f in s.engine.volume_snapshots.all(filters)) == names.split(), filters

    act(scenario)


def test_what_is_refused(act: Any, monkeypatch: pytest.MonkeyPatch) -> None:
    async def scenario(s: Stage) -> None:
        await volumes(VolumeSpec(name="vol"), VolumeSpec(name="dir", driver="directory"))(s)
        with pytest.raises(NotFound, match="no such volume: none"):
            await take(s, volume="none")
        with pytest.raises(Unsupported, match="volume dir is a directory"):
            await take(s, volume="dir")
        with pytest.raises(InvalidArgument, match="invalid snapshot name '/'"):
            await take(s, "/")
        await take(s)
        with pytest.raises(Conflict, match="the name 'shot' is taken by another snapshot of a volume"):
            await take(s)
        for name in ("none", ""):
            with pytest.raises(NotFound, match="no such snapshot of a volume"):
                s.engine.volume_snapshots.info(name)
        with pytest.raises(NotFound, match="no such snapshot of a volume: none"):
            await make(s, snapshot="none")
        refused: dict[str, dict[str, Any]] = {
            "another size": {"size": 32 << 20}, "another fstype": {"fstype": "xfs"},
            "another format": {"format": "qcow2"}, "is of a disk": {"driver": "directory"},
        }  # fmt: skip
        for why, how in refused.items():
            with pytest.raises(InvalidArgument, match=why):
                await make(s, **how)
        with pytest.raises(Conflict, match="volume vol exists"):
            await make(s, "vol")

        def full(*_: Any) -> None:
            raise NoSpace("no space left")

        monkeypatch.setattr(volume_copies, "copy_sparse", full)
        with pytest.raises(NoSpace):
            await take(s, "other")
        with pytest.raises(NoSpace):
            await make(s)
        assert [s.name for s in s.engine.volume_snapshots.all()] == ["shot"]
        assert len(list(s.paths.volume_snapshots.iterdir())) == 1 and s.engine.registry.find_volume("new") is None

    act(scenario)


def test_they_count_as_snapshots_in_quotas(act: Any) -> None:
    async def scenario(s: Stage) -> None:
        await volumes(VolumeSpec(name="vol"))(s)
        snapshots, quotas = s.engine.volume_snapshots, s.engine.registry.quotas

        async def by_ann(name: str) -> VolumeSnapshot:
            with asked_by(ANN):
                return await snapshots.create(VolumeSnapshotRequest(volume="vol", name=name), Progress())

        made = await s.call(by_ann("one"))
        used = quotas.status(ANN).used
        assert (used.snapshots, used.snapshot_disk) == (1, made.disk_usage) and made.owner == ANN.name
        with pytest.raises(QuotaExceeded, match="1 snapshots"):
            await s.call(by_ann("two"))
        await s.call(snapshots.remove("one"))
        await s.call(by_ann("two"))

    act(scenario, quotas={"token:*": Quota(snapshots=1)})


def test_another_daemon_finds_them_and_says_which_it_cannot_use(act: Any) -> None:
    async def scenario(s: Stage) -> None:
        await volumes(VolumeSpec(name="vol"))(s)
        made, bad = await take(s), await take(s, "bad")
        (s.paths.volume_snapshots / bad.id / volume_snapshots.DOCUMENT).write_text("{")
        half = s.paths.volume_snapshots / ".new-0123"
        half.mkdir()
        s.kill()
        await s.open()
        assert s.engine.volume_snapshots.all() == [made] and not half.exists()
        (check,) = s.engine.volume_snapshots.checks()
        assert bad.id in check.found and check.status == "warn"
        await make(s)

    act(scenario)
