# SPDX-License-Identifier: Apache-2.0
"""The image store: what is damaged, what is read, who may read it, what a disk that refuses leaves."""

from __future__ import annotations

import asyncio
import builtins
import bz2
import errno
import gzip
import hashlib
import http.server
import io
import json
import lzma
import os
import subprocess
import tarfile
import threading
from collections.abc import Callable, Iterator
from pathlib import Path

import pytest
import zstandard

from hypercontainer.errors import InvalidArgument, NoSpace, NotFound, Unavailable
from hypercontainer.images import skopeo
from hypercontainer.images.layout import Layout
from hypercontainer.images.manifests import INDEX, MANIFEST, StoredImage
from hypercontainer.images.store import ImageStore
from hypercontainer.jail import helpers
from hypercontainer.jail.hyperjail import HyperJail
from hypercontainer.model import architectures

from .. import erofs
from .layouts import END, Maker, header


def opened(root: Path) -> ImageStore:
    store = ImageStore(root)
    store.open()
    return store


async def pull(store: ImageStore, source: str, name: str = "", platform: str = "") -> StoredImage:
    image = await store.pull(source, platform=platform)[1]
    if name:
        store.tag(image.id, name)
    return image


def small(directory: Path, content: str, pack: str = "gzip") -> str:
    """An image with one file."""
    make = Maker(directory)
    data = content.encode()
    return make.image(make.layer([header(content, size=len(data)), data.ljust(512, b"\0"), END], pack), pack=pack)


def damage(store_root: Path, digest: str) -> None:
    blob = store_root / "blobs/sha256" / digest.removeprefix("sha256:")
    blob.write_bytes(blob.read_bytes()[:-2] + b"!!")


# -- damaged blobs ---------------------------------------------------------------------------


@pytest.mark.parametrize("part", ["manifest", "config"])
async def test_a_damaged_blob_hurts_its_image_only(tmp_path: Path, part: str) -> None:
    root = tmp_path / "images"
    store = opened(root)
    whole, hurt = (
        await pull(store, small(tmp_path / "a", "whole"), "whole:1"),
        await pull(store, small(tmp_path / "b", "hurt"), "hurt:1"),
    )
    damage(root, hurt.digest if part == "manifest" else hurt.id)

    store = opened(root)  # as after the daemon's restart
    assert store.count() == 2
    found = {name: image for image in store.describe_all() for name in image.names}
    assert found["docker.io/library/whole:1"].damaged == ""
    assert "is corrupt" in found["docker.io/library/hurt:1"].damaged
    assert store.find("whole:1").id == whole.id
    with pytest.raises(NotFound, match="pull the image again"):
        store.find("hurt:1")
    assert (await store.prune(everything=False)).deleted == []
    assert await store.disk(store.find("whole:1"))

    assert (await pull(store, small(tmp_path / "c", "hurt"), "hurt:1")).id == hurt.id
    assert [i.damaged for i in store.describe_all()] == ["", ""]


@pytest.mark.parametrize("by", ["name", "id"])
async def test_a_damaged_image_can_be_removed(tmp_path: Path, by: str) -> None:
    root = tmp_path / "images"
    store = opened(root)
    image = await pull(store, small(tmp_path / "b", "hurt"), "hurt:1")
    damage(root, image.id)
    store = opened(root)
    removed = await store.remove("hurt:1" if by == "name" else image.id[:19], force=True)
    assert removed.untagged == ["hurt:1"] or by == "id"
    assert store.describe_all() == [] or by == "name"
    await store.prune(everything=True)
    assert store.describe_all() == []
    assert list((root / "blobs/sha256").iterdir()) == []


async def test_a_blob_that_was_damaged_in_secret_is_pulled_again(tmp_path: Path) -> None:
    """skopeo takes a blob that is there for the right one."""
    root = tmp_path / "images"
    store = opened(root)
    image = await pull(store, small(tmp_path / "b", "hurt"))
    (await store.disk(image)).path.unlink()
    damage(root, image.manifest.layers[0].digest)
    again = await pull(opened(root), small(tmp_path / "c", "hurt"))
    assert again.id == image.id


def test_a_damaged_index_is_set_aside(tmp_path: Path) -> None:
    opened(tmp_path)
    (tmp_path / "index.json").write_bytes(b"")
    assert opened(tmp_path).describe_all() == []
    assert (tmp_path / "index.json.damaged").exists()


