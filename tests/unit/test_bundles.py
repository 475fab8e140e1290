# SPDX-License-Identifier: Apache-2.0
"""Archives of images: written, read, made by others, damaged, and by somebody who means harm."""

from __future__ import annotations

import bz2
import gzip
import io
import json
import os
import subprocess
import tarfile
from collections.abc import AsyncIterator, Callable
from pathlib import Path
from typing import Any

import pytest

from hypercontainer.errors import HyperError, InvalidArgument, NotFound, PermissionDenied
from hypercontainer.images.changes import apply_changes
from hypercontainer.images.limits import Limits
from hypercontainer.images.load import Loaded
from hypercontainer.images.manifests import INDEX, digest_of
from hypercontainer.images.progress import Progress
from hypercontainer.images.store import ImageStore
from hypercontainer.images.trust import Trust

from .layouts import END, Maker, header
from .test_image_store import opened, pull, small
from .test_references import index


async def sent(data: bytes) -> AsyncIterator[bytes]:
    for at in range(0, len(data), 100_000):
        yield data[at : at + 100_000]


async def load(store: ImageStore, data: bytes) -> list[Loaded]:
    return await store.loader.load(sent(data), Progress())


async def saved(store: ImageStore, *names: str, kind: str = "docker-archive") -> bytes:
    return b"".join([piece async for piece in store.save(names, kind)])


def names_in(archive: bytes) -> list[str]:
    with tarfile.open(fileobj=io.BytesIO(archive)) as tar:
        return tar.getnames()


def contents(root: Path) -> list[str]:
    return sorted(p.name for d in ("blobs/sha256", "disks", "staging") for p in (root / d).iterdir())


def archive(files: dict[str, bytes], links: dict[str, str] | None = None) -> bytes:
    out = io.BytesIO()
    with tarfile.open(fileobj=out, mode="w") as tar:
        for name, data in files.items():
            info = tarfile.TarInfo(name)
            info.size = len(data)
            tar.addfile(info, io.BytesIO(data))
        for name, target in (links or {}).items():
            info = tarfile.TarInfo(name)
            info.type, info.linkname = tarfile.SYMTYPE, target
            tar.addfile(info)
    return out.getvalue()


@pytest.mark.parametrize("kind", ["docker-archive", "oci-archive"])
async def test_what_is_saved_can_be_loaded(tmp_path: Path, kind: str) -> None:
    make = Maker(tmp_path / "layout")
    base = make.layer([header("base"), END])
    top = make.layer([header("top"), END])
    first_source = make.image(base, top)
    store = opened(tmp_path / "images")
    first = await pull(store, first_source, "example.org/first:1")
    store.tag("example.org/first:1", "second:2")
    other = await pull(store, make.image(base, created="2026-02-01T00:00:00Z"), "third:3")
    data = await saved(store, "example.org/first:1", "second:2", "third:3", kind=kind)
    inside = names_in(data)
    assert len(inside) == len(set(inside)), "what images share is there once"
    assert ("manifest.json" in inside) == (kind == "docker-archive")

    new = opened(tmp_path / "new")
    found = await load(new, data)
    assert {(x.image.id, x.image.digest) for x in found} == {(first.id, first.digest), (other.id, other.digest)}
    assert new.find("second:2").id == new.find("example.org/first:1").id == first.id
    assert await saved(new, "example.org/first:1", "second:2", "third:3", kind=kind) == data


def plain_image(*tars: bytes) -> tuple[str, dict[str, bytes]]:
    """An image whose layers are not compressed, as dockerd saves it: its id, and what is in the archive."""
    config = json.dumps({"architecture": "amd64", "os": "linux", "config": {},
                         "rootfs": {"type": "layers", "diff_ids": [digest_of(t) for t in tars]}}).encode()  # fmt: skip
    kind = "application/vnd.oci.image"

    def described(data: bytes, what: str) -> dict[str, Any]:
        return {"mediaType": f"{kind}.{what}", "digest": digest_of(data), "size": len(data)}

    manifest = json.dumps({
        "schemaVersion": 2, "mediaType": f"{kind}.manifest.v1+json", "config": described(config, "config.v1+json"),
        "layers": [described(t, "layer.v1.tar") for t in tars],
    }).encode()  # fmt: skip
    entry = described(manifest, "manifest.v1+json") | {
        "annotations": {"io.containerd.image.name": "docker.io/library/built:1"}
    }
    files = {f"blobs/sha256/{digest_of(x)[7:]}": x for x in (config, manifest, *tars)}
    listed = [{"Config": f"blobs/sha256/{digest_of(config)[7:]}", "RepoTags": ["built:1"],
               "Layers": [f"blobs/sha256/{digest_of(t)[7:]}" for t in tars]}]  # fmt: skip
    files["index.json"] = json.dumps({"schemaVersion": 2, "manifests": [entry]}).encode()
    return digest_of(config), files | {"manifest.json": json.dumps(listed).encode()}


