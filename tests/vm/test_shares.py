# SPDX-License-Identifier: Apache-2.0
"""Who serves directories of the host sees nothing but them, and what a container leaves there gives nobody rights."""

from __future__ import annotations

import asyncio
import contextlib
import dataclasses
import os
import stat
import subprocess
from pathlib import Path

import pytest
from msgspec.structs import replace

from hypercontainer.engine.booted import BootedMachine
from hypercontainer.engine.factory.templates import Template
from hypercontainer.engine.sources import Order, Setup
from hypercontainer.errors import Unsupported
from hypercontainer.model.pods import PodPlan, PodSpec, VolumeSpec
from hypercontainer.model.specs import Mount
from hypercontainer.podfile import strict
from hypercontainer.volumes import share

from .conftest import DEADLINE, Lab, machines


def servers(run: Path) -> list[int]:
    """Processes that serve the machines below `run`: their logs lie there."""
    found = []
    for process in Path("/proc").iterdir():
        if process.name.isdecimal():
            try:
                files = [os.readlink(p) for p in (process / "fd").iterdir()]
            except OSError:
                continue
            if any(f.startswith(str(run)) and f.endswith(share.SERVER_LOG) for f in files):
                found.append(int(process.name))
    return found


def status(pid: int, key: str) -> str:
    lines = Path(f"/proc/{pid}/status").read_text().splitlines()
    return next(line.split(":")[1].strip() for line in lines if line.startswith(f"{key}:"))


async def test_servers_see_the_tree_only(lab: Lab, tmp_path: Path, run_dir: Path) -> None:
    (tmp_path / "inside").write_text("")
    id_ = await lab.create("sleep", "1000", mounts=[Mount(target="/d", type="bind", source=str(tmp_path))])
    await lab.engine.containers.start(id_)
    (qemu,) = machines(run_dir)
    for key in ("Uid", "Gid"):
        assert "0" not in status(qemu, key).split()
    assert int(status(qemu, "CapPrm"), 16) == int(status(qemu, "CapBnd"), 16) & int(status(qemu, "CapPrm"), 16) == 0
    working = [p for p in servers(run_dir) if {"0"} <= set(os.listdir(f"/proc/{p}/root")) <= {"0", "late"}]
    assert working, "nobody serves the tree as its root"
    for pid in working:
        assert os.listdir(f"/proc/{pid}/root/0") == ["inside"]
        assert not os.path.exists(f"/proc/{pid}/root/etc/shadow") and not os.path.exists(
            f"/proc/{pid}/root/0/../../etc/shadow"
        )
        assert int(status(pid, "CapEff"), 16) >> 27 & 1 == 0  # CAP_MKNOD
        mounts = [line.split() for line in Path(f"/proc/{pid}/mountinfo").read_text().splitlines()]
        (options,) = [fields[5] for fields in mounts if fields[4] == "/0"]  # proc(5): mount point, mount options
        assert {"nosuid", "nodev"} <= set(options.split(","))


@pytest.mark.parametrize("missing", [True, False], ids=["not installed", "switched off"])
async def test_without_virtiofsd_they_are_refused(
    lab: Lab, tmp_path: Path, monkeypatch: pytest.MonkeyPatch, missing: bool
) -> None:
    """QEMU would need root's rights to serve them itself."""
    if missing:
        monkeypatch.setattr(share, "find_virtiofsd", lambda: None)
    else:
        launch = Setup.launch

        async def without(setup: Setup, order: Order, template: Template | None) -> BootedMachine:
            return await launch(setup, dataclasses.replace(order, virtiofs=False), template)

        monkeypatch.setattr(Setup, "launch", without)
    id_ = await lab.create("true", mounts=[Mount(target="/d", type="bind", source=str(tmp_path))])
    with pytest.raises(Unsupported, match="install the package virtiofsd" if missing else "switched off"):
        await lab.engine.containers.start(id_)


async def test_what_containers_leave_in_directory_volumes(lab: Lab, run_dir: Path) -> None:
    await lab.engine.volumes.create(VolumeSpec(name="tree", driver="directory"))
    try:
        script = "cp /bin/busybox /d/su; chmod 6755 /d/su; mknod /d/null c 1 3; mkfifo /d/fifo; ls /d | tr '\\n' ' '"
        done = await lab.sh(script, mounts=[Mount(target="/d", source="tree")], privileged=True)
        assert done.out == "fifo su " and "not permitted" in done.err
        top = lab.engine.settings.paths.volume("tree")
        assert stat.S_IMODE(top.stat().st_mode) == 0o700
        assert not any(stat.S_ISCHR(p.lstat().st_mode) or stat.S_ISBLK(p.lstat().st_mode) for p in top.rglob("*"))
    finally:
        await lab.engine.volumes.remove("tree")