# -- finding ----------------------------------------------------------------------------------


async def test_one_image_from_two_places_is_one_image(tmp_path: Path) -> None:
    """With the layers compressed in one and not in the other: two manifests, one configuration."""
    store = opened(tmp_path / "images")
    one = await pull(store, small(tmp_path / "a", "same"), "one:1")
    make = Maker(tmp_path / "b")
    tar = header("same", size=4) + b"same".ljust(512, b"\0") + END
    plain = make.add(tar)
    two = await pull(store, make.image((*plain, "sha256:" + hashlib.sha256(tar).hexdigest())), "two:1")
    assert one.id == two.id and one.digest != two.digest
    assert store.find(one.id).id == store.find(one.id[:19]).id == one.id
    (image,) = [i for i in store.describe_all() if i.id == one.id]
    assert {"docker.io/library/one:1", "docker.io/library/two:1"} <= set(image.names)
    await store.remove("one:1")
    assert store.find("two:1").id == one.id
    assert (await store.disk(store.find("two:1"))).path.exists()


async def test_different_images_of_one_prefix_are_ambiguous(tmp_path: Path) -> None:
    store = opened(tmp_path / "images")
    for n in range(40):  # of 4096 prefixes; more than half a chance, and what is tried below is always there
        await pull_manifest_only(store, n)
    ids = [i.id for i in store.describe_all()]
    shared = next((a[7:10] for a in ids for b in ids if a < b and a[7:10] == b[7:10]), "")
    if shared:
        with pytest.raises(InvalidArgument, match="is ambiguous"):
            store.find(shared)
    assert store.find(ids[0]).id == ids[0]


async def pull_manifest_only(store: ImageStore, n: int) -> None:
    """An image of which nobody needs the disk."""
    layout = Layout(store._layout.root)  # the directory is the contract: an OCI layout
    config = layout.blobs.add(b'{"rootfs": {"type": "layers", "diff_ids": []}, "n": "%d"}' % n)
    manifest = layout.blobs.add(
        b'{"schemaVersion": 2, "config": {"mediaType": "", "digest": "%s", "size": 1}, "layers": []}'
        % config.digest.encode()
    )
    layout.set_name(f"docker.io/library/n{n}:latest", manifest)


