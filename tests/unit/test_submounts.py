# SPDX-License-Identifier: Apache-2.0
"""What is mounted below directories of the host comes to the trees that guests are served."""

from __future__ import annotations

import asyncio
from pathlib import Path
from types import SimpleNamespace
from typing import Any

import pytest

from hypercontainer.engine import shares
from hypercontainer.engine.propagation import Propagation
from hypercontainer.errors import Unavailable
from hypercontainer.jail import helpers
from hypercontainer.jail.fake import FakeJail
from hypercontainer.jail.jail import Entry, Started
from hypercontainer.model.specs import Mount
from hypercontainer.model.status import MountPoint as PodMount
from hypercontainer.model.status import PodVolume
from hypercontainer.sys import clock
from hypercontainer.sys.mount_table import MountPoint, mount_table
from hypercontainer.volumes import submounts
from hypercontainer.volumes.submounts import Followed, Follower, below, outermost

SERVER = Started(4711, 1)


def mounts(*points: str) -> list[MountPoint]:
    """`DEVICE POINT`."""
    return [MountPoint(device, "/", point) for device, point in (p.split() for p in points)]


def test_names_that_a_guest_may_give(tmp_path: Path) -> None:
    """It may write to a directory of the host, and so name what lies above a mount."""
    names = "a\u2028b\rc\x0cd\x85e\udcff"
    table = tmp_path / "mountinfo"
    table.write_bytes(f"36 35 98:0 / /data/{names}/m\\040n rw - ext4 /dev/a rw\n".encode(errors="surrogateescape") * 2)
    assert mount_table(table) == [MountPoint("98:0", "/", f"/data/{names}/m n")] * 2


def test_what_can_be_seen_below_a_directory() -> None:
    table = mounts("1 /", "2 /data", "3 /data/a", "4 /data/a/b", "5 /data/ab", "6 /data/a", "7 /data/a/c", "8 /other/a")
    assert {way: m.device for way, m in below(table, "/data").items()} == {"ab": "5", "a": "6", "a/c": "7"}
    assert set(below(table, "/data/a")) == {"c"}
    assert "data/ab" in below(table, "/") and "" not in below(table, "/")
    assert below([*table, *mounts("9 /data")], "/data") == {}


def test_who_takes_along_the_others() -> None:
    assert outermost(["a/b", "a", "ab", "a/b/c", "c/d"]) == ["a", "ab", "c/d"]


class Kernel(FakeJail):
    """A host and the tree of a server, which the jail changes."""

    def __init__(self, *points: str) -> None:
        super().__init__()
        self.host, self.tree = mounts(*points), mounts("1 /0")
        self.unbindable = ""

    async def cover(self, started: Started, entry: Entry) -> None:
        if str(entry.source) == self.unbindable:
            raise Unavailable("the jail cannot open it")
        await super().cover(started, entry)
        place = entry.target.removeprefix("/share")
        self.tree += [
            m._replace(point=m.point.replace(str(entry.source), place, 1))
            for m in self.host if f"{m.point}/".startswith(f"{entry.source}/")
        ]  # fmt: skip

    async def uncover(self, started: Started, place: str) -> None:
        await super().uncover(started, place)
        gone = place.removeprefix("/share")
        self.tree = [m for m in self.tree if not f"{m.point}/".startswith(f"{gone}/")]


@pytest.fixture
def kernel(monkeypatch: pytest.MonkeyPatch) -> Kernel:
    made = Kernel("1 /", "2 /data/a", "3 /data/a/b", "4 /data/c", "5 /elsewhere")
    monkeypatch.setattr(helpers, "_jail", made)
    monkeypatch.setattr(submounts, "mount_table", lambda: made.host)
    monkeypatch.setattr(submounts, "_table_of", lambda _: made.tree)
    return made


