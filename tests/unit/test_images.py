# SPDX-License-Identifier: Apache-2.0
"""Layers merged into a tree, and what of them is on the image disk."""

from __future__ import annotations

import contextlib
import dataclasses
import gzip
import hashlib
import io
import os
import stat
import subprocess
import tarfile
import tempfile
from collections.abc import Callable
from pathlib import Path
from typing import IO

import pytest

from hypercontainer.errors import InvalidArgument, NotFound
from hypercontainer.images.convert import Layer, LayerError, convert
from hypercontainer.images.erofs.writer import Writer
from hypercontainer.images.layout import Layout
from hypercontainer.images.limits import Budget, Limits
from hypercontainer.images.manifests import Descriptor, chain_id, choose_platform
from hypercontainer.images.tree import Node, Tree

from .. import erofs

Entry = tuple[str, dict[str, object]]


def layer(*entries: Entry) -> IO[bytes]:
    """An uncompressed layer; `data`, `type`, `link`, `mode`, `pax` describe an entry."""
    out = io.BytesIO()
    with tarfile.open(fileobj=out, mode="w", format=tarfile.PAX_FORMAT) as tar:
        for name, how in entries:
            info = tarfile.TarInfo(name)
            data = bytes(how.get("data", b""))  # type: ignore[call-overload]
            info.size, info.mode = len(data), int(how.get("mode", 0o644))  # type: ignore[call-overload]
            info.type = how.get("type", tarfile.REGTYPE)  # type: ignore[assignment]
            info.linkname = str(how.get("link", ""))
            info.uid, info.gid = int(how.get("uid", 0)), int(how.get("gid", 0))  # type: ignore[call-overload]
            info.devmajor, info.devminor = how.get("device", (0, 0))  # type: ignore[misc]
            info.pax_headers = how.get("pax", {})  # type: ignore[assignment]
            tar.addfile(info, io.BytesIO(data))
    out.seek(0)
    return out


def directory(name: str, **how: object) -> Entry:
    return name, {"type": tarfile.DIRTYPE, "mode": 0o755, **how}


def file(name: str, data: bytes = b"", **how: object) -> Entry:
    return name, {"data": data, **how}


def merged(*layers: IO[bytes]) -> Tree:
    tree = Tree()
    for index, archive in enumerate(layers):
        tree.apply(index, archive)
    return tree


def nodes_of(tree: Tree) -> dict[bytes, Node]:
    """All but the root, by path."""
    found: dict[bytes, Node] = {}
    stack = [(b"", tree.root)]
    while stack:
        path, node = stack.pop()
        for name, child in (node.children or {}).items():
            found[path + name] = child
            stack.append((path + name + b"/", child))
    return found


def names(tree: Tree) -> list[str]:
    return sorted(path.decode(errors="replace") for path in nodes_of(tree))


def test_whiteout_removes_what_lower_layers_had() -> None:
    tree = merged(layer(directory("a"), file("a/x"), file("a/y")), layer(file("a/.wh.x")))
    assert names(tree) == ["a", "a/y"]


def test_whiteout_of_a_directory_keeps_what_its_own_layer_adds() -> None:
    tree = merged(layer(directory("a"), file("a/old")), layer(directory("a"), file("a/new"), file(".wh.a")))
    assert names(tree) == ["a", "a/new"]


def test_opaque_directory_hides_lower_children_wherever_its_mark_stands() -> None:
    lower = (directory("a"), file("a/old"), directory("a/sub"), file("a/sub/old"))
    for upper in (
        (directory("a"), file("a/.wh..wh..opq"), file("a/new")),
        (directory("a"), file("a/new"), file("a/.wh..wh..opq")),
    ):
        assert names(merged(layer(*lower), layer(*upper))) == ["a", "a/new"]


def test_whiteout_of_nothing_is_harmless() -> None:
    assert names(merged(layer(file("a/.wh.none"), file("b")))) == ["a", "b"]


def test_directory_metadata_comes_from_the_upper_layer_children_stay() -> None:
    tree = merged(layer(directory("d"), file("d/f")), layer(directory("d", mode=0o700, uid=7)))
    nodes = nodes_of(tree)
    assert (nodes[b"d"].inode.mode, nodes[b"d"].inode.uid) == (0o700, 7)
    assert b"d/f" in nodes


def test_file_replaces_directory_and_back() -> None:
    assert names(merged(layer(directory("p"), file("p/x")), layer(file("p")))) == ["p"]
    assert names(merged(layer(file("p")), layer(directory("p"), file("p/y")))) == ["p", "p/y"]


def test_hard_link_across_layers_keeps_the_old_contents() -> None:
    tree = merged(
        layer(file("f", b"old")),
        layer(("g", {"type": tarfile.LNKTYPE, "link": "f"})),
        layer(file("f", b"new!")),
    )
    nodes = nodes_of(tree)
    assert nodes[b"g"].inode.size == 3 and nodes[b"g"].inode.layer == 0
    assert nodes[b"f"].inode.size == 4 and nodes[b"f"].inode.layer == 2