async def test_an_image_is_found_without_reading_the_others(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    root = tmp_path / "images"
    store = opened(root)
    images = [await pull(store, small(tmp_path / str(n), f"image-{n}"), f"image-{n}:1") for n in range(4)]
    store = opened(root)  # with nothing in memory
    blobs, real = list[str](), builtins.open

    def counted(file: object, *args: object, **kwargs: object) -> io.IOBase:
        if "blobs/sha256" in str(file):
            blobs.append(str(file))
        return real(file, *args, **kwargs)  # type: ignore[call-overload, no-any-return]

    monkeypatch.setattr(builtins, "open", counted)
    monkeypatch.setattr(io, "open", counted)
    for _ in range(3):  # as often as one start looks
        assert store.find(images[2].id).digest == images[2].digest
    assert len(blobs) == 2, "a manifest and a configuration"
    assert store.find("image-2:1").id == images[2].id and len(blobs) == 2


# -- rights -----------------------------------------------------------------------------------


def others(root: Path) -> list[str]:
    """What others than the owner could read, write or enter."""
    return [str(p.relative_to(root.parent)) for p in [root, *root.rglob("*")] if p.lstat().st_mode & 0o077]


async def test_nothing_of_the_store_is_for_others(tmp_path: Path) -> None:
    root = tmp_path / "images"
    store = opened(root)
    await pull(store, small(tmp_path / "a", "file"), "file:1")
    await pull(store, "builtin:busybox")
    assert others(root) == []
    for path in root.rglob("*"):
        path.chmod(0o755 if path.is_dir() else 0o644)  # as an earlier version left them
    opened(root)
    assert others(root) == []


@pytest.mark.skipif(os.geteuid() != 0, reason="only root gives the conversion a user of its own")
async def test_a_finished_disk_belongs_to_the_daemon(tmp_path: Path) -> None:
    store = opened(tmp_path / "images")
    disk = (await store.disk(await pull(store, small(tmp_path / "a", "file")))).path
    assert (disk.stat().st_uid, disk.stat().st_gid, disk.stat().st_mode & 0o777) == (0, 0, 0o600)


@pytest.mark.parametrize("files", [0, 1, 700])  # the root directory's inode is the last: at other places in its block
@pytest.mark.parametrize(("uid", "gid"), [(None, None), (0, 0), (0, 7), (7, 0), (1000, 1000), (8, 9)])
async def test_the_root_directory_has_its_owner(tmp_path: Path, uid: int | None, gid: int | None, files: int) -> None:
    """Not the user of the conversion."""
    make = Maker(tmp_path / "layout")
    root = tarfile.TarInfo("./")
    root.type, root.mode, root.uid, root.gid = tarfile.DIRTYPE, 0o751, uid or 0, gid or 0
    entries = [root.tobuf()] if uid is not None else []
    source = make.image(make.layer([*entries, *(header(f"file{n}") for n in range(files)), END]))
    store = opened(tmp_path / "images")
    disk = (await store.disk(await pull(store, source))).path
    found = erofs.tree(disk)
    top = found.pop(b"")
    assert (top.mode & 0o7777, top.uid, top.gid) == (0o751 if entries else 0o755, uid or 0, gid or 0)
    assert len(found) == files and all((f.uid, f.gid) == (0, 0) for f in found.values())


# -- disks that refuse ------------------------------------------------------------------------


@pytest.fixture
def small_disk(tmp_path: Path) -> Iterator[Path]:
    """A file system of its own, of 24 MB."""
    if os.geteuid() != 0:
        pytest.skip("mounts a file system")
    mount = tmp_path / "mount"
    mount.mkdir()
    subprocess.run(["mount", "-t", "tmpfs", "-o", "size=24m,mode=0700", "hyper-test", mount], check=True)
    try:
        yield mount
    finally:
        subprocess.run(["mount", "-o", "remount,rw", mount], check=False, capture_output=True)
        subprocess.run(["umount", mount], check=True)


def incompressible(directory: Path, mebibytes: int) -> str:
    make = Maker(directory)
    size = mebibytes << 20
    return make.image(make.layer([header("random", size=size), os.urandom(size), END]))


def contents(root: Path) -> list[str]:
    return [p.name for d in ("blobs/sha256", "disks", "staging") for p in (root / d).iterdir()]


@pytest.mark.parametrize("free", [1, 8, 14, 20])  # full at the blobs, at the uncompressed layer, at the disk
async def test_a_full_disk_leaves_nothing_and_works_again(small_disk: Path, tmp_path: Path, free: int) -> None:
    root = small_disk / "images"
    store = opened(root)
    source = incompressible(tmp_path / "layout", 7)
    fill = small_disk / "fill"
    fill.write_bytes(bytes((23 - free) << 20))
    with pytest.raises(NoSpace, match="no space left on"):
        await pull(store, source)
    assert contents(root) == [] and store.describe_all() == []
    fill.unlink()
    assert (await store.disk(await pull(store, source))).path.exists()


async def test_an_image_can_be_removed_from_a_full_disk(small_disk: Path, tmp_path: Path) -> None:
    root = small_disk / "images"
    store = opened(root)
    await pull(store, incompressible(tmp_path / "layout", 6), "big:1")
    with open(small_disk / "fill", "wb", buffering=0) as fill:
        for size in (1 << 20, 1 << 12):
            try:
                while True:
                    fill.write(bytes(size))
            except OSError as error:
                assert error.errno == errno.ENOSPC
    await store.prune(everything=True)
    assert contents(root) == []


async def test_a_read_only_disk_is_named(small_disk: Path, tmp_path: Path) -> None:
    root = small_disk / "images"
    store = opened(root)
    await pull(store, small(tmp_path / "a", "file"), "file:1")
    before = sorted(contents(root))
    subprocess.run(["mount", "-o", "remount,ro", small_disk], check=True)
    refused = pytest.raises(
        Unavailable, match="image store .* cannot be written: its file system is read-only: mount it writable"
    )
    with refused:
        await pull(store, small(tmp_path / "b", "other"))
    with refused:
        await pull(store, "builtin:busybox")
    with refused:
        store.tag("file:1", "other:1")
    with refused:
        await store.remove("file:1")
    with refused:
        await store.prune(everything=True)
    assert sorted(contents(root)) == before and store.find("file:1")
    subprocess.run(["mount", "-o", "remount,rw", small_disk], check=True)
    await pull(store, small(tmp_path / "c", "other"))


# -- what is built in, and archives -------------------------------------------------------------


async def test_the_built_in_image_has_an_age_and_one_platform(tmp_path: Path) -> None:
    store = opened(tmp_path)
    await pull(store, "builtin:busybox")
    assert store.describe("busybox").created > "2000"
    other = "arm64" if architectures.host() != "arm64" else "amd64"
    with pytest.raises(
        NotFound, match=f"the built-in image is for linux/{architectures.host()}, not for linux/{other}"
    ):
        await pull(store, "builtin:busybox", platform=f"linux/{other}")


async def test_an_image_of_another_platform_is_not_taken_for_the_wanted_one(tmp_path: Path) -> None:
    store = opened(tmp_path)
    await pull(store, "builtin:busybox")
    other = "arm64" if architectures.host() != "arm64" else "amd64"
    assert store.find("busybox", platform=f"linux/{architectures.host()}")
    with pytest.raises(NotFound, match=f"image busybox is for linux/{architectures.host()}, not for linux/{other}"):
        store.find("busybox", platform=f"linux/{other}")


PACKERS: dict[str, Callable[[bytes], bytes]] = {
    "plain": bytes,
    "gzip": gzip.compress,
    "xz": lzma.compress,
    "bzip2": bz2.compress,
    "zstd": zstandard.ZstdCompressor().compress,
}


@pytest.mark.parametrize("pack", PACKERS)
@pytest.mark.parametrize("transport", ["docker-archive", "oci-archive"])
async def test_archives_of_any_compression(tmp_path: Path, transport: str, pack: str) -> None:
    jail = HyperJail(tmp_path / "jail")
    if not jail.hindrance():  # where hyperd would have one
        helpers.use(jail)
    source = small(tmp_path / "layout", "file")
    path = tmp_path / "image.tar"
    name = "example.com/some/name:v1"
    copy = ["skopeo", "--insecure-policy", "copy", "-q", source, f"{transport}:{path}:{name}"]
    subprocess.run(copy, check=True, capture_output=True)
    packed = tmp_path / "packed"
    packed.write_bytes(PACKERS[pack](path.read_bytes()))
    store = opened(tmp_path / "images")
    image = await pull(store, f"{transport}:{packed}")
    assert store.find(name).id == image.id
    assert list((tmp_path / "images/staging").iterdir()) == []


@pytest.mark.parametrize(
    "content",
    [b"", b"not an archive" * 1000, gzip.compress(b"x" * 5000), gzip.compress(b"x" * 50_000)[:-20]],
    ids=["empty", "text", "packed text", "cut short"],
)
async def test_what_is_no_archive(tmp_path: Path, content: bytes) -> None:
    (tmp_path / "file").write_bytes(content)
    store = opened(tmp_path / "images")
    with pytest.raises(InvalidArgument, match="is not an image of this kind|is damaged"):
        await pull(store, f"docker-archive:{tmp_path}/file")
    assert contents(tmp_path / "images") == []


# -- what does not come, what is lost -----------------------------------------------------------


async def test_access_control_lists_that_nobody_can_read_are_told(tmp_path: Path) -> None:
    make = Maker(tmp_path / "layout")
    good, cut = "\x02\0\0\0", "\x02\0\0"
    source = make.image(
        make.layer(
            [
                header("plain"),
                header("empty", **{"SCHILY.xattr.system.posix_acl_access": good, "SCHILY.xattr.user.kept": "yes"}),
                header("cut", **{"SCHILY.xattr.system.posix_acl_access": cut}),
                header("named", **{"SCHILY.acl.access": "user::rw-,user:joe:r--,group::r--,mask::r--,other::r--"}),
                header("numbered", **{"SCHILY.acl.access": "user::rw-,user:joe:r--:7,group::r--,mask::r--,other::r--"}),
                END,
            ]
        )
    )
    store = opened(tmp_path / "images")
    progress, image = store.pull(source)
    pulling = asyncio.ensure_future(image)
    told = [update["status"] async for update in progress.listen()]
    why = "which are damaged or name users without numbers"
    assert f"Left out: the access control lists of 2 entries, {why}" in told
    files = erofs.tree((await store.disk(await pulling)).path)
    assert files[b"empty"].xattrs == {b"user.kept": b"yes"}
    assert files[b"cut"].xattrs == files[b"named"].xattrs == {}
    assert list(files[b"numbered"].xattrs) == [b"system.posix_acl_access"]


async def test_disks_of_an_earlier_format_are_made_anew(tmp_path: Path) -> None:
    root = tmp_path / "images"
    store = opened(root)
    image = await pull(store, small(tmp_path / "a", "file"))
    disk = (await store.disk(image)).path
    old = disk.rename(disk.with_suffix(".sqfs"))
    store = opened(root)
    assert not old.exists()
    made = await store.disk(image)
    assert (made.path, made.fstype) == (disk, "erofs") and b"file" in erofs.tree(disk)


class Stalling(http.server.BaseHTTPRequestHandler):
    """A registry that sends half of each layer, and then nothing."""

    blobs: Path
    manifest: bytes
    over: threading.Event

    def do_GET(self) -> None:
        self.answer(body=True)

    def do_HEAD(self) -> None:
        self.answer(body=False)

    def answer(self, *, body: bool) -> None:
        kind, data = "application/octet-stream", b""
        if "/manifests/" in self.path:
            kind, data = MANIFEST, self.manifest
        elif "/blobs/" in self.path:
            data = (self.blobs / self.path.rpartition("sha256:")[2]).read_bytes()
        self.send_response(200)
        self.send_header("Content-Type", kind)
        self.send_header("Content-Length", str(len(data)))
        self.send_header("Docker-Distribution-Api-Version", "registry/2.0")
        self.end_headers()
        if body and len(data) > 100_000:
            self.wfile.write(data[: len(data) // 2])
            self.wfile.flush()
            self.over.wait(60)
        elif body:
            self.wfile.write(data)

    def log_message(self, format: str, *args: object) -> None:
        pass


async def test_a_registry_that_stops_sending_is_given_up(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    incompressible(tmp_path / "layout", 1)
    index = json.loads((tmp_path / "layout/index.json").read_bytes())
    Stalling.blobs = tmp_path / "layout/blobs/sha256"
    Stalling.manifest = (Stalling.blobs / index["manifests"][0]["digest"].removeprefix("sha256:")).read_bytes()
    Stalling.over = threading.Event()
    monkeypatch.setattr(skopeo, "STALLED", 2.0)
    with http.server.ThreadingHTTPServer(("127.0.0.1", 0), Stalling) as server:
        threading.Thread(target=server.serve_forever).start()
        try:
            store = opened(tmp_path / "images")
            async with asyncio.timeout(60):
                with pytest.raises(Unavailable, match=r"cannot pull localhost:\d+/stalls:1: nothing has come for 2 s"):
                    await pull(store, f"localhost:{server.server_port}/stalls:1")
        finally:
            Stalling.over.set()
            server.shutdown()
    assert contents(tmp_path / "images") == []


async def test_what_no_image_needs_is_looked_for_off_the_loop(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """An image that is named meanwhile keeps what it has."""
    store = opened(tmp_path / "images")
    gone = await pull(store, small(tmp_path / "a", "a"), "gone:1")
    await pull(store, small(tmp_path / "b", "b"), "stays:1")
    begun, end = threading.Event(), threading.Event()
    real = Layout.reach

    def slow(layout: Layout, digest: str) -> set[str]:
        begun.set()
        assert end.wait(20), "the loop was held up"
        return real(layout, digest)

    monkeypatch.setattr(Layout, "reach", slow)
    task = asyncio.ensure_future(store.remove("gone:1", force=True))
    while not begun.is_set():
        await asyncio.sleep(0)
    document = json.dumps({"schemaVersion": 2, "mediaType": INDEX, "manifests": []}).encode()
    entry = store._layout.blobs.add(document, INDEX)
    store._layout.set_name("late:1", entry)
    end.set()  # by the loop, while manifests are read
    assert (await task).deleted == [gone.id]
    assert not store._layout.blobs.has(gone.digest) and store._layout.blobs.has(entry.digest)
    assert store.find("stays:1")