def held_by(pid: int) -> set[int]:
    """The file systems of what a process has open."""
    found = set()
    for fd in Path(f"/proc/{pid}/fd").iterdir():
        with contextlib.suppress(FileNotFoundError):
            found.add(os.stat(fd).st_dev)
    return found


async def goes_with_its_container(lab: Lab, id_: str, *, directories: int, files: int) -> None:
    """What was added for it is shown to the server no longer, which lets go of at least so many files."""
    vm = lab.engine.registry.pod(lab.engine.registry.container(id_).pod).vm
    assert vm is not None and vm.server
    shown, held = (Path(f"/proc/{vm.server[0]}/{name}") for name in ("mountinfo", "fd"))
    most = len(list(held.iterdir()))
    assert shown.read_text().count(" /late/") == directories
    await lab.engine.containers.remove(id_, force=True)
    assert " /late/" not in shown.read_text()
    async with asyncio.timeout(DEADLINE):  # when the guest's kernel has said that it needs them no longer
        while len(list(held.iterdir())) > most - files:
            await asyncio.sleep(0.05)


@pytest.mark.skipif(os.geteuid() != 0, reason="a user's hyperd adds none to a server that runs")
async def test_directories_come_to_a_machine_that_waited(lab: Lab, tmp_path: Path) -> None:
    """In both directions, as they are now; what is added later, too."""
    (tmp_path / "one").mkdir()
    (tmp_path / "one/word").write_text("of the host\n")
    (tmp_path / "two").mkdir()
    empty = PodPlan(name="first", memory=192 << 20, vcpus=1, spec=PodSpec(exit_policy="continue"))
    factory = lab.engine.factory
    await lab.engine.pods.start((await lab.engine.pods.create(empty)).id)
    async with asyncio.timeout(DEADLINE):
        while not any(waiting for waiting, _ in factory.pool.counts().values()):
            await asyncio.sleep(0.05)
    pod = await lab.engine.pods.create(replace(empty, name="second"))
    before = factory.started["pool"]
    await lab.engine.pods.start(pod.id)
    assert factory.started["pool"] == before + 1
    script = (
        "cat /d/word; dd if=/dev/zero of=/d/big bs=1M count=3 2>/dev/null; wc -c </d/big; mkdir /d/s; "
        "for i in $(seq 40); do echo $i >/d/s/$i & done; wait; cat /d/s/* | wc -l; ln -s word /d/link; cat /d/link; "
        "touch /d/own; chown 1000:2000 /d/own; cp /bin/busybox /d/; /d/busybox echo ran; "
        "until [ -e /d/go ]; do usleep 50000; done; cat /d/go; exec sleep 1000"
    )
    one = Mount(target="/d", type="bind", source=str(tmp_path / "one"))
    id_ = await lab.create("sh", "-c", script, pod=pod.id, mounts=[one])
    await asyncio.wait_for(lab.engine.containers.start(id_), DEADLINE)
    await lab.printed(id_, "ran")
    assert (tmp_path / "one/big").stat().st_size == 3 << 20
    owner = (tmp_path / "one/own").stat()
    assert (owner.st_uid, owner.st_gid) == (1000, 2000)
    (tmp_path / "one/new").write_text("gone\n")
    (tmp_path / "one/new").rename(tmp_path / "one/go")  # it is never there without its words
    await lab.printed(id_, "gone")
    batches = [b async for b in lab.engine.logs(id_, tail=None, since="", until="", follow=False)]
    said = [record.log for batch in batches for record in batch]
    assert said == ["of the host\n", f"{3 << 20}\n", "40\n", "of the host\n", "ran\n", "gone\n"]
    two = Mount(target="/e", type="bind", source=str(tmp_path / "two"), read_only=True)
    later = await lab.create("sh", "-c", "touch /e/x || sleep 1000", pod=pod.id, mounts=[two])
    await asyncio.wait_for(lab.engine.containers.start(later), DEADLINE)
    await lab.printed(later, "Read-only")
    await goes_with_its_container(lab, later, directories=1, files=1)
    for name in ("first", "second"):
        await lab.engine.pods.remove(name, force=True)


