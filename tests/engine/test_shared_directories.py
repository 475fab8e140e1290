# SPDX-License-Identifier: Apache-2.0
"""Directories of the host, where the driver takes them: over virtiofs."""

from __future__ import annotations

import contextlib
import os
import socket
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest
from msgspec.structs import replace

from hypercontainer.errors import (
    GuestError,
    HyperError,
    InvalidArgument,
    InvalidState,
    NotFound,
    Unavailable,
    Unsupported,
)
from hypercontainer.hypervisor.driver import VirtioFs
from hypercontainer.hypervisor.drivers import Drivers
from hypercontainer.hypervisor.fake import TAKES, FakeDriver, FakeMachine
from hypercontainer.jail.fake import FakeJail
from hypercontainer.jail.jail import Started
from hypercontainer.model.pods import VolumeRequest, VolumeSpec
from hypercontainer.model.specs import ContainerSpec, Mount
from hypercontainer.protocol.constants import Builtin
from hypercontainer.sys.mount_table import MountPoint
from hypercontainer.volumes import share, submounts

from .scenes import plan, spec
from .stage import IMAGE, Stage, play, stage, whole

SERVER = Started(4711, 1)
TOO_LATE = "a directory of the host cannot be added to pod pod while it runs"


@pytest.fixture(params=["root", "user"])
def act(request: pytest.FixtureRequest, template: Path, monkeypatch: pytest.MonkeyPatch) -> Callable[..., None]:
    """A daemon as root, and one of a user; their servers are sockets."""
    root = request.param == "root"

    async def served(binary: str, directory: Path, *_: object, **__: bool) -> tuple[socket.socket, Started]:
        ours, theirs = socket.socketpair()
        theirs.close()
        return ours, SERVER

    async def carried(*_: object) -> None: ...

    monkeypatch.setattr(share, "start_virtiofsd", served)
    monkeypatch.setattr(share, "start_carrier", carried)
    monkeypatch.setattr(share, "find_virtiofsd", lambda: "/virtiofsd")
    monkeypatch.setattr(os, "geteuid", lambda: 0 if root else 1000)

    def acted(scenario: Any) -> None:
        with stage(template, virtiofs=True) as s:
            s.drivers = lambda: Drivers([FakeDriver(s.host, takes=TAKES | {VirtioFs})])
            play(s, whole(scenario))

    return acted


def bind(source: Path, target: str = "/x", **how: Any) -> Mount:
    return Mount(target=target, source=str(source), type="bind", **how)


def test_a_directory_is_in_the_pods_one_tree(act: Any, tmp_path: Path) -> None:
    async def scenario(s: Stage) -> None:
        mounts = [bind(tmp_path), bind(tmp_path, "/y"), bind(tmp_path, "/z", read_only=True)]
        await s.run("a", mounts=mounts)
        pod = s.engine.registry.pod(s.engine.registry.container("a").pod)
        assert [(v.source, v.read_only) for v in pod.volumes] == [(str(tmp_path), False), (str(tmp_path), True)]
        share_ = s.machine("a").config.share
        assert isinstance(share_, VirtioFs) and share_.tag == share.TAG
        assert s.guest(s.machine("a")).volumes["share"] == share.TAG
        s.kill()
        await s.open()
        assert s.status("a") == "running"

    act(scenario)


def test_named_directories_and_those_that_a_pod_lists(act: Any, tmp_path: Path) -> None:
    async def scenario(s: Stage) -> None:
        await s.call(s.engine.volumes.create(VolumeSpec(name="named", driver="directory")))
        requests = [VolumeRequest(name="v", source=f"file://{tmp_path}")]
        mounts = [Mount(target="/v", source="v"), Mount(target="/n", source="named")]
        await s.call(s.engine.pods.create(plan(spec("a", mounts=mounts), volumes=requests)))
        await s.call(s.engine.pods.start("pod"))
        assert [(v.kind, v.named) for v in s.engine.registry.pod("pod").volumes] == [
            ("directory", ""), ("directory", "named")
        ]  # fmt: skip
        await s.run("late", pod="pod", mounts=[Mount(target="/n", source="named")])
        await s.call(s.engine.containers.remove("late", force=True))  # the tree stays until the machine ends
        assert "share" in s.guest(s.machine("pod")).volumes

    act(scenario)