def test_entries_below_a_symbolic_link_follow_it() -> None:
    link = ("lib", {"type": tarfile.SYMTYPE, "link": "usr/lib"})
    assert names(merged(layer(directory("usr"), directory("usr/lib"), link), layer(file("lib/x")))) == [
        "lib",
        "usr",
        "usr/lib",
        "usr/lib/x",
    ]


def test_symbolic_link_loops_are_refused() -> None:
    a, b = ("a", {"type": tarfile.SYMTYPE, "link": "b"}), ("b", {"type": tarfile.SYMTYPE, "link": "a"})
    with pytest.raises(InvalidArgument, match="too many symbolic links"):
        merged(layer(a, b, file("a/x")))


def test_links_that_point_above_the_root_stay_inside() -> None:
    out = ("out", {"type": tarfile.SYMTYPE, "link": "../../.."})
    assert names(merged(layer(out, file("out/etc")))) == ["etc", "out"]


@pytest.mark.parametrize("name", ["../x", "a/../../x", "/../x"])
def test_entries_that_leave_the_root_are_refused(name: str) -> None:
    with pytest.raises(InvalidArgument, match="would leave the root"):
        merged(layer(file(name)))


def test_hard_links_that_leave_the_root_or_lead_nowhere_are_refused() -> None:
    for target, why in (("../../etc/passwd", "would leave the root"), ("nothing", "hard link to nothing")):
        with pytest.raises(InvalidArgument, match=why):
            merged(layer(("l", {"type": tarfile.LNKTYPE, "link": target})))


def test_something_else_than_a_tar_archive() -> None:
    with pytest.raises(InvalidArgument, match="not a tar archive"):
        merged(io.BytesIO(b"x" * 2000))


# -- the disk ---------------------------------------------------------------------------


def written(tree: Tree, layers: list[IO[bytes]], tmp_path: Path) -> Path:
    """The tree's image disk."""
    disk = tmp_path / "disk"
    with contextlib.ExitStack() as stack:
        files = []
        for archive in layers:
            files.append(stack.enter_context(tempfile.TemporaryFile()))
            files[-1].write(archive.getvalue())  # type: ignore[attr-defined]
            files[-1].flush()
        with open(disk, "w+b") as out:
            Writer(out.fileno(), [(f.fileno(), 0) for f in files]).write(tree)
    return disk


def test_the_disk_holds_everything(tmp_path: Path) -> None:
    capability = bytes.fromhex("0100000200040000000000000000000000000000")
    long, odd = "d/" + "n" * 220, b"d/\xff\xfe"
    big = os.urandom(300_000)
    layers = [
        layer(
            directory("d", mode=0o2750, uid=70000, gid=3_000_000),
            file(
                "d/cap",
                b"x",
                mode=0o4755,
                pax={"SCHILY.xattr.security.capability": capability.decode("utf-8", "surrogateescape")},
            ),
            file(long, big),
            file(odd.decode("utf-8", "surrogateescape"), b"odd"),
            ("d/hard", {"type": tarfile.LNKTYPE, "link": "d/cap"}),
            ("null", {"type": tarfile.CHRTYPE, "device": (1, 3), "mode": 0o666}),
            ("far", {"type": tarfile.BLKTYPE, "device": (4095, (1 << 20) - 1)}),
            ("fifo", {"type": tarfile.FIFOTYPE}),
            ("soft", {"type": tarfile.SYMTYPE, "link": "t" * 150}),
        )
    ]
    with erofs.Image(written(merged(*layers), layers, tmp_path)) as image:
        files = image.tree()
        assert image.contents(files[long.encode()]) == big
        assert image.contents(files[odd]) == b"odd"
        assert image.contents(files[b"soft"]) == b"t" * 150
    assert files[b"d"].mode == stat.S_IFDIR | 0o2750 and (files[b"d"].uid, files[b"d"].gid) == (70000, 3_000_000)
    assert files[b"d/cap"].mode == stat.S_IFREG | 0o4755
    assert files[b"d/cap"].xattrs == {b"security.capability": capability}
    assert files[b"d/hard"].nid == files[b"d/cap"].nid and files[b"d/cap"].links == 2
    assert files[b""].links == 3 and files[b"d"].links == 2
    assert files[b"null"].mode == stat.S_IFCHR | 0o666 and files[b"null"].device == 0x103
    # new_decode_dev of the kernel's include/linux/kdev_t.h
    far = files[b"far"].device
    assert ((far & 0xFFF00) >> 8, far & 0xFF | far >> 12 & 0xFFF00) == (4095, (1 << 20) - 1)
    assert stat.S_ISFIFO(files[b"fifo"].mode)


def test_sparse_files_keep_their_holes(tmp_path: Path) -> None:
    inside = tmp_path / "in"
    inside.mkdir()
    with open(inside / "sparse", "wb") as f:
        f.seek(5_000_000)
        f.write(b"end")
    raw = io.BytesIO(
        subprocess.run(["tar", "-C", inside, "--sparse", "-c", "sparse"], capture_output=True, check=True).stdout
    )
    assert len(raw.getvalue()) < 100_000
    disk = written(merged(raw), [raw], tmp_path)
    assert disk.stat().st_size < 100_000
    assert erofs.read(disk, "sparse") == bytes(5_000_000) + b"end"


