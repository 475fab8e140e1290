# SPDX-License-Identifier: Apache-2.0
"""A volume's data is lost by nothing but its removal: not by a second `create`, a lost record, a crash in between."""

from __future__ import annotations

import asyncio
from collections.abc import Iterator
from pathlib import Path

import pytest

from hypercontainer.engine.events import Events
from hypercontainer.engine.paths import Paths
from hypercontainer.engine.registry import Registry
from hypercontainer.engine.secrets import Secrets
from hypercontainer.engine.volumes import Volumes
from hypercontainer.errors import Conflict, HyperError, NotFound
from hypercontainer.model.pods import VolumeSpec
from hypercontainer.state.database import Database
from hypercontainer.volumes.disks import BlockVolumes

SPEC = VolumeSpec(name="data", size=64 << 20)


class World:
    """A daemon's volumes; `again` is the next daemon's, with the records of the last or without."""

    def __init__(self, directory: Path) -> None:
        self.paths = Paths(directory / "root", directory / "run")
        self.paths.create()
        self.database = Database(self.paths.database)
        self.volumes = self.again()

    def again(self, *, records: bool = True) -> Volumes:
        if not records:
            self.database.close()
            for path in self.paths.root.glob("state.db*"):
                path.unlink()
            self.database = Database(self.paths.database)
        blocks = BlockVolumes(self.paths.cache, 1 << 30)
        self.volumes = Volumes(Registry(self.database), self.paths, blocks, Secrets(self.paths), Events())
        return self.volumes


@pytest.fixture
def world(tmp_path: Path) -> Iterator[World]:
    made = World(tmp_path)
    yield made
    made.database.close()


async def test_a_volume_whose_record_is_lost_keeps_its_data(world: World) -> None:
    await world.volumes.create(SPEC)
    image = world.paths.volume("data") / "volume.img"
    with open(image, "r+b") as f:
        f.write(b"precious")
    volumes = world.again(records=False)
    with pytest.raises(Conflict, match=r"there is something at .*/volumes/data that no record tells of: move it away"):
        await volumes.create(SPEC)
    assert image.read_bytes()[:8] == b"precious"


async def test_two_that_create_the_same_at_once(world: World) -> None:
    found = await asyncio.gather(*(world.volumes.create(SPEC) for _ in range(5)))
    assert len({v.path for v in found}) == 1 and Path(found[0].path).exists()
    assert [p.name for p in world.paths.volumes.iterdir()] == ["data"]


async def test_what_fails_leaves_nothing(world: World, monkeypatch: pytest.MonkeyPatch) -> None:
    async def fail(*_: object, **__: object) -> None:
        raise NotFound("no such thing")

    monkeypatch.setattr(BlockVolumes, "create", fail)
    with pytest.raises(HyperError):
        await world.volumes.create(SPEC)
    assert list(world.paths.volumes.iterdir()) == []


async def test_removal_ends_with_the_next_daemon(world: World) -> None:
    """What a daemon that died had begun to remove, or to make, goes."""
    await world.volumes.create(SPEC)
    for name in (".gone-1", ".new-2"):
        (world.paths.volumes / name / "_data").mkdir(parents=True)
    world.again()
    assert [p.name for p in world.paths.volumes.iterdir()] == ["data"]
    await world.volumes.remove("data")
    assert list(world.paths.volumes.iterdir()) == []
    with pytest.raises(NotFound):
        await world.volumes.remove("data")
    await world.volumes.remove("data", force=True)