def test_a_directory_for_a_pod_that_runs_without_one(act: Any, tmp_path: Path) -> None:
    """It comes by a stream; a later daemon knows that the tree is served."""

    async def scenario(s: Stage) -> None:
        await s.call(s.engine.pods.create(plan(spec("a"))))
        await s.call(s.engine.pods.start("pod"))
        assert "share" not in s.guest(s.machine("pod")).volumes
        await s.run("late", pod="pod", mounts=[bind(tmp_path)])
        assert s.guest(s.machine("pod")).volumes["share"] == "stream"
        s.kill()
        await s.open()
        await s.run("later", pod="pod", mounts=[bind(tmp_path, "/y")])
        pod = s.engine.registry.pod("pod")
        assert pod.vm and (pod.vm.directories, pod.vm.server) == ([v.name for v in pod.volumes], list(SERVER))

    act(scenario)


def test_a_stream_that_cannot_be_opened_is_tried_again(act: Any, tmp_path: Path) -> None:
    async def scenario(s: Stage) -> None:
        await s.call(s.engine.pods.create(plan(spec("a"))))
        await s.call(s.engine.pods.start("pod"))
        await s.create("late", pod="pod", mounts=[bind(tmp_path)])
        guest = s.guest(s.machine("pod"))
        guest.failing[Builtin.SHARE] = (1, "there is no such port")
        with pytest.raises(GuestError, match="directories of the host: there is no such port"):
            await s.call(s.engine.containers.start("late"))
        guest.failing.clear()
        await s.call(s.engine.containers.start("late"))
        assert s.status("a") == s.status("late") == "running"

    act(scenario)


