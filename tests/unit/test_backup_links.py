# SPDX-License-Identifier: Apache-2.0
"""What is changed in a tree while a backup reads it."""

from __future__ import annotations

import io
import os
import tarfile
from collections.abc import Callable
from pathlib import Path

import msgspec
import pytest
import zstandard

from hypercontainer.engine.backup.archive import End, Writer

from .test_trees import dig, emptied


def read(packed: bytes) -> tuple[list[str], End]:
    """Names of members between the first and the last, and what the last one says."""
    data = zstandard.ZstdDecompressor().decompressobj().decompress(packed)
    with tarfile.open(fileobj=io.BytesIO(data)) as archive:
        *names, end = archive.getnames()
        last = archive.extractfile(end)
        assert last
        return names, msgspec.json.decode(last.read(), type=End)


def packed(tree: Path, between: Callable[[], object], name: str = "volumes/v") -> tuple[list[str], End]:
    """Of a tree in which, after the first piece, something happens: `a` is more than a piece long."""
    writer, data, happened = Writer(), b"", False
    for piece in writer.tree(tree, name, {}, lambda path: False):
        if not happened:
            happened = True
            between()
        data += piece
    assert happened
    return read(data + b"".join(writer.end([])))


@pytest.fixture
def tree(tmp_path: Path) -> Path:
    tree = tmp_path / "tree"
    tree.mkdir()
    (tree / "a").write_bytes(os.urandom(3 << 20))
    return tree


def test_a_link_in_a_directorys_place_leads_nowhere(tmp_path: Path, tree: Path) -> None:
    """Who writes to a volume has nothing of the host read into it."""
    host = tmp_path / "host"
    (host / "keys").mkdir(parents=True)
    (host / "keys" / "secret").write_bytes(b"secret")
    (tree / "d" / "keys").mkdir(parents=True)
    (tree / "a").rename(tree / "d" / "a")

    def between() -> None:
        (tree / "d").rename(tree / "e")
        (tree / "d").symlink_to(host)

    names, _ = packed(tree, between)
    assert names == ["volumes/v", "volumes/v/d", "volumes/v/d/a", "volumes/v/d/keys"]


def test_what_becomes_something_else_is_what_it_is_then(tree: Path) -> None:
    """A link becomes a file, a file a link, a directory a link, and what was there before is not waited for."""
    (tree / "b").symlink_to("/etc")
    (tree / "c").touch()
    (tree / "d/inside").mkdir(parents=True)
    (tree / "z").touch()

    def between() -> None:
        (tree / "b").unlink()
        os.mkfifo(tree / "b")
        (tree / "c").unlink()
        (tree / "c").symlink_to("/etc")
        (tree / "d").rename(tree.parent / "away")
        (tree / "d").symlink_to("/etc")

    names, end = packed(tree, between)
    assert names == ["volumes/v", *(f"volumes/v/{name}" for name in "abcdz")] and end.missing == 0


def test_what_goes_or_shrinks_is_told_and_the_rest_is_there(tree: Path) -> None:
    (tree / "b").touch()
    (tree / "z").touch()

    def between() -> None:
        (tree / "b").unlink()
        os.truncate(tree / "a", 1 << 20)

    names, end = packed(tree, between)
    assert names == ["volumes/v", "volumes/v/a", "volumes/v/z"] and end.missing == 2
    assert end.such_as == ["volumes/v/a: it was cut off meanwhile", "volumes/v/b: No such file or directory"]


def test_another_volumes_file_of_the_same_number_is_another_file(tree: Path) -> None:
    """A number is free as soon as its file is removed."""
    writer = Writer()
    for name in ("b", "c"):
        os.link(tree / "a", tree / name)
    data = b"".join(
        piece for name in ("volumes/v", "volumes/w") for piece in writer.tree(tree, name, {}, lambda p: False)
    )
    plain = zstandard.ZstdDecompressor().decompressobj().decompress(data + b"".join(writer.end([])))
    with tarfile.open(fileobj=io.BytesIO(plain)) as archive:
        assert {i.name: i.linkname for i in archive if i.islnk()} == {
            "volumes/v/b": "volumes/v/a", "volumes/v/c": "volumes/v/a",
            "volumes/w/b": "volumes/w/a", "volumes/w/c": "volumes/w/a",
        }  # fmt: skip


@pytest.mark.parametrize(("depth", "length", "found"), [(1100, 1, 1101), (20, 250, 16)])
def test_a_deep_tree_is_in_it_as_far_as_paths_go(
    depth: int, length: int, found: int, tree: Path, tmp_path: Path
) -> None:
    """What no path reaches is told of, and the rest is there."""
    (tree / "z").touch()
    with emptied(tmp_path):
        dig(tree, depth, "d" * length)
        names, end = packed(tree, lambda: None)
    assert names[1] == "volumes/v/a" and names[-1] == "volumes/v/z" and len(names) == found + 3
    assert [each.partition(": ")[2] for each in end.such_as] == ([] if depth == 1100 else ["it lies too deep"])