@pytest.mark.parametrize("without", ["index.json", "manifest.json"])
async def test_layers_that_are_here_take_the_place_of_what_comes(tmp_path: Path, without: str) -> None:
    """Of an image that was built on another: what it comes with is not compressed, what is here is."""
    make, tars = Maker(tmp_path / "layout"), [header("base") + END, header("top") + END]
    store = opened(tmp_path / "images")
    base = await pull(store, make.image(make.layer([tars[0]])), "base:1")
    id_, files = plain_image(*tars)
    del files[without]
    (found,) = await store.loader.load(sent(archive(files)), Progress(), shares=True)
    assert (found.image.id, found.names) == (id_, ["docker.io/library/built:1"])
    assert [x.digest for x in found.image.manifest.layers] == [base.manifest.layers[0].digest, digest_of(tars[1])]
    await store.remove(base.id, force=True)
    assert digest_of(tars[0])[7:] not in contents(tmp_path / "images"), "what is not needed is not kept"
    assert (await store.disk(store.find("built:1"))).path.exists()


async def test_others_read_what_is_saved(tmp_path: Path) -> None:
    store = opened(tmp_path / "images")
    image = await pull(store, small(tmp_path / "a", "file"), "example.org/one:1")
    for kind in ("docker-archive", "oci-archive"):
        path = tmp_path / f"{kind}.tar"
        path.write_bytes(await saved(store, "example.org/one:1", kind=kind))
        command = ["skopeo", "inspect", "--config", "--raw", f"{kind}:{path}:example.org/one:1"]
        done = subprocess.run(command, check=True, capture_output=True)
        assert json.loads(done.stdout)["rootfs"]["diff_ids"] == image.config.rootfs.diff_ids, kind


@pytest.mark.parametrize("pack", [bytes, gzip.compress, bz2.compress])
@pytest.mark.parametrize("kind", ["docker-archive", "oci-archive"])
async def test_what_others_wrote_can_be_loaded(tmp_path: Path, kind: str, pack: Callable[[bytes], bytes]) -> None:
    source = small(tmp_path / "a", "file")
    path = tmp_path / "x.tar"
    command = ["skopeo", "--insecure-policy", "copy", "-q", source, f"{kind}:{path}:example.org/one:1"]
    subprocess.run(command, check=True, capture_output=True)
    store = opened(tmp_path / "images")
    (found,) = await load(store, pack(path.read_bytes()))
    assert found.names == ["example.org/one:1"] and store.find("example.org/one:1").id == found.image.id
    if kind == "docker-archive":
        with tarfile.open(path) as tar:
            (described,) = json.load(tar.extractfile("manifest.json"))  # type: ignore[arg-type]
            raw = tar.extractfile(described["Config"]).read()  # type: ignore[union-attr]
        assert found.image.id == digest_of(raw), "an image keeps its id"
    assert (await store.disk(found.image)).path.exists()


async def test_layers_that_are_links(tmp_path: Path) -> None:
    """As old Dockers saved what images share."""
    tar = header("f") + END
    config = {"architecture": "amd64", "os": "linux", "config": {},
              "rootfs": {"type": "layers", "diff_ids": [digest_of(tar)] * 2}}  # fmt: skip
    manifest = [{"Config": "c.json", "RepoTags": ["old:1", "BAD NAME"], "Layers": ["a/layer.tar", "b/layer.tar"]}]
    data = archive(
        {"c.json": json.dumps(config).encode(), "a/layer.tar": tar, "manifest.json": json.dumps(manifest).encode()},
        {"b/layer.tar": "../a/layer.tar"},
    )
    store = opened(tmp_path / "images")
    (found,) = await load(store, data)
    assert found.names == ["docker.io/library/old:1"] and len(found.image.manifest.layers) == 2


