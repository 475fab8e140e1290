# SPDX-License-Identifier: Apache-2.0
"""What names stand for: indexes and manifests as a registry has them; what stays while it is needed."""

from __future__ import annotations

import asyncio
import json
import subprocess
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import pytest

from hypercontainer.errors import Conflict, NotFound, PermissionDenied, Unavailable
from hypercontainer.images.blobs import Blobs
from hypercontainer.images.layout import ID_NOTE, Layout
from hypercontainer.images.manifests import CONFIG, INDEX, LAYER, MANIFEST, REF_NAME, digest_of
from hypercontainer.images.trust import Trust
from tests.registry import Registry, serving

from .layouts import END, Maker, header
from .test_image_store import opened, pull, small


@pytest.fixture(scope="module")
def registry(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Registry]:
    with serving(tmp_path_factory.mktemp("registry")) as found:
        yield found


def variant(make: Maker, architecture: str, **config: Any) -> dict[str, Any]:
    """An image for one platform, as an entry of an index."""
    blob, size, diff = make.layer([header(f"for-{architecture}", size=0), END])
    described = {"architecture": architecture, "os": "linux", "config": config, "created": "2026-01-01T00:00:00Z",
                 "rootfs": {"type": "layers", "diff_ids": [diff]}}  # fmt: skip
    digest, length = make.add(json.dumps(described).encode())
    manifest = {"schemaVersion": 2, "mediaType": MANIFEST,
                "config": {"mediaType": CONFIG, "digest": digest, "size": length},
                "layers": [{"mediaType": f"{LAYER}+gzip", "digest": blob, "size": size}]}  # fmt: skip
    digest, length = make.add(json.dumps(manifest, indent=3).encode())  # bytes that nobody else would write
    return {"mediaType": MANIFEST, "digest": digest, "size": length,
            "platform": {"os": "linux", "architecture": architecture}}  # fmt: skip


def index(directory: Path, *architectures: str) -> tuple[Maker, str]:
    """An OCI layout with an image for two platforms, named `test`; and its digest."""
    make = Maker(directory)
    entries = [variant(make, name, Cmd=["echo", name]) for name in architectures or ("amd64", "s390x")]
    raw = json.dumps({"schemaVersion": 2, "mediaType": INDEX, "manifests": entries}, indent=3).encode()
    digest, size = make.add(raw)
    top = {"mediaType": INDEX, "digest": digest, "size": size, "annotations": {REF_NAME: "test"}}
    (directory / "index.json").write_text(json.dumps({"schemaVersion": 2, "manifests": [top]}))
    return make, digest


def put(source: str, target: str, *options: str) -> None:
    command = ["skopeo", "--insecure-policy", "copy", "-q", "--dest-tls-verify=false", *options, source, target]
    subprocess.run(command, check=True, capture_output=True)


async def test_an_index_stays_as_the_registry_has_it(tmp_path: Path, registry: Registry) -> None:
    make, digest = index(tmp_path / "layout")
    name = f"{registry.address}/multi:1"
    put(f"oci:{make.root}:test", f"docker://{name}", "--all")
    store = opened(tmp_path / "images")
    image = await pull(store, name, platform="linux/amd64")
    layout = store._layout
    entry = layout.names()[name]
    assert (entry.digest, entry.media_type) == (digest, INDEX)
    assert layout.blobs.read(digest) == registry.get("multi/manifests/1")
    assert layout.blobs.read(image.digest) == registry.get(f"multi/manifests/{image.digest}")
    assert store.find(f"{registry.address}/multi@{digest}").id == image.id
    with pytest.raises(NotFound, match="is for linux/amd64, not for linux/s390x"):
        store.find(name, platform="linux/s390x")

    other = await pull(store, name, platform="linux/s390x")
    assert other.id != image.id and layout.names()[name].digest == digest
    await store.prune(everything=False)
    assert store.find(name, platform="linux/amd64").id == image.id, "both are there, of one index"
    assert store.find(name).id == other.id and store.find(image.id).id == image.id
    again = opened(tmp_path / "images")
    again.in_use = lambda: {image.id: ["mine"]}
    with pytest.raises(Conflict, match="in use by container mine"):
        await again.remove(name)
    assert (await again.prune(everything=True)).deleted == []
    again.in_use = dict
    await again.remove(name)
    assert list((tmp_path / "images/blobs/sha256").iterdir()) == []


async def test_an_image_in_dockers_format_keeps_its_id(tmp_path: Path, registry: Registry) -> None:
    """skopeo would write its configuration anew, without what OCI's has no place for."""
    make = Maker(tmp_path / "layout")
    entry = variant(make, "amd64", Cmd=["x"])
    top = entry | {"annotations": {REF_NAME: "test"}}
    (make.root / "index.json").write_text(json.dumps({"schemaVersion": 2, "manifests": [top]}))
    put(f"oci:{make.root}:test", f"dir:{tmp_path}/dir", "--format", "v2s2")
    manifest = json.loads((tmp_path / "dir/manifest.json").read_bytes())
    config = json.loads((tmp_path / "dir" / manifest["config"]["digest"].removeprefix("sha256:")).read_bytes())
    config["config"]["Healthcheck"] = {"Test": ["CMD", "true"]}
    raw = json.dumps(config, indent=2).encode()
    manifest["config"] |= {"digest": digest_of(raw), "size": len(raw)}
    (tmp_path / "dir" / digest_of(raw).removeprefix("sha256:")).write_bytes(raw)
    (tmp_path / "dir/manifest.json").write_text(json.dumps(manifest))
    name = f"{registry.address}/docker-format:1"
    put(f"dir:{tmp_path}/dir", f"docker://{name}")
    image = await pull(opened(tmp_path / "images"), name)
    assert image.id == digest_of(raw) and image.config.config["Healthcheck"] == {"Test": ["CMD", "true"]}
    assert image.digest == digest_of(registry.get("docker-format/manifests/1"))


