# SPDX-License-Identifier: Apache-2.0
"""The VM factory without machines: shapes, templates and their copies, what waits."""

from __future__ import annotations

import asyncio
import os
from dataclasses import dataclass, field
from pathlib import Path

import msgspec
import pytest

from hypercontainer.engine.factory import pool as pools
from hypercontainer.engine.factory.pool import Pool
from hypercontainer.engine.factory.shapes import Image, Kind, Shape, in_slots, is_plain, shape_of
from hypercontainer.engine.factory.templates import Template, Templates
from hypercontainer.engine.memory_files import memory_files, seal
from hypercontainer.errors import Unavailable
from hypercontainer.hypervisor.driver import Disk
from hypercontainer.model import architectures
from hypercontainer.model.pods import PodSpec
from hypercontainer.model.specs import ContainerSpec, Mount
from hypercontainer.model.status import Container, MountPoint, Pod, PodVolume, Process
from hypercontainer.network.backend import Link, NicKind

SLOT = 1 << 20
PLUGS = Link(NicKind.USER, plugs=True)
SHAPE = Shape(1, 256 << 20, "user")


def a_pod(**changes: object) -> Pod:
    return Pod(
        **(
            {
                "id": "p" * 64,
                "name": "p",
                "created_at": "",
                "hostname": "h",
                "vcpus": 1,
                "memory": 256 << 20,
                "implicit": True,
            }
            | changes
        )
    )  # type: ignore[arg-type]


def a_container(**spec: object) -> Container:
    process = Process(args=["true"], env=[], cwd="/", user="", stop_signal=15)
    mounts = [MountPoint(mount=Mount(target="/x"), volume="v")] if spec.pop("mounted", False) else []
    return Container(
        id="c" * 64,
        name="c",
        pod="p" * 64,
        created_at="",
        image="busybox",
        image_id="i",
        hostname="h",
        process=process,
        spec=ContainerSpec(image="busybox", **spec),
        mounts=mounts,
    )  # type: ignore[arg-type]


@pytest.fixture
def disks(tmp_path: Path) -> list[Disk]:
    """An image that is shorter than a slot, and a scratch disk that fills one."""
    found = []
    for name, size, read_only in (("image", 5000, True), ("scratch", SLOT, False), ("volume", SLOT, False)):
        (tmp_path / name).write_bytes(b"")
        os.truncate(tmp_path / name, size)
        found.append(Disk(name, tmp_path / name, read_only))
    return found


# -- shapes -------------------------------------------------------------------------


def test_a_plain_container_has_a_shape(disks: list[Disk]) -> None:
    assert shape_of(a_pod(), [a_container()], disks, [], SLOT) == Shape(1, 256 << 20, "none")
    other = next(name for name in architectures.MACHINES if architectures.is_foreign(name))
    found = shape_of(a_pod(architecture=other), [a_container()], disks, [], SLOT)
    assert found == Shape(1, 256 << 20, "none", architecture=other) and found.name == f"1cpu-256m-none-{other}"
    of_host = shape_of(a_pod(architecture=architectures.host()), [a_container()], disks, [], SLOT)
    assert of_host == Shape(1, 256 << 20, "none")
    for kind in NicKind:
        links = [Link(kind, plugs=True)]
        assert shape_of(a_pod(), [a_container()], disks, links, SLOT) == Shape(1, 256 << 20, kind)


def test_a_pod_has_a_shape_while_it_has_no_container(disks: list[Disk]) -> None:
    pod = a_pod(implicit=False, volumes=[PodVolume(name="v", kind="directory", source="/tmp")])
    found = shape_of(pod, [], [], [], SLOT)
    assert found == Shape(1, 256 << 20, "none", pod=True) and found.name == "1cpu-256m-none-pod"
    assert shape_of(pod, [a_container()], disks, [], SLOT) is None
    assert shape_of(pod, [], disks[2:], [], SLOT) is None
    fresh = a_pod(implicit=False, spec=PodSpec(isolation="fresh"))
    assert shape_of(fresh, [], [], [], SLOT) is None


