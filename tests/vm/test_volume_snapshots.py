# SPDX-License-Identifier: Apache-2.0
"""Snapshots of volumes that are written to: of one instant, whole, and nobody waits for long."""

from __future__ import annotations

import asyncio
import signal
import subprocess
from collections.abc import AsyncIterator
from pathlib import Path

import pytest

from hypercontainer.engine.builtins import running
from hypercontainer.engine.held_volumes import _frozen
from hypercontainer.engine.volume_snapshots import DISK
from hypercontainer.guest.agent import HoldVolumes, require
from hypercontainer.images.progress import Progress
from hypercontainer.model.pods import VolumeSpec
from hypercontainer.model.specs import Mount
from hypercontainer.model.volume_snapshots import VolumeSnapshotRequest

from .conftest import DEADLINE, Lab

LONG = 10 * DEADLINE  # seconds, within which a test has come to its end
# Each number is in `a` before it is in `b`, and nothing is synced.
WRITER = (
    "i=0; echo 0 >/d/a; echo 0 >/d/b; echo begun; "
    "while :; do i=$((i+1)); echo $i >/d/a.new; mv /d/a.new /d/a; echo $i >/d/b.new; mv /d/b.new /d/b; done"
)


@pytest.fixture
async def shots(lab: Lab) -> AsyncIterator[Lab]:
    yield lab
    for snapshot in lab.engine.volume_snapshots.all():
        await lab.engine.volume_snapshots.remove(snapshot.id)


async def written_to(lab: Lab, spec: VolumeSpec) -> str:
    """A container that writes to a volume all the time."""
    await lab.engine.volumes.create(spec)
    id_ = await lab.create("sh", "-c", WRITER, mounts=[Mount(target="/d", source=spec.name)])
    await lab.engine.containers.start(id_)
    await lab.printed(id_, "begun")
    return id_


def examine(path: Path, fstype: str, image: str) -> None:
    """It is whole. Of an ext4 nothing is left in its journal; a frozen XFS has a record in its log."""
    if image == "qcow2":
        subprocess.run(["qemu-img", "check", path], check=True, capture_output=True)
    if fstype == "ext4":
        told = subprocess.run(["dumpe2fs", "-h", path], check=True, capture_output=True, text=True).stdout
        assert "needs_recovery" not in told, told
        subprocess.run(["e2fsck", "-fn", path], check=True, capture_output=True)


@pytest.mark.parametrize(("fstype", "image"), [("ext4", "raw"), ("xfs", "qcow2")])
async def test_a_volume_that_is_written_to(shots: Lab, fstype: str, image: str) -> None:
    engine = shots.engine
    spec = VolumeSpec(name="vol", size=(400 if fstype == "xfs" else 64) << 20, fstype=fstype, format=image)
    writer = await written_to(shots, spec)
    said = (await shots.exec(writer, "sh", "-c", "echo before >/d/said; cat /d/b")).out
    made = await engine.volume_snapshots.create(VolumeSnapshotRequest(volume="vol", name="shot"), Progress())
    assert made.manner == "frozen" and made.still_ms < DEADLINE * 1000
    examine(engine.settings.paths.volume_snapshots / made.id / DISK, fstype, image)
    go_on = "n=$(cat /d/b); while [ $(cat /d/b) -lt $((n+10)) ]; do :; done; cat /d/b"
    after = (await shots.exec(writer, "sh", "-c", go_on)).out
    await engine.containers.remove(writer, force=True)
    await engine.volume_snapshots.create_volume(VolumeSpec(name="new", snapshot="shot"))
    got = await shots.sh("cat /d/said /d/a /d/b", mounts=[Mount(target="/d", source="new")])
    before, a, b = got.out.split()
    assert before == "before" and int(a) - int(b) in (0, 1)
    assert int(said) <= int(b) < int(after)


async def test_whoever_freezes_it_and_is_gone_freezes_it_for_no_longer_than_was_said(shots: Lab) -> None:
    """Its own end, a time that is over, silence, and SIGKILL: the file system is written to again."""
    writer = await written_to(shots, VolumeSpec(name="vol", size=64 << 20))
    runtime = shots.engine.containers.runtime(shots.engine.registry.container(writer))
    hold = require(runtime.agent, HoldVolumes).hold_process
    (name,) = runtime.volumes.values()
    for silence, limit, status in ((LONG, 1.0, 3), (1.0, LONG, 3), (LONG, LONG, 0), (LONG, LONG, 137)):
        async with running(runtime.agent, hold(name, silence, limit)) as (handle, reader), asyncio.timeout(DEADLINE):
            await _frozen(handle, reader, "vol")
            if status == 0:
                handle.close_stdin()
            elif status == 137:
                await handle.signal(signal.SIGKILL)
            assert (await handle.exited).shell_code == status
            assert (await shots.exec(writer, "sh", "-c", "echo $$ >/d/x && rm /d/x && echo done")).out == "done\n"


async def test_nothing_is_written_while_it_is_frozen(shots: Lab) -> None:
    writer = await written_to(shots, VolumeSpec(name="vol", size=64 << 20))
    runtime = shots.engine.containers.runtime(shots.engine.registry.container(writer))
    (name,) = runtime.volumes.values()
    process = require(runtime.agent, HoldVolumes).hold_process(name, LONG, LONG)
    disk = Path(shots.engine.registry.volume("vol").path)
    async with running(runtime.agent, process) as (handle, reader), asyncio.timeout(DEADLINE):
        await _frozen(handle, reader, "vol")
        before, at = disk.stat().st_mtime_ns, (await shots.exec(writer, "cat", "/d/b")).out
        for _ in range(5):
            assert (await shots.exec(writer, "cat", "/d/b")).out == at
        assert disk.stat().st_mtime_ns == before
        handle.close_stdin()
        assert (await handle.exited).shell_code == 0
        go_on = f"while [ $(cat /d/b) -le {at.strip()} ]; do :; done"
        assert (await shots.exec(writer, "sh", "-c", go_on)).code == 0
