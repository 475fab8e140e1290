# SPDX-License-Identifier: Apache-2.0
"""A pod that is put on the disk, and goes on from there as the same one."""

from __future__ import annotations

import asyncio
import contextlib
import os
import shutil
from collections.abc import AsyncIterator
from pathlib import Path

import pytest
from msgspec.structs import replace

from hypercontainer.engine.paths import Paths
from hypercontainer.errors import NotFound
from hypercontainer.hyperd.config import Config
from hypercontainer.hyperd.daemon import build_engine
from hypercontainer.model.pods import VolumeSpec
from hypercontainer.model.snapshots import RestoreRequest, SnapshotRequest
from hypercontainer.model.specs import ExecSpec, Mount
from hypercontainer.sys import clock

from .conftest import DEADLINE, Lab, machines
from .test_forks import COUNTS, counted, fork


async def test_it_goes_on_where_it_was(lab: Lab, config: Config) -> None:
    """Memory, root, volume, a command that runs in it; its machine is gone meanwhile."""
    await lab.engine.volumes.create(VolumeSpec(name="data"))
    id_ = await lab.create("sh", "-c", COUNTS, name="web", mounts=[Mount(target="/data", source="data")])
    await lab.engine.containers.start(id_)
    await lab.printed(id_, "counted 3")
    shell = lab.engine.execs.create(id_, ExecSpec(command=["sh"], stdin=True))
    await lab.engine.execs.start(shell)
    assert shell.handle
    reader = shell.fan_out.attach()
    await shell.handle.write_stdin(b"x=before; cat /proc/sys/kernel/random/boot_id\n")
    boot = b""
    async for _, data in reader:
        boot += data
        if b"\n" in boot:
            break
    await lab.engine.suspensions.suspend("web")
    assert machines(config.run_path) == [] and not shell.ended.is_set()
    began = (await counted(lab, id_))[-1]
    await lab.engine.suspensions.resume("web")
    await lab.printed(id_, f"counted {began + 3}")
    root, volume = (await lab.exec(id_, "tail", "-qn", "1", "/n", "/data/n")).out.split()
    assert abs(int(root) - int(volume)) <= 1
    numbers = await counted(lab, id_)
    assert numbers == list(range(1, len(numbers) + 1))
    assert (await lab.exec(id_, "cat", "/proc/sys/kernel/random/boot_id")).out == boot.decode()
    await shell.handle.write_stdin(b"echo $x\nexit 5\n")
    await asyncio.wait_for(shell.ended.wait(), DEADLINE)
    now = (await lab.exec(id_, "date", "+%s")).out
    assert abs(int(now) - clock.now().timestamp()) < DEADLINE  # the guest's stood still
    assert shell.exit_code == 5 and (await lab.exec(id_, "hostname")).out.strip() == id_[:12]


async def test_the_next_daemon_resumes_it(lab: Lab, config: Config) -> None:
    id_ = await lab.create("sh", "-c", COUNTS, name="web", mounts=[Mount(target="/data")])
    await lab.engine.containers.start(id_)
    await lab.printed(id_, "counted 2")
    await lab.engine.suspensions.suspend("web")
    await lab.engine.close(keep_running=False)
    kept = Path(config.root) / "pods" / id_ / "suspended/memory"
    assert 0 < kept.stat().st_size < lab.engine.registry.pod(id_).memory
    lab.engine = build_engine(config)
    await lab.engine.open()
    began = (await counted(lab, id_))[-1]
    await lab.engine.containers.start(id_)
    await lab.printed(id_, f"counted {began + 2}")
    numbers = await counted(lab, id_)
    assert numbers == list(range(1, len(numbers) + 1)) and not kept.exists()


async def test_forks_before_and_after(lab: Lab) -> None:
    """A machine that came from a snapshot is put on the disk; one that came from there is forked."""
    id_ = await lab.create("sh", "-c", COUNTS, name="web", mounts=[Mount(target="/data")])
    await lab.engine.containers.start(id_)
    await lab.printed(id_, "counted 2")
    (child,) = await fork(lab, "web", "child")
    await lab.engine.suspensions.suspend("child")
    await lab.engine.suspensions.resume("child")
    (grandchild,) = await fork(lab, "child", "grandchild")
    began = (await counted(lab, grandchild))[-1]
    for one in (child, grandchild):
        await lab.printed(one, f"counted {began + 2}")
        numbers = await counted(lab, one)
        assert numbers == list(range(1, len(numbers) + 1))


async def test_a_snapshot_moves_to_another_hyperd(lab: Lab, config: Config, tmp_path: Path) -> None:
    """By a file; its program goes on there, with its memory and its files."""
    id_ = await lab.create("sh", "-c", COUNTS, name="web", mounts=[Mount(target="/data")])
    await lab.engine.containers.start(id_)
    await lab.printed(id_, "counted 2")
    await lab.engine.snapshots.create(SnapshotRequest(pod="web", name="shot"))
    disk = await lab.engine.images.disk(lab.engine.images.find("busybox"))
    os.truncate(disk.path, 1 << 34)  # as the factory does, for its places
    data = b"".join([piece async for piece in lab.engine.transfers.export("shot")])
    await lab.engine.snapshots.remove("shot")
    run = Path(f"{config.run}2")
    there = replace(config, root=str(tmp_path / "there"), run=str(run))
    paths = Paths(there.root_path, there.run_path)
    paths.create()
    other = Lab(build_engine(there))
    await other.engine.open()
    try:
        with pytest.raises(NotFound, match="needs the image busybox"):
            await other.engine.transfers.import_(_pieces(data), "")
        await other.engine.pull("builtin:busybox")[1]
        await other.engine.transfers.import_(_pieces(data), "")
        pod = await other.engine.snapshots.restore("shot", RestoreRequest(name="moved"))
        (moved,) = other.engine.registry.members(pod.id)
        began = (await counted(other, moved.id))[-1]
        await other.printed(moved.id, f"counted {began + 2}")
        numbers = await counted(other, moved.id)
        assert numbers == list(range(1, len(numbers) + 1))
        root, volume = (await other.exec(moved.id, "tail", "-qn", "1", "/n", "/data/n")).out.split()
        assert abs(int(root) - int(volume)) <= 1
        await other.engine.containers.remove("moved", force=True, volumes=True)
    finally:
        await other.engine.close(keep_running=False)
        shutil.rmtree(run)


async def _pieces(data: bytes) -> AsyncIterator[bytes]:
    yield data


async def test_one_that_is_idle_is_suspended(lab: Lab, config: Config) -> None:
    """By itself; what is asked of it lets it go on."""
    id_ = await lab.create("sleep", "10000", name="web", idle_timeout=2.0)
    await lab.engine.containers.start(id_)

    async def suspended() -> None:
        while lab.engine.registry.pod(id_).status != "suspended" or machines(config.run_path):
            changed = lab.engine.registry.changed
            with contextlib.suppress(TimeoutError):
                await asyncio.wait_for(changed.wait(), 0.2)  # the end of its process is no change

    await asyncio.wait_for(suspended(), DEADLINE)
    assert (await lab.engine.archives.stat(id_, "/etc")).is_dir
    assert lab.engine.registry.pod(id_).status == "running"