@pytest.mark.parametrize(
    ("pod", "container", "links"),
    [
        ({"implicit": False}, {}, [PLUGS]),
        ({}, {"isolation": "fresh"}, [PLUGS]),
        ({}, {}, [PLUGS, PLUGS]),
        ({}, {}, [Link(NicKind.TAP)]),
        ({"volumes": [PodVolume(name="v", kind="directory", source="/x")]}, {}, [PLUGS]),
        ({"memory": 1000}, {}, [PLUGS]),
    ],
)
def test_what_must_be_booted(
    disks: list[Disk], pod: dict[str, object], container: dict[str, object], links: list[Link]
) -> None:
    assert shape_of(a_pod(**pod), [a_container(**container)], disks, links, SLOT) is None


def test_disks_that_fit_no_slot(disks: list[Disk]) -> None:
    image, scratch, volume = disks
    wrong = [
        [image, scratch, Disk("v", volume.path, False, format="qcow2")],
        [image, scratch, Disk("v", volume.path, True)],
        [image, scratch, Disk("v", volume.path, False, cache="none")],
        [image, scratch, Disk("v", image.path, False)],  # of another size
        [image, scratch, volume, volume, volume, volume],
    ]
    for some in wrong:
        assert shape_of(a_pod(), [a_container()], some, [], SLOT) is None
    os.truncate(image.path, SLOT + 1)
    assert shape_of(a_pod(), [a_container()], disks, [], SLOT) is None


def test_disks_in_their_slots(disks: list[Disk]) -> None:
    placed, names = in_slots(disks, SLOT)
    assert names == {"image": "image", "scratch": "scratch", "volume": "volume0"}
    assert [d.path for d in placed] == [d.path for d in disks] and disks[0].path.stat().st_size == SLOT


def test_plain_containers() -> None:
    assert is_plain(a_container()) and is_plain(a_container(tty=True, user="1", env=["A=1"]))
    for asked in ({"mounted": True}, {"privileged": True}, {"read_only": True}, {"sysctls": {"a": "b"}}, {"base": "x"}):
        assert not is_plain(a_container(**asked))


# -- templates ----------------------------------------------------------------------


class Maker:
    """Makes templates of a few bytes, and counts them."""

    def __init__(self, directory: Path, limit: int = 1 << 30) -> None:
        self.made: list[str] = []
        self.version = "1"
        self.templates = Templates(directory, limit, self.key, self.make)

    async def key(self, kind: Kind) -> str:
        return f"{kind.name}:{self.version}"

    async def make(self, kind: Kind, key: str, scratch: Path) -> Template:
        self.made.append(kind.name)
        snapshot = memory_files(1 << 20)
        os.pwrite(snapshot.memory, b"memory of " + kind.name.encode(), 5 << 12)
        os.write(snapshot.state, b"state")
        if kind.image:
            scratch.write_bytes(b"scratch")
        await seal(snapshot)
        return Template(kind, key, snapshot, b"t" * 16, scratch if kind.image else None)


KIND = Kind(SHAPE, Image(Path("/images/0123456789abcdef0123.erofs")))


async def test_a_template_is_made_once_and_kept(tmp_path: Path) -> None:
    maker = Maker(tmp_path)
    first = await maker.templates.ensure(KIND)
    assert await maker.templates.ensure(KIND) is first and maker.made == [KIND.name]
    maker.templates.close()
    again = await (other := Maker(tmp_path)).templates.ensure(KIND)  # the next daemon
    assert other.made == [] and again.token == first.token and again.made_at == first.made_at
    expected = b"memory of " + KIND.name.encode()
    assert (
        os.pread(again.snapshot.memory, len(expected), 5 << 12) == expected
        and os.pread(again.snapshot.state, 5, 0) == b"state"
    )
    assert again.scratch and again.scratch.read_bytes() == b"scratch"
    other.templates.close()


