# SPDX-License-Identifier: Apache-2.0
"""Pushes to a real registry: what arrives, what need not be sent, what is refused."""

from __future__ import annotations

import json
from collections.abc import Iterator
from pathlib import Path

import pytest

from hypercontainer.errors import InvalidArgument, NotFound, Unavailable
from hypercontainer.images.manifests import REF_NAME, digest_of
from hypercontainer.images.progress import Progress
from hypercontainer.images.store import ImageStore
from tests.registry import Registry, free_port, serving

from .layouts import END, Maker, header
from .test_image_store import opened, pull, small
from .test_references import index, put, variant


@pytest.fixture(scope="module")
def registry(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Registry]:
    with serving(tmp_path_factory.mktemp("registry")) as found:
        yield found


async def push(store: ImageStore, name: str) -> tuple[str, dict[str, str]]:
    """The digest, and the last word of each layer and of the whole (\"\")."""
    progress = Progress()
    digest = (await store.push(name, progress)).digest
    progress.finish()
    return digest, {u["id"]: u["status"] async for u in progress.listen()}


async def test_an_image_is_pushed_as_it_is(tmp_path: Path, registry: Registry) -> None:
    store = opened(tmp_path / "images")
    make = Maker(tmp_path / "layout")
    base, top = make.layer([header("base"), END]), make.layer([header("top"), END], "zstd")
    image = await pull(store, make.image(base, top))
    name = f"{registry.address}/pushed/one:1"
    store.tag(image.id, name)
    digest, told = await push(store, name)
    assert digest == image.digest == digest_of(registry.get("pushed/one/manifests/1"))
    assert told == {base[0]: "Pushed", top[0]: "Pushed", "": f"1: digest: {digest} size: {told[''].split()[-1]}"}
    _, told = await push(store, name)
    assert set(told.values()) - {told[""]} == {"Layer already exists"}

    other = f"{registry.address}/pushed/two:1"
    store.tag(image.id, other)
    _, told = await push(store, other)
    assert told[base[0]] == "Mounted from pushed/one"
    assert digest_of(registry.get("pushed/two/manifests/1")) == image.digest
    again = await pull(opened(tmp_path / "again"), other)
    assert (again.id, again.digest) == (image.id, image.digest)
    assert list((tmp_path / "images/staging").iterdir()) == []


async def test_projects_are_not_told_where_others_have_pushed(tmp_path: Path, registry: Registry) -> None:
    who: list[str] = []
    store = ImageStore(tmp_path / "images", tenant=lambda: who[-1] if who else "")
    store.open()
    make = Maker(tmp_path / "layout")
    layer = make.layer([header("shared"), END])
    source = make.image(layer)
    for tenant in ("red", "blue"):
        who.append(tenant)
        image = await pull(store, source)
        name = f"{registry.address}/{tenant}/secret:1"
        store.tag(image.id, name)
        _, told = await push(store, name)
        assert told[layer[0]] in ("Pushed", "Layer already exists")  # the latter where no jail is


async def test_an_index_is_pushed_with_all_platforms(tmp_path: Path, registry: Registry) -> None:
    make, digest = index(tmp_path / "layout")
    source = f"{registry.address}/index/from:1"
    put(f"oci:{make.root}:test", f"docker://{source}", "--all")
    store = opened(tmp_path / "images")
    image = await pull(store, source, platform="linux/amd64")
    name = f"{registry.address}/index/to:1"
    store.tag(source, name)
    progress = Progress()
    only = (await store.push(name, progress)).digest
    assert only == image.digest == digest_of(registry.get("index/to/manifests/1")), "the other platform is not here"
    await pull(store, source, platform="linux/s390x")
    whole, _ = await push(store, name)
    assert whole == digest == digest_of(registry.get("index/to/manifests/1"))


async def test_dockers_format_is_pushed_as_it_came(tmp_path: Path, registry: Registry) -> None:
    make = Maker(tmp_path / "layout")
    top = variant(make, "amd64") | {"annotations": {REF_NAME: "test"}}
    (make.root / "index.json").write_text(json.dumps({"schemaVersion": 2, "manifests": [top]}))
    source = f"{registry.address}/v2s2/from:1"
    put(f"oci:{make.root}:test", f"docker://{source}", "--format", "v2s2")
    store = opened(tmp_path / "images")
    await pull(store, source)
    name = f"{registry.address}/v2s2/to:1"
    store.tag(source, name)
    digest, _ = await push(store, name)
    assert registry.get("v2s2/to/manifests/1") == registry.get("v2s2/from/manifests/1")
    assert digest == digest_of(registry.get("v2s2/to/manifests/1"))


async def test_what_is_not_pushed(tmp_path: Path) -> None:
    store = opened(tmp_path / "images")
    image = await pull(store, small(tmp_path / "a", "file"))
    nowhere = f"localhost:{free_port()}/x:1"
    store.tag(image.id, nowhere)
    with pytest.raises(Unavailable, match=f"cannot push {nowhere}: nothing answers at the registry's address"):
        await push(store, nowhere)
    with pytest.raises(NotFound, match="no such image"):
        await push(store, "none:1")
    with pytest.raises(InvalidArgument, match="it is no name"):
        await push(store, image.id)
    assert list((tmp_path / "images/staging").iterdir()) == []
