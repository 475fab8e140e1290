# SPDX-License-Identifier: Apache-2.0
"""Trees as whoever may write to a volume makes them: deeper than any path, with links, changed meanwhile."""

from __future__ import annotations

import contextlib
import os
import resource
from collections.abc import Iterator
from pathlib import Path

import pytest

from hypercontainer.sys.trees import Walk, disk_usage, remove_tree

DEPTH = 1100  # more than Python calls, and than there may be open files here
NAME = "name"  # so that it is more than a path may have


@pytest.fixture(autouse=True)
def few_descriptors() -> Iterator[None]:
    before = resource.getrlimit(resource.RLIMIT_NOFILE)
    resource.setrlimit(resource.RLIMIT_NOFILE, (min(512, before[1]), before[1]))
    yield
    resource.setrlimit(resource.RLIMIT_NOFILE, before)


def dig(top: Path, depth: int = DEPTH, name: str = NAME) -> None:
    """Directories within each other, and a file of 8 KiB in the lowest one."""
    fd = os.open(top, os.O_RDONLY | os.O_DIRECTORY)
    for _ in range(depth):
        os.mkdir(name, dir_fd=fd)
        inner = os.open(name, os.O_RDONLY | os.O_DIRECTORY, dir_fd=fd)
        os.close(fd)
        fd = inner
    with open(os.open("f", os.O_WRONLY | os.O_CREAT, dir_fd=fd), "wb") as file:
        file.write(b"x" * 8192)
    os.close(fd)


@contextlib.contextmanager
def emptied(path: Path) -> Iterator[None]:
    """Nothing is left there that pytest could not remove."""
    try:
        yield
    finally:
        for each in path.iterdir():
            remove_tree(each)


@contextlib.contextmanager
def nothing_stays_open() -> Iterator[None]:
    before = len(os.listdir("/proc/self/fd"))
    yield
    assert len(os.listdir("/proc/self/fd")) == before


def test_a_tree_of_any_depth_is_measured_and_removed(tmp_path: Path) -> None:
    top = tmp_path / "top"
    top.mkdir()
    dig(top)
    with nothing_stays_open():
        assert disk_usage(top) >= 8192
        found = [(name, walk.path()) for walk in [Walk(top)] for _, name in walk]
        assert len(found) == DEPTH + 2 and found[0] == ("top", "") and found[-1] == ("f", f"{NAME}/" * DEPTH + "f")
        remove_tree(top)
    assert not top.exists()


def test_links_lead_nowhere(tmp_path: Path) -> None:
    top, other = tmp_path / "top", tmp_path / "other"
    (top / "d").mkdir(parents=True)
    other.mkdir()
    (other / "kept").touch()
    (top / "d/link").symlink_to(other)
    assert [name for _, name in Walk(top)] == ["top", "d", "link"]
    (tmp_path / "first").symlink_to(top)
    assert [name for _, name in Walk(tmp_path / "first")] == ["first"]
    remove_tree(tmp_path / "first")
    assert top.exists()
    remove_tree(top)
    assert not top.exists() and (other / "kept").exists()


def test_a_directory_that_is_moved_meanwhile_ends_what_is_found_in_it_alone(tmp_path: Path) -> None:
    """Held open it does not matter; what lies deeper is come back to by `..`, which is not where it was."""
    top, lost = tmp_path / "top", list[str]()
    top.mkdir()
    dig(top, 80, "d")
    (top / "e").mkdir()
    walk, found = Walk(top, lost.append), []
    for _, name in walk:
        found.append(name)
        if name == "f":
            os.rename(top / "/".join("d" * 75), tmp_path / "moved")
    assert lost == ["/".join("d" * n) for n in range(74, 61, -1)] and found[-1] == "e"


def test_what_cannot_be_entered_is_told(tmp_path: Path) -> None:
    lost = list[str]()
    (tmp_path / "top/d/inside").mkdir(parents=True)
    (tmp_path / "top/last").touch()
    with nothing_stays_open():
        for _, name in (walk := Walk(tmp_path / "top", lost.append)):
            if name == "d":
                (tmp_path / "top/d").rename(tmp_path / "away")
                (tmp_path / "top/d").symlink_to(tmp_path / "away")
    assert lost == ["d"] and walk.path() == ""
    assert list(Walk(tmp_path / "none")) == []


def test_a_directory_that_is_not_of_interest_is_passed_over(tmp_path: Path) -> None:
    (tmp_path / "top/d/inside").mkdir(parents=True)
    found, walk = [], Walk(tmp_path / "top")
    for _, name in walk:
        found.append(name)
        if name == "d":
            walk.skip()
    assert found == ["top", "d"]
