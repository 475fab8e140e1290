# SPDX-License-Identifier: Apache-2.0
"""Digests of files that stay, and of files that change."""

from __future__ import annotations

import hashlib
import os
from pathlib import Path

import pytest

from hypercontainer.sys import digests


def sha256(text: bytes) -> str:
    return hashlib.sha256(text).hexdigest()


@pytest.fixture
def read(monkeypatch: pytest.MonkeyPatch) -> list[Path]:
    """The files that were read, in their order."""
    found: list[Path] = []
    digest = digests._digest
    monkeypatch.setattr(digests, "_digest", lambda path: (found.append(path), digest(path))[1])
    return found


async def test_a_file_is_read_once(tmp_path: Path, read: list[Path]) -> None:
    one, two = tmp_path / "one", tmp_path / "two"
    one.write_bytes(b"1")
    two.write_bytes(b"2")
    known = digests.FileDigests()
    for _ in range(3):
        assert await known.of(one) == sha256(b"1") and await known.of(two) == sha256(b"2")
    assert read == [one, two]


async def test_one_that_changes_is_read_again(tmp_path: Path, read: list[Path]) -> None:
    """In place, to the same size and with the time that it had; or as another file of that name."""
    path, other = tmp_path / "file", tmp_path / "other"
    path.write_bytes(b"old")
    about = path.stat()
    known = digests.FileDigests()
    assert await known.of(path) == sha256(b"old")
    path.write_bytes(b"new")
    os.utime(path, ns=(about.st_atime_ns, about.st_mtime_ns))
    while path.stat().st_ctime_ns == about.st_ctime_ns:  # the clock of the file system has not ticked
        os.utime(path, ns=(about.st_atime_ns, about.st_mtime_ns))
    assert await known.of(path) == sha256(b"new")
    other.write_bytes(b"end")
    other.rename(path)
    assert await known.of(path) == sha256(b"end")
    assert len(read) == 3


async def test_a_file_that_is_gone(tmp_path: Path) -> None:
    path = tmp_path / "file"
    path.write_bytes(b"x")
    known = digests.FileDigests()
    await known.of(path)
    path.unlink()
    with pytest.raises(FileNotFoundError):
        await known.of(path)