async def test_an_index_is_loaded_with_what_is_there(tmp_path: Path) -> None:
    make, digest = index(tmp_path / "layout")
    store = opened(tmp_path / "images")
    for platform in ("linux/amd64", "linux/s390x"):
        await pull(store, f"oci:{make.root}:test", platform=platform)
    files = {"index.json": (make.root / "index.json").read_bytes(), "oci-layout": b"{}"}
    files |= {f"blobs/sha256/{p.name}": p.read_bytes() for p in (make.root / "blobs/sha256").iterdir()}
    files["index.json"] = files["index.json"].replace(b'"test"', b'"example.org/multi:1"')
    new = opened(tmp_path / "new")
    (found,) = await load(new, archive(files))
    entry = new._layout.names()["example.org/multi:1"]
    assert (entry.digest, entry.media_type) == (digest, INDEX) and found.image.config.architecture == "amd64"
    assert new.find("example.org/multi:1", platform="linux/s390x").config.architecture == "s390x"
    other = opened(tmp_path / "other")
    (found,) = await other.loader.load(sent(archive(files)), Progress(), platform="linux/s390x")
    assert found.image.config.architecture == "s390x" and other.find("example.org/multi:1").id == found.image.id
    with pytest.raises(NotFound, match="the archive has no image for linux/riscv64"):
        await opened(tmp_path / "none").loader.load(sent(archive(files)), Progress(), platform="linux/riscv64")
    again = opened(tmp_path / "again")
    await load(again, await saved(new, "example.org/multi:1"))
    assert again._layout.names()["example.org/multi:1"].digest == digest
    # Of one platform only, as an engine saves it that has no other.
    raw = json.loads(files["blobs/sha256/" + digest.removeprefix("sha256:")])
    away = raw["manifests"][1]["digest"].removeprefix("sha256:")
    assert files.pop(f"blobs/sha256/{away}")
    (found,) = await load(opened(tmp_path / "part"), archive(files))
    assert found.image.config.architecture == "amd64"


async def test_a_project_has_of_an_index_what_it_brings(tmp_path: Path) -> None:
    make, digest = index(tmp_path / "layout")
    who = ["red"]
    store = ImageStore(tmp_path / "images", tenant=lambda: who[-1])
    store.open()
    await pull(store, f"oci:{make.root}:test", platform="linux/s390x")
    files = {"index.json": (make.root / "index.json").read_bytes(), "oci-layout": b"{}"}
    files |= {f"blobs/sha256/{p.name}": p.read_bytes() for p in (make.root / "blobs/sha256").iterdir()}
    raw = json.loads(files["blobs/sha256/" + digest.removeprefix("sha256:")])
    assert files.pop(f"blobs/sha256/{raw['manifests'][1]['digest'].removeprefix('sha256:')}")
    files["index.json"] = files["index.json"].replace(b'"test"', b'"example.org/multi:1"')
    who.append("blue")
    with pytest.raises(NotFound, match="the archive has no image for linux/s390x"):  # which red has
        await store.loader.load(sent(archive(files)), Progress(), platform="linux/s390x")
    (found,) = await load(store, archive(files))
    assert found.image.config.architecture == store.find("example.org/multi:1").config.architecture == "amd64"


async def test_a_name_moves_to_what_is_loaded(tmp_path: Path) -> None:
    store = opened(tmp_path / "images")
    old = await pull(store, small(tmp_path / "a", "old"), "name:1")
    other = opened(tmp_path / "other")
    await pull(other, small(tmp_path / "b", "new"), "name:1")
    (found,) = await load(store, await saved(other, "name:1"))
    assert found.replaced == {"docker.io/library/name:1": old.id}
    assert store.find("name:1").id == found.image.id and store.find(old.id).id == old.id
    (bare,) = await load(opened(tmp_path / "third"), await saved(other, found.image.id))
    assert bare.names == []