@pytest.mark.skipif(os.geteuid() != 0, reason="a user's hyperd adds none to a server that runs")
async def test_directories_are_added_to_a_pod_that_runs(lab: Lab, tmp_path: Path) -> None:
    """Files, too; what is for reading stays so."""
    for name in ("first", "second", "third"):
        (tmp_path / name).mkdir()
        (tmp_path / name / "word").write_text(f"{name}\n")
    first = [{"name": "first", "source": str(tmp_path / "first"), "format": "vfs"}]
    container = {"image": "busybox", "command": ["sleep", "1000"], "volumes": [{"volume": "first", "path": "/d"}]}
    pod = await lab.engine.create_pod(strict.decode({"volumes": first, "containers": [container]}))
    await asyncio.wait_for(lab.engine.pods.start(pod.pod.id), DEADLINE)
    mounts = [
        Mount(target="/d", type="bind", source=str(tmp_path / "second")),
        Mount(target="/f", type="bind", source=str(tmp_path / "third/word")),
        Mount(target="/r", type="bind", source=str(tmp_path / "third"), read_only=True),
    ]
    script = "cat /d/word /f /r/word; echo new >/d/new; echo more >>/f; touch /r/no; ls /d; sleep 1000"
    later = await lab.create("sh", "-c", script, pod=pod.pod.id, mounts=mounts)
    await asyncio.wait_for(lab.engine.containers.start(later), DEADLINE)
    await lab.printed(later, "new")
    batches = [b async for b in lab.engine.logs(later, tail=None, since="", until="", follow=False)]
    said = "".join(record.log for batch in batches for record in batch)
    assert said.startswith("second\nthird\nthird\n") and "touch: /r/no: Read-only" in said
    assert (tmp_path / "second/new").read_text() == "new\n" and not (tmp_path / "third/no").exists()
    assert (tmp_path / "third/word").read_text() == "third\nmore\n"
    await goes_with_its_container(lab, later, directories=3, files=5)
    await lab.engine.pods.remove(pod.pod.id, force=True)


@pytest.mark.skipif(os.geteuid() != 0, reason="a user's hyperd adds none to a server that runs")
@pytest.mark.parametrize("way", ["device", "stream"])
async def test_mounts_of_the_host_come_and_go(lab: Lab, tmp_path: Path, way: str) -> None:
    """What is for reading is so below, too; the host can unmount what the guest has seen, and lose sight of it."""
    for name in ("d/deep/below", "r/below", "private/below"):
        (tmp_path / name).mkdir(parents=True)
    directories = [{"name": "first", "source": str(tmp_path / "d"), "format": "vfs"}]
    container = {"image": "busybox", "command": ["sleep", "1000"]}
    plan = {"containers": [container | {"volumes": [{"volume": "first", "path": "/d"}]}], "volumes": directories}
    pod = await lab.engine.create_pod(strict.decode(plan if way == "device" else {"containers": [container]}))
    await asyncio.wait_for(lab.engine.pods.start(pod.pod.id), DEADLINE)
    mounts = [
        Mount(target=f"/{name}", type="bind", source=str(tmp_path / name), read_only=name == "r", propagation=how)
        for name, how in (("d", "rslave"), ("r", "rslave"), ("private", ""))
    ]
    script = (
        "ls -d /d/deep/below /r/below; until [ -e /d/deep/below/word -a -e /r/below/word ]; do usleep 50000; done; "
        "echo written >/d/deep/below/new; touch /r/below/no; ls /private/below; echo seen; "
        "until [ ! -e /d/deep/below/word -a ! -e /r/below/word ]; do usleep 50000; done; echo gone; sleep 1000"
    )
    id_ = await lab.create("sh", "-c", script, pod=pod.pod.id, mounts=mounts)
    await asyncio.wait_for(lab.engine.containers.start(id_), DEADLINE)
    await lab.printed(id_, "/r/below")
    places = [tmp_path / name for name in ("d/deep/below", "r/below", "private/below")]
    with contextlib.ExitStack() as stack:
        for place in places:
            subprocess.run(["mount", "-t", "tmpfs", "-o", "mode=1777", "none", place], check=True)
            stack.callback(subprocess.run, ["umount", place], check=True)
            (place / "written").write_text("hello\n")
            (place / "written").rename(place / "word")
        await lab.printed(id_, "seen")
        assert (places[0] / "new").read_text() == "written\n" and not (places[1] / "no").exists()
        devices = {os.stat(place).st_dev for place in places}
    await lab.printed(id_, "gone")
    batches = [b async for b in lab.engine.logs(id_, tail=None, since="", until="", follow=False)]
    said = [record.log for batch in batches for record in batch]
    assert {*said[2:]} == {"touch: /r/below/no: Read-only file system\n", "seen\n", "gone\n"}, said
    runtime = lab.engine._sandboxes.runtime(pod.pod.id)
    assert runtime and runtime.server
    async with asyncio.timeout(DEADLINE):  # nothing of it is held any more
        while held_by(runtime.server.pid) & devices:
            await asyncio.sleep(0.05)
    await lab.engine.pods.remove(pod.pod.id, force=True)