async def test_nobody_can_write_to_a_template(tmp_path: Path) -> None:
    template = await Maker(tmp_path).templates.ensure(Kind(SHAPE))
    for fd in (template.snapshot.memory, template.snapshot.state):
        with open(f"/proc/self/fd/{fd}", "r+b", buffering=0) as f, pytest.raises(PermissionError):
            f.write(b"poison")
        with pytest.raises(PermissionError):
            os.ftruncate(fd, 0)
    template.close()


async def test_a_stale_copy_is_made_again(tmp_path: Path) -> None:
    (await Maker(tmp_path).templates.ensure(KIND)).close()
    maker = Maker(tmp_path)
    maker.version = "2"  # another kernel, say
    (await maker.templates.ensure(KIND)).close()
    assert maker.made == [KIND.name]


@pytest.mark.parametrize("part", ["memory", "state", "scratch", "json"])
async def test_a_damaged_copy_is_made_again(tmp_path: Path, part: str) -> None:
    (await Maker(tmp_path).templates.ensure(KIND)).close()
    with open(tmp_path / f"{KIND.name}.{part}", "r+b") as f:
        f.seek(3)
        f.write(b"\xff")
    maker = Maker(tmp_path)
    (await maker.templates.ensure(KIND)).close()
    assert maker.made == [KIND.name]


async def test_a_template_that_changed_underneath_is_made_again(tmp_path: Path) -> None:
    maker = Maker(tmp_path)
    await maker.templates.ensure(KIND)
    maker.version = "2"
    await maker.templates.ensure(KIND)
    assert maker.made == [KIND.name] * 2 and len(maker.templates.all()) == 1
    maker.templates.close()


async def test_the_least_recently_used_goes_first(tmp_path: Path) -> None:
    maker = Maker(tmp_path, limit=20 << 10)  # two and a half: a page of memory, one of state
    kinds = [Kind(Shape(n, 256 << 20, "none")) for n in (1, 2, 3)]
    for kind in kinds[:2]:
        await maker.templates.ensure(kind)
    maker.templates.get(kinds[0])
    await maker.templates.ensure(kinds[2])
    assert [t.kind for t in maker.templates.all()] == [kinds[0], kinds[2]]
    maker.templates.close()


async def test_the_files_stay_open_while_a_machine_starts(tmp_path: Path) -> None:
    """A number of a closed descriptor may be another file's by then."""
    maker = Maker(tmp_path)
    template = await maker.templates.ensure(KIND)
    with template.in_use():
        maker.templates.discard(KIND)
        assert os.pread(template.snapshot.state, 5, 0) == b"state"
    with pytest.raises(OSError, match="Bad file descriptor"):
        os.fstat(template.snapshot.state)


async def test_discarded_for_good(tmp_path: Path) -> None:
    maker = Maker(tmp_path)
    await maker.templates.ensure(KIND)
    maker.templates.discard(KIND)
    assert maker.templates.get(KIND) is None and list(tmp_path.iterdir()) == []


# -- the pool -----------------------------------------------------------------------


@dataclass
class FakeMachine:
    pid: int = 0


@dataclass
class FakeClone:
    """As much of a clone as the pool looks at."""

    kind: Kind
    fit: bool = True
    ended: bool = False
    machine: FakeMachine = field(default_factory=FakeMachine)

    async def end(self) -> None:
        self.ended = True


class World:
    """A pool of fakes that cost 10 MB each."""

    def __init__(self, monkeypatch: pytest.MonkeyPatch, budget: int) -> None:
        self.made: list[FakeClone] = []
        monkeypatch.setattr(pools, "private_memory", lambda pid: 10 << 20)
        monkeypatch.setattr(pools, "_FIRST_COST", 10 << 20)
        monkeypatch.setattr(pools, "_QUIET", 0.001)
        self.pool = Pool(budget, self.make)  # type: ignore[arg-type]

    async def make(self, kind: Kind) -> FakeClone:
        self.made.append(FakeClone(kind))
        return self.made[-1]

    def start(self, kind: Kind) -> FakeClone | None:
        with self.pool.foreground(kind):
            return self.pool.take(kind)  # type: ignore[return-value]

    async def idle(self) -> None:
        async with asyncio.timeout(30):
            while any(waiting != target for waiting, target in self.pool.counts().values()) or not self.pool.counts():
                await asyncio.sleep(0.001)