async def test_a_store_of_an_earlier_version_is_read(tmp_path: Path) -> None:
    """Its index named manifests, with ids or without."""
    root = tmp_path / "images"
    store = opened(root)
    first = await pull(store, small(tmp_path / "a", "first"), "first:1")
    second = await pull(store, small(tmp_path / "b", "second"), "second:1")
    entries = [
        {"mediaType": MANIFEST, "digest": first.digest, "size": 1,
         "annotations": {REF_NAME: "docker.io/library/first:1", ID_NOTE: first.id}},
        {"mediaType": MANIFEST, "digest": second.digest, "size": 1,
         "annotations": {REF_NAME: "docker.io/library/second:1"}},
    ]  # fmt: skip
    (root / "index.json").write_text(json.dumps({"schemaVersion": 2, "mediaType": INDEX, "manifests": entries}))
    store = opened(root)
    assert (store.find("first:1").id, store.find("second:1").id) == (first.id, second.id)
    assert store.find(second.id[:19]).digest == second.digest
    store.tag("second:1", "third:1")
    await store.remove("second:1")
    assert (await store.prune(everything=False)).deleted == [] and store.find("third:1").id == second.id
    assert await store.disk(store.find("first:1"))


# -- leases -----------------------------------------------------------------------------------


def test_what_is_leased_stays(tmp_path: Path) -> None:
    blobs = Blobs(tmp_path)
    blobs.create()
    before, read = blobs.add(b"before").digest, blobs.add(b"read").digest
    with blobs.lease([read]), blobs.lease(arriving=True) as lease:
        reused, came = blobs.add(b"reused").digest, blobs.add(b"came").digest
        with blobs.lease(arriving=True):
            blobs.collect({reused}, Path.unlink)
        assert not blobs.has(before) and blobs.has(read) and blobs.has(reused) and blobs.has(came)
        lease.add([before])
        assert blobs.arriving
    assert not blobs.arriving
    assert blobs.collect({came}, Path.unlink) == len(b"read") + len(b"reused") and blobs.has(came)


async def test_a_prune_takes_nothing_from_a_pull(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """In the moment in which all blobs are there, and no name."""
    store = opened(tmp_path / "images")
    old = await pull(store, small(tmp_path / "a", "old"))
    real = Layout.load
    freed = []

    def load(self: Layout, digest: str) -> Any:
        if digest != old.digest and not freed:
            monkeypatch.setattr(Layout, "load", real)
            freed.append(asyncio.run(store.prune(everything=True)).freed)
        return real(self, digest)

    monkeypatch.setattr(Layout, "load", load)
    image = await pull(store, small(tmp_path / "b", "new"), "new:1")
    assert freed and freed[0] > 0, "what nobody needs went"
    assert store.find("new:1").id == image.id and await store.disk(image)


async def test_what_a_dead_daemon_was_doing_goes(tmp_path: Path) -> None:
    store = opened(tmp_path / "images")
    image = await pull(store, small(tmp_path / "a", "kept"), "kept:1")
    left = store._layout.blobs.add(b"of a pull that did not end")
    opened(tmp_path / "images")
    assert store._layout.blobs.has(left.digest), "nothing was under way"
    (tmp_path / "images/staging/tmpx").mkdir()
    again = opened(tmp_path / "images")
    assert not again._layout.blobs.has(left.digest) and again.find("kept:1").id == image.id


# -- policies ---------------------------------------------------------------------------------


ANYTHING, REJECT = [{"type": "insecureAcceptAnything"}], [{"type": "reject"}]
SIGNED = [{"type": "signedBy", "keyType": "GPGKeys", "keyPath": "/k"}]


@pytest.mark.parametrize(
    ("transport", "name", "taken"),
    [
        ("docker", "docker.io/library/x:1", False),
        ("docker", "example.org/open/x:1", True),
        ("docker", "example.org/open/signed:1", False),
        ("docker", "example.org/open/signed@sha256:00", False),
        ("docker", "example.org/open/signed:free", True),
        ("docker", "a.b.example.net/x:1", True),
        ("docker", "example.net/x:1", False),
        ("docker-archive", "", True),
        ("oci-archive", "", False),
        ("tarball", "", False),
    ],
)
def test_what_a_policy_says(tmp_path: Path, transport: str, name: str, taken: bool) -> None:
    policy = tmp_path / "policy.json"
    docker = {"example.org/open": ANYTHING, "example.org/open/signed": SIGNED, "*.example.net": ANYTHING,
              "example.org/open/signed:free": ANYTHING}  # fmt: skip
    policy.write_text(json.dumps({"default": REJECT, "transports": {
        "docker": docker, "docker-archive": {"": ANYTHING}, "oci-archive": {"": [*ANYTHING, *SIGNED]}}}))  # fmt: skip
    trust = Trust(str(policy))
    assert trust.takes_anything(transport, name) is taken
    if not name and not taken:
        with pytest.raises(PermissionDenied, match="the image policy refuses it"):
            trust.require(transport, "it")


@pytest.mark.parametrize("text", ["", "[]", "{}", '{"default": [{}]}', '{"default": 1}'])
def test_a_policy_that_is_none_takes_nothing(tmp_path: Path, text: str) -> None:
    (tmp_path / "policy.json").write_text(text)
    with pytest.raises(Unavailable, match="cannot be used"):
        Trust(str(tmp_path / "policy.json")).takes_anything("docker", "x/y:1")