def test_a_tree_whose_daemon_died_before_it_was_recorded(
    act: Any, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """The next one goes on with it: there is one stream."""

    async def scenario(s: Stage) -> None:
        await s.call(s.engine.pods.create(plan(spec("a"))))
        await s.call(s.engine.pods.start("pod"))
        monkeypatch.setattr(share, "noted", lambda directory: (SERVER, ["another"]))
        added: list[Path] = []

        async def add(server: Started, entry: share.Entry) -> str:
            assert server == SERVER
            added.append(entry.path)
            return "late/0"

        monkeypatch.setattr(share, "add", add)
        await s.run("late", pod="pod", mounts=[bind(tmp_path)])
        assert added == [tmp_path] and "share" not in s.guest(s.machine("pod")).volumes

    act(scenario)


def test_a_machine_without_a_stream_takes_no_directory_while_it_runs(
    act: Any, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    class Deaf(FakeMachine):
        open_files: Any = None

    monkeypatch.setattr(FakeDriver, "machine", Deaf)

    async def scenario(s: Stage) -> None:
        await s.call(s.engine.pods.create(plan(spec("a"))))
        await s.call(s.engine.pods.start("pod"))
        await s.create("late", pod="pod", mounts=[bind(tmp_path)])
        with pytest.raises(InvalidState, match=TOO_LATE):
            await s.call(s.engine.containers.start("late"))
        assert s.status("a") == "running" and "share" not in s.guest(s.machine("pod")).volumes

    act(scenario)


def test_another_directory_for_a_pod_that_runs_with_one(act: Any, tmp_path: Path) -> None:
    """Without a jail its server has the tree that it began with; what is in that can be had."""

    async def scenario(s: Stage) -> None:
        (tmp_path / "d").mkdir()
        await s.call(s.engine.pods.create(plan(spec("a", mounts=[bind(tmp_path)]))))
        await s.call(s.engine.pods.start("pod"))
        await s.create("late", pod="pod", mounts=[bind(tmp_path / "d")])
        for _ in range(2):
            with pytest.raises(InvalidState, match=TOO_LATE):
                await s.call(s.engine.containers.start("late"))
            s.kill()
            await s.open()
        await s.run("same", pod="pod", mounts=[bind(tmp_path, "/y")])
        assert s.status("a") == "running"
        await s.call(s.engine.pods.stop("pod"))
        await s.call(s.engine.pods.start("pod"))
        assert s.status("late") == "running"

    act(scenario)


def test_what_was_added_goes_with_the_last_container_that_has_it(act: Any, tmp_path: Path, jail: FakeJail) -> None:
    """What the tree began with stays; the next daemon knows nothing of what is gone, and it can come again."""

    async def scenario(s: Stage) -> None:
        (tmp_path / "d").mkdir()
        await s.call(s.engine.pods.create(plan(spec("a", mounts=[bind(tmp_path)]))))
        await s.call(s.engine.pods.start("pod"))
        for name in ("one", "two"):
            await s.run(name, pod="pod", mounts=[bind(tmp_path), bind(tmp_path / "d", "/y")])
        await s.call(s.engine.containers.remove("one", force=True))
        assert [entry.source for _, entry in jail.added] == [tmp_path / "d"]
        s.kill()
        await s.open()
        await s.call(s.engine.containers.remove("two", force=True))
        pod = s.engine.registry.pod("pod")
        assert jail.added == [] and pod.vm and pod.vm.late == {}
        assert [v.source for v in pod.volumes] == [str(tmp_path)]
        await s.run("again", pod="pod", mounts=[bind(tmp_path / "d")])
        assert [entry.source for _, entry in jail.added] == [tmp_path / "d"]

    act(scenario)


def test_a_directory_is_added_to_a_tree_that_is_served(act: Any, tmp_path: Path, jail: FakeJail) -> None:
    """Once, by whichever daemon; its next machine has it from the beginning."""

    async def scenario(s: Stage) -> None:
        (tmp_path / "d").mkdir()
        await s.call(s.engine.pods.create(plan(spec("a", mounts=[bind(tmp_path)]))))
        await s.call(s.engine.pods.start("pod"))
        await s.run("late", pod="pod", mounts=[bind(tmp_path / "d", read_only=True)])
        ((server, entry),) = jail.added
        assert (server, entry.source, entry.writable) == (SERVER, tmp_path / "d", False)
        (name,) = (v.name for v in s.engine.registry.pod("pod").volumes if v.read_only)
        place = entry.place.removeprefix("/share/")
        assert s.engine.registry.pod("pod").vm.late == {name: place} and place.startswith("late/")
        s.kill()
        await s.open()
        await s.run("same", pod="pod", mounts=[bind(tmp_path / "d", "/y", read_only=True)])
        assert len(jail.added) == 1
        await s.call(s.engine.pods.stop("pod"))
        await s.call(s.engine.pods.start("pod"))
        assert s.status("same") == "running" and len(jail.added) == 1
        assert s.engine.registry.pod("pod").vm.late == {}

    act(scenario)


def test_a_directory_that_cannot_be_added_is_no_end_of_the_pod(act: Any, tmp_path: Path, jail: FakeJail) -> None:
    async def scenario(s: Stage) -> None:
        (tmp_path / "d").mkdir()
        await s.call(s.engine.pods.create(plan(spec("a", mounts=[bind(tmp_path)]))))
        await s.call(s.engine.pods.start("pod"))
        await s.create("late", pod="pod", mounts=[bind(tmp_path / "d")])
        (tmp_path / "d").rmdir()
        with pytest.raises(NotFound, match="the volume's source .*/d does not exist"):
            await s.call(s.engine.containers.start("late"))
        (tmp_path / "d").mkdir()
        jail.trouble = "the program that serves it has ended"
        with pytest.raises(Unavailable, match=f"/d cannot be added to the directories of a pod.*: {jail.trouble}"):
            await s.call(s.engine.containers.start("late"))
        jail.trouble = ""
        await s.call(s.engine.containers.start("late"))
        assert s.status("late") == s.status("a") == "running"

    act(scenario)


def test_a_machine_of_an_earlier_daemon_is_asked(act: Any, tmp_path: Path) -> None:
    """Whose record does not say what is in its tree."""

    async def scenario(s: Stage) -> None:
        await s.call(s.engine.pods.create(plan(spec("a"))))
        await s.call(s.engine.pods.start("pod"))
        pod = s.engine.registry.pod("pod")
        assert pod.vm
        s.engine.registry.put_pod(replace(pod, vm=replace(pod.vm, directories=None)))
        s.kill()
        await s.open()
        await s.create("late", pod="pod", mounts=[bind(tmp_path)])
        s.failing[Builtin.MOUNT] = (1, "no such device")
        with pytest.raises(InvalidState, match=TOO_LATE):
            await s.call(s.engine.containers.start("late"))
        s.failing.clear()
        await s.call(s.engine.containers.start("late"))

    act(scenario)


def test_a_guest_that_does_not_take_the_tree(act: Any, tmp_path: Path) -> None:
    async def scenario(s: Stage) -> None:
        await s.create("a", mounts=[bind(tmp_path)])
        s.failing[Builtin.MOUNT] = (1, "no such device")
        with pytest.raises(GuestError, match="no such device"):
            await s.call(s.engine.containers.start("a"))
        s.failing.clear()

    act(scenario)


def test_a_directory_that_only_a_removed_container_had(act: Any, tmp_path: Path) -> None:
    """It stays while the machine has it in its tree; the pod starts again without it."""

    async def scenario(s: Stage) -> None:
        (tmp_path / "d").mkdir()
        mounts = [bind(tmp_path / "d")]
        await s.call(s.engine.pods.create(plan(spec("a"), spec("b", mounts=mounts))))
        await s.call(s.engine.pods.start("pod"))
        await s.call(s.engine.containers.remove("b", force=True))
        (tmp_path / "d").rmdir()
        await s.call(s.engine.pods.stop("pod"))
        await s.call(s.engine.pods.start("pod"))
        assert s.status("a") == "running" and s.engine.registry.pod("pod").volumes == []

    act(scenario)


def test_a_root_that_is_a_directory(act: Any, tmp_path: Path) -> None:
    """It has no disks, and of hyperd no files: all in it is its owner's. It goes from the tree with its container."""

    async def scenario(s: Stage) -> None:
        (tmp_path / "root").mkdir()
        await s.call(s.engine.pods.create(plan()))
        made = ContainerSpec(image="", name="a", pod="pod", rootfs=str(tmp_path / "root"), entrypoint=["sleep", "1000"],
                             env=["A=b"], mounts=[bind(tmp_path)])  # fmt: skip
        await s.call(s.engine.containers.create(made))
        await s.call(s.engine.containers.start("a"))
        (built,) = s.guest(s.machine("pod")).containers.values()
        assert (built.image_disk, built.scratch_disk, built.files) == ("share/0", "", {})
        assert s.machine("pod").config.disks == ()
        container = s.engine.registry.container("a")
        assert container.process.env == ["A=b"] and container.image_id == ""
        listed = s.engine.listing.containers({})
        assert [c.name for c in listed] == ["a"] and (await s.call(s.engine.listing.size("a"))).own == 0
        with pytest.raises(HyperError, match="container a has no image: its root is the directory"):
            s.engine.commits.config("a")
        with pytest.raises(HyperError, match="no image to compare with"):
            await s.call(s.engine.archives.changes("a"))
        s.kill()
        await s.open()
        assert s.status("a") == "running"
        await s.call(s.engine.pods.stop("pod"))
        await s.call(s.engine.pods.start("pod"))
        assert s.status("a") == "running"
        await s.call(s.engine.containers.remove("a", force=True))
        await s.run("image", "sleep", "1000", pod="pod")
        assert s.status("image") == "running"

    act(scenario)


def test_a_root_that_the_pod_has_by_another_name(act: Any, tmp_path: Path) -> None:
    async def scenario(s: Stage) -> None:
        (tmp_path / "root").mkdir()
        volume = VolumeRequest(name="data", source=str(tmp_path / "root"), format="vfs")
        made = ContainerSpec(image="", name="a", rootfs=str(tmp_path / "root"), entrypoint=["sleep", "1000"])
        await s.call(s.engine.pods.create(plan(made, volumes=[volume])))
        await s.call(s.engine.pods.start("pod"))
        assert s.status("a") == "running"
        await s.call(s.engine.containers.remove("a", force=True))
        assert "data" in [v.name for v in s.engine.registry.pod("pod").volumes]

    act(scenario)


def test_what_a_root_lacks_is_said(act: Any, tmp_path: Path) -> None:
    async def scenario(s: Stage) -> None:
        bare = ContainerSpec(image="", rootfs=str(tmp_path))
        with pytest.raises(HyperError, match="no command specified, and a root directory has none"):
            await s.call(s.engine.containers.create(bare))
        with pytest.raises(HyperError, match="an image or a root directory, not both"):
            await s.call(s.engine.containers.create(replace(bare, entrypoint=["true"], platform="linux/arm64")))

    act(scenario)


@pytest.mark.parametrize(
    ("root", "image", "wrong"),
    [
        ("relative", "", "no path below /"), ("/", "", "no path below /"), ("/../", "", "no path below /"),
        ("//", "", "no path below /"), ("/there/is/none", "", "does not exist"), ("{tmp}", IMAGE, "not both"),
    ],
)  # fmt: skip
def test_roots_that_cannot_be(act: Any, tmp_path: Path, root: str, image: str, wrong: str) -> None:
    async def scenario(s: Stage) -> None:
        made = ContainerSpec(image=image, name="a", rootfs=root.format(tmp=tmp_path), entrypoint=["true"])
        with pytest.raises(HyperError, match=wrong):
            await s.call(s.engine.containers.create(made))
        assert not s.engine.registry.containers()

    act(scenario)


def test_a_directory_that_has_gone_ends_the_start(act: Any, tmp_path: Path) -> None:
    async def scenario(s: Stage) -> None:
        (tmp_path / "d").mkdir()
        await s.create("a", mounts=[bind(tmp_path / "d")])
        (tmp_path / "d").rmdir()
        with pytest.raises(NotFound, match="the volume's source .*/d does not exist"):
            await s.call(s.engine.containers.start("a"))
        assert s.host.launched == 0

    act(scenario)


@pytest.mark.parametrize(
    ("source", "fstype", "found"),
    [
        ("127.0.0.1:/path", "", "10.0.2.2:/path"), ("192.0.2.5:/path", "nfs", "192.0.2.5:/path"),
        ("[2001:db8::1]:/path", "nfs4", "2001:db8::1:/path"),
    ],
)  # fmt: skip
def test_nfs_is_mounted_by_the_guest(act: Any, source: str, fstype: str, found: str) -> None:
    async def scenario(s: Stage) -> None:
        requests = [VolumeRequest(name="v", source=source, fstype=fstype, format="" if fstype else "nas")]
        a = spec("a", mounts=[Mount(target="/v", source="v")])
        await s.call(s.engine.pods.create(plan(a, volumes=requests)))
        if found.startswith("10."):  # this host's loopback, which this network does not lead to
            with pytest.raises(Exception, match="its NFS server is on this host's loopback"):
                await s.call(s.engine.pods.start("pod"))
            return
        await s.call(s.engine.pods.start("pod"))
        assert list(s.guest(s.machine("pod")).volumes.values()) == [found]

    act(scenario)


def test_a_server_whose_name_is_unknown(act: Any) -> None:
    async def scenario(s: Stage) -> None:
        requests = [VolumeRequest(name="v", source="nowhere.invalid:/path", format="nas")]
        await s.call(s.engine.pods.create(plan(spec("a", mounts=[Mount(target="/v", source="v")]), volumes=requests)))
        with pytest.raises(Exception, match="the NFS server 'nowhere.invalid' cannot be resolved"):
            await s.call(s.engine.pods.start("pod"))
        s.failing[Builtin.UNMOUNT] = (1, "busy")
        with contextlib.suppress(GuestError):
            await s.call(s.engine.pods.remove("pod", force=True))
        s.failing.clear()

    act(scenario)


def test_a_path_that_the_image_declares_is_a_volume_of_no_name_among_directories(act: Any) -> None:
    async def scenario(s: Stage) -> None:
        await s.run("a", mounts=[Mount(target="/data/x y", type="volume")])
        (mount,) = s.engine.registry.container("a").mounts
        assert s.engine.registry.volume(mount.volume).anonymous and s.status("a") == "running"

    act(scenario)


def test_mounts_of_the_host_that_come_later(
    act: Any, tmp_path: Path, jail: FakeJail, monkeypatch: pytest.MonkeyPatch
) -> None:
    """As long as a container wants them, also by a daemon that begins; a user's daemon says that it cannot."""
    host: list[MountPoint] = []
    # What the server has is what the jail gave it.
    monkeypatch.setattr(submounts, "mount_table", lambda: host)
    monkeypatch.setattr(submounts, "_table_of", lambda _: [MountPoint("0:9", "/", p) for p in shown()])

    def shown() -> list[str]:
        return [entry.place.removeprefix("/share") for _, entry in jail.added]

    async def scenario(s: Stage) -> None:
        if os.geteuid():
            with pytest.raises(Unsupported, match="root's hyperd"):
                await s.create("a", mounts=[bind(tmp_path, propagation="rslave")])
            return
        host.append(MountPoint("0:9", "/", f"{tmp_path}/early"))
        await s.run("a", mounts=[bind(tmp_path, propagation="rslave"), bind(tmp_path, "/r", read_only=True)])
        assert shown() == ["/0/early"]
        host.append(MountPoint("0:9", "/", f"{tmp_path}/late"))
        await s.call(s.engine._propagation.look())
        assert shown() == ["/0/early", "/0/late"] and all(entry.writable for _, entry in jail.added)
        s.kill()
        del host[0]
        await s.open()
        await s.call(s.engine._propagation.look())
        assert shown() == ["/0/late"]
        with pytest.raises(InvalidArgument, match="rslave is for directories of this host"):
            await s.create("b", mounts=[Mount(target="/v", source="v", propagation="rslave")])

    act(scenario)
