# SPDX-License-Identifier: Apache-2.0
"""Layers merged into a tree and written as one tar stream."""

from __future__ import annotations

import dataclasses
import gzip
import hashlib
import io
import os
import subprocess
import tarfile
import tempfile
import threading
from collections.abc import Callable
from pathlib import Path
from typing import IO

import pytest

from hypercontainer.errors import InvalidArgument, NotFound
from hypercontainer.images.convert import Layer, LayerError, Spooled, convert, make_squashfs
from hypercontainer.images.layout import Descriptor, Layout, chain_id, choose_platform
from hypercontainer.images.limits import Budget, Limits
from hypercontainer.images.tarstream import Writer, header, walk
from hypercontainer.images.tree import Inode, Tree

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


def names(tree: Tree) -> list[str]:
    return [path.decode(errors="replace").removeprefix("./") for path, _ in walk(tree)]


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
    nodes = dict(walk(tree))
    assert (nodes[b"./d"].inode.mode, nodes[b"./d"].inode.uid) == (0o700, 7)
    assert b"./d/f" in nodes


def test_file_replaces_directory_and_back() -> None:
    assert names(merged(layer(directory("p"), file("p/x")), layer(file("p")))) == ["p"]
    assert names(merged(layer(file("p")), layer(directory("p"), file("p/y")))) == ["p", "p/y"]


def test_hard_link_across_layers_keeps_the_old_contents() -> None:
    tree = merged(
        layer(file("f", b"old")),
        layer(("g", {"type": tarfile.LNKTYPE, "link": "f"})),
        layer(file("f", b"new!")),
    )
    nodes = dict(walk(tree))
    assert nodes[b"./g"].inode.size == 3 and nodes[b"./g"].inode.layer == 0
    assert nodes[b"./f"].inode.size == 4 and nodes[b"./f"].inode.layer == 2


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


# -- the stream -------------------------------------------------------------------------


def stream(tree: Tree, layers: list[IO[bytes]], tmp_path: Path) -> bytes:
    """The tree's tar stream, read while it is written."""
    files = []
    for index, archive in enumerate(layers):
        path = tmp_path / f"layer{index}"
        path.write_bytes(archive.getvalue())  # type: ignore[attr-defined]
        files.append(os.open(path, os.O_RDONLY))
    read, write = os.pipe()
    got = bytearray()

    def drain() -> None:
        with os.fdopen(read, "rb") as f:
            got.extend(f.read())

    reader = threading.Thread(target=drain)
    reader.start()
    Writer(write, [(fd, 0) for fd in files]).write(tree)
    os.close(write)
    reader.join()
    for fd in files:
        os.close(fd)
    return bytes(got)


def test_stream_holds_everything(tmp_path: Path) -> None:
    capability = bytes.fromhex("0100000200040000000000000000000000000000").decode("utf-8", "surrogateescape")
    long, odd = "d/" + "n" * 220, b"d/\xff\xfe".decode("utf-8", "surrogateescape")
    big = os.urandom(300_000)
    layers = [
        layer(
            directory("d", mode=0o2750, uid=70000, gid=3_000_000),
            file("d/cap", b"x", mode=0o4755, pax={"SCHILY.xattr.security.capability": capability}),
            file(long, big),
            file(odd, b"odd"),
            ("d/hard", {"type": tarfile.LNKTYPE, "link": "d/cap"}),
            ("null", {"type": tarfile.CHRTYPE, "device": (1, 3), "mode": 0o666}),
            ("fifo", {"type": tarfile.FIFOTYPE}),
            ("soft", {"type": tarfile.SYMTYPE, "link": "t" * 150}),
        )
    ]
    raw = stream(merged(*layers), layers, tmp_path)
    with tarfile.open(fileobj=io.BytesIO(raw), errors="surrogateescape") as tar:
        members = {m.name.removeprefix("./"): m for m in tar}
        assert tar.extractfile(members[long]).read() == big  # type: ignore[union-attr]
    assert (members["d"].mode, members["d"].uid, members["d"].gid) == (0o2750, 70000, 3_000_000)
    assert members["d/cap"].pax_headers["SCHILY.xattr.security.capability"] == capability
    assert odd in members and members["soft"].linkname == "t" * 150
    assert members["d/hard"].islnk() and members["d/hard"].linkname == "./d/cap"
    assert (members["null"].devmajor, members["null"].devminor) == (1, 3)


def test_sparse_files_are_filled_with_zeros(tmp_path: Path) -> None:
    inside = tmp_path / "in"
    inside.mkdir()
    with open(inside / "sparse", "wb") as f:
        f.seek(5_000_000)
        f.write(b"end")
    raw = io.BytesIO(
        subprocess.run(["tar", "-C", inside, "--sparse", "-c", "sparse"], capture_output=True, check=True).stdout
    )
    assert len(raw.getvalue()) < 100_000
    tree = merged(io.BytesIO(raw.getvalue()))
    with tarfile.open(fileobj=io.BytesIO(stream(tree, [raw], tmp_path))) as tar:
        data = tar.extractfile("./sparse").read()  # type: ignore[union-attr]
    assert data == bytes(5_000_000) + b"end"


def test_sizes_beyond_eight_gigabytes() -> None:
    inode = Inode(b"0", 0o644, size=9 << 30)
    raw = header(b"./big", inode) + bytes(1024)
    with tarfile.open(fileobj=io.BytesIO(raw)) as tar:
        info = tar.next()
    assert info is not None and info.size == 9 << 30


def test_squashfs_equals_the_tree(tmp_path: Path) -> None:
    archive = layer(directory("a"), file("a/f", b"hello"), ("a/l", {"type": tarfile.LNKTYPE, "link": "a/f"}))
    spool = tmp_path / "spool"
    spool.write_bytes(archive.getvalue())  # type: ignore[attr-defined]
    target = tmp_path / "out.sqfs"
    with open(spool, "rb") as f, open(target, "w+b") as out:
        make_squashfs(merged(archive), [Spooled(f.fileno(), 0, spool.stat().st_size)], out.fileno())
    listing = subprocess.run(["unsquashfs", "-lln", target], capture_output=True, text=True, check=True).stdout
    assert "squashfs-root/a/f" in listing and "squashfs-root/a/l" in listing
    assert subprocess.run(["unsquashfs", "-cat", target, "a/l"], capture_output=True, check=True).stdout == b"hello"


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
    assert subprocess.run(["unsquashfs", "-cat", disk, "f"], capture_output=True, check=True).stdout == contents


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
    blob = layout.add_blob(b"data")
    assert layout.read_blob(blob.digest) == b"data"
    layout.blob(blob.digest).write_bytes(b"changed")
    with pytest.raises(NotFound, match="corrupt"):
        layout.read_blob(blob.digest)
    layout.add_blob(b"unneeded")
    assert layout.collect_garbage() == len(b"unneeded")
    with pytest.raises(InvalidArgument):
        layout.blob("sha256:../../etc/passwd")


def test_platforms_of_an_index() -> None:
    index = b"""{"schemaVersion": 2, "manifests": [
      {"mediaType": "m", "digest": "d1", "size": 1, "platform": {"os": "linux", "architecture": "amd64"}},
      {"mediaType": "m", "digest": "d2", "size": 1,
       "platform": {"os": "linux", "architecture": "arm64", "variant": "v8"}}]}"""
    assert choose_platform(index, "linux", "arm64", "").digest == "d2"
    with pytest.raises(NotFound, match="no variant for linux/s390x"):
        choose_platform(index, "linux", "s390x", "")


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