async def test_what_was_started_once_waits_for_the_next(monkeypatch: pytest.MonkeyPatch) -> None:
    w = World(monkeypatch, 100 << 20)
    assert w.start(KIND) is None
    await w.idle()
    clone = w.start(KIND)
    assert clone is w.made[0] and clone.kind == KIND
    await w.idle()  # two starts in a short time: two wait
    assert w.pool.counts()[KIND] == (2, 2)
    assert await w.pool.drain() == 2 and all(c.ended for c in w.made[1:]) and not clone.ended
    assert w.pool.counts() == {}
    await w.pool.close()


async def test_a_generic_one_serves_where_none_has_the_image(monkeypatch: pytest.MonkeyPatch) -> None:
    w = World(monkeypatch, 100 << 20)
    assert await w.pool.warm(KIND.generic, 1) == 1
    assert w.pool.take(Kind(Shape(2, 1 << 30, "user"), KIND.image)) is None
    clone = w.pool.take(KIND)
    assert clone and clone.kind == KIND.generic  # type: ignore[attr-defined]
    await w.pool.close()


async def test_one_that_has_the_image_serves_nobody_else(monkeypatch: pytest.MonkeyPatch) -> None:
    w = World(monkeypatch, 100 << 20)
    await w.pool.warm(KIND, 1)
    assert w.pool.take(KIND.generic) is None and w.pool.take(Kind(SHAPE, Image(Path("/other")))) is None
    await w.pool.close()


async def test_the_budget_is_kept_and_the_last_comes_first(monkeypatch: pytest.MonkeyPatch) -> None:
    w = World(monkeypatch, 35 << 20)  # room for three
    old = Kind(Shape(2, 256 << 20, "none"))
    for _ in range(2):
        w.start(old)
    for _ in range(2):
        w.start(KIND)
    await w.idle()
    assert w.pool.counts() == {KIND: (2, 2), old: (1, 1)}
    assert await w.pool.warm(KIND, 100) == 3
    await w.pool.close()
    assert all(c.ended for c in w.made)


async def test_the_dead_are_not_given_away(monkeypatch: pytest.MonkeyPatch) -> None:
    w = World(monkeypatch, 100 << 20)
    await w.pool.warm(KIND, 1)
    w.made[0].fit = False
    assert w.pool.take(KIND) is None
    await w.pool.close()
    assert w.made[0].ended


async def test_no_pool_without_a_budget(monkeypatch: pytest.MonkeyPatch) -> None:
    w = World(monkeypatch, 0)
    w.start(KIND)
    await asyncio.sleep(0.02)
    assert w.made == [] and w.pool.counts() == {KIND: (0, 0)}
    await w.pool.close()


async def test_a_failure_is_tried_again_later(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(pools, "_RETRY", 0.01)
    w = World(monkeypatch, 100 << 20)
    failures = [Unavailable("no memory"), None]

    async def make(kind: Kind) -> FakeClone:
        if error := failures.pop(0) if failures else None:
            raise error
        return await World.make(w, kind)

    w.pool._make = make  # type: ignore[assignment]
    w.start(KIND)
    await w.idle()
    assert len(w.made) == 1
    await w.pool.close()


def test_the_status_travels() -> None:
    from hypercontainer.model.factory import FactoryStatus, PoolInfo

    status = FactoryStatus(
        enabled=True,
        templates=[],
        pool=[PoolInfo(shape="s", waiting=1, target=2)],
        template_limit=1,
        pool_limit=2,
        pool_memory=3,
    )
    assert msgspec.json.decode(msgspec.json.encode(status), type=FactoryStatus) == status
