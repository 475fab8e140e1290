# SPDX-License-Identifier: Apache-2.0
"""Files of saved pods in layers: whatever they are made of, what comes out is what went in."""

from __future__ import annotations

import errno
import os
import random
from pathlib import Path

import pytest

from hypercontainer.engine.forks.layers import DEPTH, Layered, below, copy_whole, read_in, size_of, store_above
from hypercontainer.engine.memory_files import PAGE, digest
from hypercontainer.errors import Unavailable

PAGES = 3000  # more than are compared at a time


def write(path: Path, pages: dict[int, bytes], size: int = PAGES * PAGE) -> dict[int, bytes]:
    """A whole file, with holes."""
    with open(path, "wb") as file:
        file.truncate(size)
        for number, letter in pages.items():
            os.pwrite(file.fileno(), letter * PAGE, number * PAGE)
    return pages


def content(path: Path) -> dict[int, bytes]:
    """Numbers of pages that are not zero, and the byte that each consists of."""
    with Layered(path) as file:
        found = {at // PAGE: bytes(page[:1]) for at, page in file.pages()}
        assert {n: file.read(n * PAGE, PAGE)[:1] for n in found} == found
        whole = file.read(0, 1 << 40)
    assert len(whole) == size_of(path) == PAGES * PAGE
    assert {n: whole[n * PAGE : n * PAGE + 1] for n in range(PAGES) if any(whole[n * PAGE : (n + 1) * PAGE])} == found
    return found


def generations(directory: Path, count: int) -> list[dict[int, bytes]]:
    """Files 0 to `count`, each above the one before: some pages are others, new, or zeros by now."""
    chosen, found = random.Random(count), []
    pages = dict.fromkeys(range(0, PAGES, 2), b"a")
    for number in range(count + 1):
        found.append(write(directory / f"f{number}", dict(pages)))
        if number:
            assert store_above(directory / f"f{number}", directory / f"f{number - 1}")
        for page in chosen.sample(range(PAGES), 40):
            pages[page] = bytes([98 + number])
        for page in chosen.sample(sorted(pages), 40):
            del pages[page]
    return found


def test_what_comes_out_is_what_went_in(tmp_path: Path) -> None:
    for number, pages in enumerate(generations(tmp_path, 4)):
        assert content(tmp_path / f"f{number}") == pages
        assert len(below(tmp_path / f"f{number}")) == number


def test_only_what_is_another_is_stored(tmp_path: Path) -> None:
    generations(tmp_path, 2)
    assert os.stat(tmp_path / "f2").st_blocks * 512 <= 45 * PAGE
    assert (tmp_path / "f2.2").samefile(tmp_path / "f0") and (tmp_path / "f2.1").samefile(tmp_path / "f1")


def test_those_below_may_be_removed(tmp_path: Path) -> None:
    *_, last = generations(tmp_path, 3)
    for path in tmp_path.iterdir():
        if not path.name.startswith("f3"):
            path.unlink()
    assert content(tmp_path / "f3") == last


def test_a_copy_has_no_layers(tmp_path: Path) -> None:
    *_, last = generations(tmp_path, 3)
    copy_whole(tmp_path / "f3", tmp_path / "copy")
    assert content(tmp_path / "copy") == last and not below(tmp_path / "copy")
    memory = os.memfd_create("memory")
    assert read_in(tmp_path / "f3", memory) == digest(tmp_path / "copy")
    os.close(memory)
    with pytest.raises(FileExistsError):
        copy_whole(tmp_path / "f3", tmp_path / "copy")


def test_they_are_so_many_at_most(tmp_path: Path) -> None:
    generations(tmp_path, DEPTH - 1)
    pages = write(tmp_path / "next", content(tmp_path / f"f{DEPTH - 1}"))
    assert not store_above(tmp_path / "next", tmp_path / f"f{DEPTH - 1}")
    assert content(tmp_path / "next") == pages and not below(tmp_path / "next")


@pytest.mark.parametrize(
    ("pages", "size"),
    [(dict.fromkeys(range(PAGES), b"b"), PAGES * PAGE), ({1: b"a"}, (PAGES + 1) * PAGE), ({1: b"a"}, PAGES * PAGE - 1)],
)
def test_what_is_mostly_another_is_stored_whole(tmp_path: Path, pages: dict[int, bytes], size: int) -> None:
    write(tmp_path / "f0", dict.fromkeys(range(PAGES), b"a"))
    write(tmp_path / "f1", pages, size)
    assert not store_above(tmp_path / "f1", tmp_path / "f0")
    assert sorted(p.name for p in tmp_path.iterdir()) == ["f0", "f1"]
    assert not store_above(tmp_path / "f1", tmp_path / "none")


def test_a_size_that_is_no_multiple(tmp_path: Path) -> None:
    size = PAGES * PAGE - 512
    write(tmp_path / "f0", dict.fromkeys(range(PAGES - 1), b"a"), size)
    write(tmp_path / "f1", dict.fromkeys(range(PAGES - 1), b"a"), size)
    with open(tmp_path / "f1", "r+b") as file:
        os.pwrite(file.fileno(), b"end", size - 3)
    assert store_above(tmp_path / "f1", tmp_path / "f0") and size_of(tmp_path / "f1") == size
    with Layered(tmp_path / "f1") as file:
        assert file.read(size - 3, 100) == b"end" and file.read(0, 2) == b"aa"


def test_what_cannot_be_a_layer_stays_whole(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """It is less that is stored, and no more: a snapshot is made all the same."""
    *_, last = generations(tmp_path, 2)
    write(tmp_path / "new", last)
    there = sorted(tmp_path.iterdir())
    link, pwrite = os.link, os.pwrite

    def no_second(source: Path, target: Path) -> None:
        if target.name.endswith(".2"):
            raise OSError(errno.EMLINK, os.strerror(errno.EMLINK))
        link(source, target)

    def full(fd: int, data: bytes, at: int) -> int:
        if "above" in os.readlink(f"/proc/self/fd/{fd}"):
            raise OSError(errno.ENOSPC, os.strerror(errno.ENOSPC))
        return pwrite(fd, data, at)

    for name, fails in (("link", no_second), ("pwrite", full)):
        with monkeypatch.context() as patched:
            patched.setattr(os, name, fails)
            assert not store_above(tmp_path / "new", tmp_path / "f2")
    with open(tmp_path / "f2.1", "r+b") as file:  # damaged
        file.truncate(PAGE)
    assert not store_above(tmp_path / "new", tmp_path / "f2")
    assert content(tmp_path / "new") == last and sorted(tmp_path.iterdir()) == there


def test_layers_that_do_not_go_together(tmp_path: Path) -> None:
    generations(tmp_path, 1)
    with open(tmp_path / "f0", "r+b") as file:
        file.truncate(PAGE)
    with pytest.raises(Unavailable, match="do not go together"):
        Layered(tmp_path / "f1")