async def bad(tmp_path: Path) -> dict[str, tuple[bytes, str]]:
    store = opened(tmp_path / "good")
    image = await pull(store, small(tmp_path / "layout", "file"), "good:1")
    data = await saved(store, "good:1", kind="oci-archive")
    layer = image.manifest.layers[0].digest.removeprefix("sha256:")
    with tarfile.open(fileobj=io.BytesIO(data)) as tar:
        files = {m.name: tar.extractfile(m).read() for m in tar}  # type: ignore[union-attr]
    changed = files | {f"blobs/sha256/{layer}": files[f"blobs/sha256/{layer}"][:-1] + b"!"}
    without = {k: v for k, v in files.items() if not k.endswith(layer)}
    entry = [{"Config": "/etc/passwd", "RepoTags": None, "Layers": []}]
    lies = json.dumps({"architecture": "amd64", "os": "linux", "config": {},
                       "rootfs": {"type": "layers", "diff_ids": ["sha256:" + "0" * 64]}}).encode()  # fmt: skip
    told = [{"Config": "c", "RepoTags": ["lies:1"], "Layers": ["l"]}]
    return {
        "nothing": (b"", "the archive is empty"),
        "words": (b"x" * 2000, "is not an archive of images"),
        "a tar of something": (archive({"file": b"x"}), "is not an archive of images"),
        "an archive without images": (archive({"manifest.json": b"[]"}), ""),
        "a part": (data[: len(data) // 2], ""),
        "a part that is compressed": (gzip.compress(data)[:-20], "is damaged"),
        "a changed layer": (archive(changed), "is damaged"),
        "no layer": (archive(without), "is incomplete: it has no"),
        "no index": (archive({"index.json": b"{"}), ""),
        "an index of numbers": (archive({"index.json": b'{"manifests": [1]}'}), "is damaged"),
        "a path of this host": (archive({"manifest.json": json.dumps(entry).encode()}), "is incomplete"),
        "links in a ring": (archive({"manifest.json": json.dumps(told).encode(), "c": lies}, {"l": "m", "m": "l"}),
                            "is incomplete"),
        "a layer that is another": (
            archive({"manifest.json": json.dumps(told).encode(), "c": lies, "l": header("f") + END}), ""),
        "a bomb": (gzip.compress(bytes(400 << 20), 9), "raise image_ratio"),
    }  # fmt: skip


async def test_what_is_damaged_is_refused_and_leaves_nothing(tmp_path: Path) -> None:
    root = tmp_path / "images"
    store = opened(root)
    for what, (data, why) in (await bad(tmp_path)).items():
        if what == "an archive without images":
            assert await load(store, data) == []
            continue
        with pytest.raises(HyperError) as error:
            await load(store, data)
        assert isinstance(error.value, (InvalidArgument, NotFound)) and why in str(error.value), (what, error.value)
        assert contents(root) == [] and store.describe_all() == [], what


async def test_what_breaks_off_leaves_nothing(tmp_path: Path) -> None:
    store = opened(tmp_path / "images")

    async def broken() -> AsyncIterator[bytes]:
        yield b"x" * 1000
        raise ConnectionResetError

    with pytest.raises(ConnectionResetError):
        await store.loader.load(broken(), Progress())
    assert contents(tmp_path / "images") == []


async def test_limits_and_policies_hold_for_archives(tmp_path: Path) -> None:
    store = opened(tmp_path / "a")
    await pull(store, small(tmp_path / "layout", "file"), "x:1")
    data = await saved(store, "x:1")
    tight = ImageStore(tmp_path / "b", limits=Limits(size=1000))
    tight.open()
    with pytest.raises(InvalidArgument, match="raise image_size"):
        await load(tight, data)
    policy = tmp_path / "policy.json"
    policy.write_text('{"default": [{"type": "reject"}]}')
    strict = ImageStore(tmp_path / "c", trust=lambda: Trust(str(policy)))
    strict.open()
    for work in (
        load(strict, data),
        strict.loader.import_(sent(data), reference="", message="", changes=[], platform="", source="-"),
    ):
        with pytest.raises(PermissionDenied, match="the image policy refuses it"):
            await work
    assert contents(tmp_path / "b") == contents(tmp_path / "c") == []


async def test_a_damaged_image_is_not_saved(tmp_path: Path) -> None:
    store = opened(tmp_path / "images")
    image = await pull(store, small(tmp_path / "a", "file"), "x:1")
    with pytest.raises(NotFound, match="no such image: y:1"):
        await saved(store, "x:1", "y:1")
    with pytest.raises(InvalidArgument, match="unknown kind of archive 'zip'"):
        await saved(store, "x:1", kind="zip")
    blob = store._layout.blobs.path(image.manifest.layers[0].digest)
    blob.write_bytes(blob.read_bytes()[:-1] + b"!")
    with pytest.raises(HyperError, match="is damaged"):
        await saved(store, "x:1")
    blob.unlink()
    with pytest.raises(NotFound, match="is missing"):
        await saved(store, "x:1")


@pytest.mark.parametrize("pack", [bytes, gzip.compress])
async def test_an_archive_of_files_becomes_an_image(tmp_path: Path, pack: Callable[[bytes], bytes]) -> None:
    store = opened(tmp_path / "images")
    found = await store.loader.import_(
        sent(pack(archive({"etc/motd": b"hello"}))), reference="made:1", message="by hand",
        changes=["CMD sh -c x", "ENV A=1"], platform="linux/amd64", source="files.tar",
    )  # fmt: skip
    image = store.find("made:1")
    assert image.id == found.image.id and image.config.config == {"Cmd": ["/bin/sh", "-c", "sh -c x"], "Env": ["A=1"]}
    assert store.history("made:1")[0].comment == "by hand" and image.config.created
    for reference, changes, data in (
        ("UPPER", [], b"x"),
        ("", ["FROM x"], b"x"),
        ("", [], b""),
        ("", [], os.urandom(2000)),
    ):
        before = contents(tmp_path / "images")
        with pytest.raises(InvalidArgument):
            await store.loader.import_(
                sent(data), reference=reference, message="", changes=changes, platform="", source="-"
            )
        assert contents(tmp_path / "images") == before


@pytest.mark.parametrize(
    ("changes", "config"),
    [
        (['CMD ["a", "b c"]'], {"Cmd": ["a", "b c"]}),
        (["ENTRYPOINT top -b"], {"Entrypoint": ["/bin/sh", "-c", "top -b"]}),
        (["ENV A=1 B='x y'", "ENV A 2 3"], {"Env": ["B=x y", "A=2 3"]}),
        (["LABEL a=1 b=2", 'LABEL "c d"=e'], {"Labels": {"a": "1", "b": "2", "c d": "e"}}),
        (["EXPOSE 80 53/udp"], {"ExposedPorts": {"80/tcp": {}, "53/udp": {}}}),
        (["volume /a /b", 'VOLUME ["/c d"]'], {"Volumes": {"/a": {}, "/b": {}, "/c d": {}}}),
        (["WORKDIR /srv", "WORKDIR x"], {"WorkingDir": "/srv/x"}),
        (["USER me:you", "STOPSIGNAL INT", "ONBUILD RUN x"],
         {"User": "me:you", "StopSignal": "INT", "OnBuild": ["RUN x"]}),
        (["HEALTHCHECK --interval=5s --retries=2 CMD curl x"],
         {"Healthcheck": {"Interval": 5 * 10**9, "Retries": 2, "Test": ["CMD-SHELL", "curl x"]}}),
        (["HEALTHCHECK NONE"], {"Healthcheck": {"Test": ["NONE"]}}),
    ],
)  # fmt: skip
def test_changes(changes: list[str], config: dict[str, Any]) -> None:
    assert apply_changes({}, changes) == config


@pytest.mark.parametrize(
    "change", ["", "CMD", "RUN x", "ENV A", "ENV =1", "EXPOSE x", "HEALTHCHECK", "HEALTHCHECK --such=1 CMD x",
               "LABEL x", "HEALTHCHECK CMD", "HEALTHCHECK --interval=x CMD y", "ENV A='"],
)  # fmt: skip
def test_changes_that_are_none(change: str) -> None:
    with pytest.raises(InvalidArgument):
        apply_changes({}, [change])
