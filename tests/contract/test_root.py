# SPDX-License-Identifier: Apache-2.0
"""What every source of containers' roots does (`images.root`)."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass
from pathlib import Path

import pytest

from hypercontainer.errors import NotFound
from hypercontainer.images.fake_root import FakeRoots
from hypercontainer.images.root import ImageRoots, RootSource
from hypercontainer.images.store import ImageStore
from hypercontainer.volumes.scratch import ScratchDisks


@dataclass
class Source:
    """One of them, with an image."""

    roots: RootSource
    image: str
    containers: Path  # where their own parts lie

    def own(self) -> set[Path]:
        return {p for p in self.containers.rglob("*") if p.is_file()}


async def _of_images(tmp: Path) -> Source:
    store = ImageStore(tmp / "images")
    store.open()
    image = await store.pull("builtin:busybox")[1]
    containers = tmp / "containers"
    for name in ("one", "two"):
        (containers / name).mkdir(parents=True)
    scratch = ScratchDisks(tmp / "cache", 64 << 20)
    return Source(ImageRoots(store, scratch.create, lambda c: containers / c / "own.img"), image.id, containers)


async def _fake(tmp: Path) -> Source:
    containers = tmp / "containers"
    containers.mkdir()
    return Source(FakeRoots(containers, ("image",)), "image", containers)


@pytest.fixture(params=[_of_images, _fake], ids=["image", "fake"])
async def source(request: pytest.FixtureRequest, tmp_path: Path) -> Source:
    make: Callable[[Path], object] = request.param
    return await make(tmp_path)  # type: ignore[misc, no-any-return]


async def test_what_a_container_has_of_its_own(source: Source) -> None:
    """Its image's disk is everybody's."""
    for name in ("one", "two"):
        await source.roots.create(name)
    one, two = [await source.roots.prepare(name, source.image) for name in ("one", "two")]
    assert one.own != two.own and one.own.exists() and two.own.exists()
    assert (one.image, one.fstype) == (two.image, two.fstype) and one.image.exists()


async def test_the_same_each_time(source: Source) -> None:
    await source.roots.create("one")
    first = await source.roots.prepare("one", source.image)
    first.own.write_bytes(b"written")
    assert await source.roots.prepare("one", source.image) == first
    assert first.own.read_bytes() == b"written"


async def test_an_images_disk_is_made_again(source: Source) -> None:
    await source.roots.create("one")
    (await source.roots.prepare("one", source.image)).image.unlink()
    assert (await source.roots.prepare("one", source.image)).image.exists()


async def test_an_image_by_itself(source: Source) -> None:
    """As all have it."""
    await source.roots.create("one")
    disk = await source.roots.image(source.image)
    root = await source.roots.prepare("one", source.image)
    assert (disk.path, disk.fstype) == (root.image, root.fstype) and disk.path.exists()


async def test_an_image_that_is_not_there(source: Source) -> None:
    await source.roots.create("one")
    with pytest.raises(NotFound):
        await source.roots.image("sha256:" + "0" * 64)
    with pytest.raises(NotFound):
        await source.roots.prepare("one", "sha256:" + "0" * 64)


async def test_a_copy_of_anothers(source: Source) -> None:
    await source.roots.create("one")
    one = await source.roots.prepare("one", source.image)
    one.own.write_bytes(b"written")
    await source.roots.create("two", base="one")
    two = await source.roots.prepare("two", source.image)
    assert two.own.read_bytes() == b"written"
    two.own.write_bytes(b"changed")
    assert one.own.read_bytes() == b"written"


async def test_nothing_is_left(source: Source) -> None:
    """Of it; another's stays, and the image's disk."""
    before = source.own()
    await source.roots.create("two")
    other = source.own()
    await source.roots.create("one")
    image = (await source.roots.prepare("one", source.image)).image
    await source.roots.release("one")
    assert source.own() - {image} == other - {image} != before
    await source.roots.release("one")
    await source.roots.release("none")
    await source.roots.create("one")
    await source.roots.release("one")
    await source.roots.release("two")
    assert source.own() - {image} == before and image.exists()