# -- layers on disk ---------------------------------------------------------------------


def _convert(tmp_path: Path, blob: bytes, diff: bytes) -> Path:
    """The image disk of one layer."""
    path, target = tmp_path / "blob", tmp_path / "disk"
    path.write_bytes(blob)
    layers = [Layer(0, "sha256:" + hashlib.sha256(diff).hexdigest())]
    with open(path, "rb") as source, open(target, "w+b") as out, tempfile.TemporaryFile() as spool:
        layers = [dataclasses.replace(layers[0], blob=source.fileno())]
        convert(layers, [spool.fileno()], out.fileno(), Budget(Limits(), len(blob)), lambda *_: None)
    return target


@pytest.mark.parametrize("compress", [bytes, gzip.compress, pytest.param(None, id="zstd")])
@pytest.mark.parametrize("padded", [True, False])
def test_layers_of_any_compression(tmp_path: Path, compress: Callable[[bytes], bytes] | None, padded: bool) -> None:
    import zstandard

    contents = os.urandom(1000) * 301
    data = layer(file("f", contents)).read()
    if not padded:
        data = data[: 512 + len(contents)]  # as some tools leave it
    pack = compress or zstandard.ZstdCompressor().compress
    disk = _convert(tmp_path, pack(data), data)
    assert erofs.read(disk, "f") == contents


@pytest.mark.parametrize(
    "damage",
    [lambda b: b[: len(b) // 2], lambda b: b[:2000] + b"\0" * 50 + b[2050:], lambda b: gzip.compress(b"other")],
)
def test_corrupt_blob_is_refused(tmp_path: Path, damage: Callable[[bytes], bytes]) -> None:
    data = os.urandom(100_000)
    with pytest.raises(LayerError, match="is corrupt") as error:
        _convert(tmp_path, damage(gzip.compress(data)), data)
    assert isinstance(error.value.cause, NotFound) and error.value.layer == 0


def test_chain_ids() -> None:
    a, b = "sha256:" + "a" * 64, "sha256:" + "b" * 64
    assert chain_id([a]) == a
    assert chain_id([a, b]) == "sha256:" + hashlib.sha256(f"{a} {b}".encode()).hexdigest()


def test_layout_finds_changed_blobs_and_collects_garbage(tmp_path: Path) -> None:
    layout = Layout(tmp_path)
    layout.create()
    blob = layout.blobs.add(b"data")
    assert layout.blobs.read(blob.digest) == b"data"
    layout.blobs.path(blob.digest).write_bytes(b"changed")
    with pytest.raises(NotFound, match="corrupt"):
        layout.blobs.read(blob.digest)
    layout.blobs.add(b"unneeded")
    assert layout.collect_garbage(set(), Path.unlink) == len(b"unneeded")
    with pytest.raises(InvalidArgument):
        layout.blobs.path("sha256:../../etc/passwd")


def test_platforms_of_an_index() -> None:
    index = b"""{"schemaVersion": 2, "manifests": [
      {"mediaType": "m", "digest": "d1", "size": 1, "platform": {"os": "linux", "architecture": "amd64"}},
      {"mediaType": "m", "digest": "d2", "size": 1,
       "platform": {"os": "linux", "architecture": "arm64", "variant": "v8"}},
      {"mediaType": "m", "digest": "d3", "size": 1,
       "platform": {"os": "linux", "architecture": "arm", "variant": "v7"}},
      {"mediaType": "m", "digest": "d4", "size": 1, "platform": {"os": "unknown", "architecture": "unknown"}}]}"""
    assert choose_platform(index, "linux", "arm64", "").digest == "d2"
    has = "it has linux/amd64, linux/arm/v7, linux/arm64/v8"
    with pytest.raises(NotFound) as missing:
        choose_platform(index, "linux", "s390x", "")
    assert str(missing.value) == f"the image has no variant for linux/s390x: {has}"
    with pytest.raises(NotFound) as missing:
        choose_platform(index, "linux", "arm", "v5")
    assert str(missing.value) == f"the image has no variant for linux/arm/v5: {has}"


def test_an_image_that_loses_its_name_stays(tmp_path: Path) -> None:
    layout = Layout(tmp_path)
    layout.create()
    old, new = (Descriptor(media_type="m", digest="sha256:" + c * 64, size=1) for c in "ab")
    layout.set_name("docker.io/library/x:latest", old)
    layout.set_name("docker.io/library/x:latest", new)
    assert {k: d.digest for k, d in layout.names().items()} == {
        "docker.io/library/x:latest": new.digest,
        old.digest: old.digest,
    }
    layout.set_name("docker.io/library/y:1", old)
    assert old.digest not in layout.names()
    layout.set_name(old.digest, old)  # it has a name already
    assert set(layout.names()) == {"docker.io/library/x:latest", "docker.io/library/y:1"}