async def test_a_tree_becomes_as_the_host_is(kernel: Kernel) -> None:
    follower, data = Follower(), Followed("/data", "0", read_only=True)
    assert await follower.follow(SERVER, data) == []
    shown = [(e.source, e.target, e.writable) for _, e in kernel.added]
    assert shown == [(Path(f"/data/{n}"), f"/share/0/{n}", False) for n in "ac"]
    assert await follower.follow(SERVER, data) == [] and len(kernel.added) == 2
    kernel.host = mounts("1 /", "2 /data/a", "6 /data/c")  # one is gone, and another is in the place of a third
    assert await follower.follow(SERVER, data) == ["0/a/b", "0/c"]
    assert below(kernel.tree, "/0") == {"a": MountPoint("2", "/", "/0/a"), "c": MountPoint("6", "/", "/0/c")}
    kernel.host = mounts("1 /")
    assert await follower.follow(SERVER, data) == ["0/a", "0/c"] and kernel.tree == mounts("1 /0")


async def test_what_cannot_be_brought_is_tried_once(kernel: Kernel, caplog: pytest.LogCaptureFixture) -> None:
    """The others come; a server that takes its place is asked anew."""
    follower, data = Follower(), Followed("/data", "0", read_only=False)
    kernel.unbindable = "/data/a"
    for _ in range(2):
        await follower.follow(SERVER, data)
    assert set(below(kernel.tree, "/0")) == {"c"} and caplog.text.count("/data/a does not come to a pod") == 1
    follower.forget(set())
    await follower.follow(SERVER, data)
    assert caplog.text.count("does not come to a pod") == 2


async def test_what_could_not_be_brought_is_tried_again(kernel: Kernel, monkeypatch: pytest.MonkeyPatch) -> None:
    """After a while; and at once when it was gone meanwhile, though it looks the same as before."""
    follower, data, now = Follower(), Followed("/data", "0", read_only=False), 100.0
    monkeypatch.setattr(clock, "seconds", lambda: now)
    there = list(kernel.host)

    async def shown() -> set[str]:
        await follower.follow(SERVER, data)
        return set(below(kernel.tree, "/0"))

    for unbindable in ("/data/a", "/data/c"):
        kernel.host, kernel.tree, kernel.unbindable = list(there), mounts("1 /0"), unbindable
        way = unbindable.removeprefix("/data/")
        assert way not in await shown()
        kernel.unbindable = ""
        assert way not in await shown()
        if way == "a":
            now += 60
        else:
            kernel.host = [m for m in there if m.point != unbindable]
            assert way not in await shown()
            kernel.host = list(there)
        assert way in await shown()


@pytest.mark.parametrize("sub_path", ["a/b", "/a/b", "a//b/", "./a/b"])
def test_a_part_of_a_directory(tmp_path: Path, sub_path: str) -> None:
    """As the guest finds it, whatever slashes it was written with."""
    volume = PodVolume(name="v", kind="directory", source=str(tmp_path))
    mount = Mount(target="/m", source="v", sub_path=sub_path, propagation="rslave")
    pod: Any = SimpleNamespace(volumes=[volume])
    container: Any = SimpleNamespace(mounts=[PodMount(mount=mount, volume="v")])
    runtime: Any = SimpleNamespace(volumes={"v": "share/0"}, directories=["v"], late={})
    assert shares._followed(runtime, pod, [container]) == [Followed(f"{tmp_path}/a/b", "0/a/b", read_only=False)]


async def test_each_pod_has_its_turn(caplog: pytest.LogCaptureFixture) -> None:
    """Whatever is wrong with another; and between them so have others of the daemon."""
    seen: list[str] = []

    class Some:
        def members(self, _: str) -> list[Any]:
            return []

        def forget_servers(self, _: set[int]) -> None: ...

        async def follow(self, _: object, pod: Any, __: object) -> list[str]:
            seen.append(pod.name)
            return 1 // (pod.name != "a") and []

    some: Any = Some()
    runtime: Any = SimpleNamespace(server=None, built=set())
    pods: list[Any] = [SimpleNamespace(id=name, name=name) for name in "abc"]
    propagation = Propagation(some, lambda: [(pod, runtime) for pod in pods], some)
    looking = asyncio.create_task(propagation.look())
    while not looking.done():
        seen.append("others")
        await asyncio.sleep(0)
    assert [name for name in seen if name != "others"] == ["a", "b", "c"] and seen[seen.index("b") + 1] == "others"
    assert "could not be brought to pod a" in caplog.text


async def test_a_server_that_has_ended() -> None:
    with pytest.raises(Unavailable, match="has ended"):
        await Follower().follow(Started(1 << 30, 1), Followed("/data", "0", read_only=False))
