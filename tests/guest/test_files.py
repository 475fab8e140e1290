# SPDX-License-Identifier: Apache-2.0
"""Files that are listed, removed, renamed and watched by hyperstart."""

from __future__ import annotations

import asyncio
import os
from pathlib import Path

import pytest

from hypercontainer.guest.agent import FilesVerb
from hypercontainer.protocol.constants import Builtin
from hypercontainer.protocol.messages import GuestProcess

from .conftest import Sink
from .test_processes import Start

TIMEOUT = 30  # seconds


async def call(start: Start, verb: FilesVerb, path: Path, option: str = "") -> tuple[int, str, str]:
    async with start() as guest:
        session = await guest.session()
        sink = Sink()
        handle = await session.start(GuestProcess(args=(verb, str(path), option), builtin=Builtin.FILES), sink)
        code = (await asyncio.wait_for(handle.exited, TIMEOUT)).shell_code
        await asyncio.wait_for(handle.drained.wait(), TIMEOUT)
        session.close()
    return code, sink.data[1].decode(errors="surrogateescape"), sink.data[2].decode()


async def test_a_list(start: Start, tmp_path: Path) -> None:
    (tmp_path / "d/e").mkdir(parents=True)
    (tmp_path / "d/e/deep").write_text("12345")
    (tmp_path / "d/link").symlink_to("e/deep")
    os.mkfifo(tmp_path / "d/a pipe", 0o600)
    os.utime(tmp_path / "d/e/deep", (7, 7))
    (tmp_path / "d/e/deep").chmod(0o640)

    async def names(depth: str) -> dict[str, str]:
        code, out, _ = await call(start, "list", tmp_path / "d", depth)
        assert code == 0
        fields = out.split("\0")[:-1]
        heads = [head.split(" ", 6) for head in fields[::2]]
        return {h[6]: f"{h[0]} {target}".strip() for h, target in zip(heads, fields[1::2], strict=True)}

    assert await names("1") == {"e": "d", "link": "l e/deep", "a pipe": "p"}
    assert set(await names("2")) == {"e", "link", "a pipe", "e/deep"}
    _, out, _ = await call(start, "list", tmp_path / "d/e", "1")
    assert out == f"f 640 {os.getuid()} {os.getgid()} 5 7 deep\0\0"


async def test_removed_and_renamed(start: Start, tmp_path: Path) -> None:
    (tmp_path / "d/e").mkdir(parents=True)
    (tmp_path / "d/e/file").touch()
    code, _, said = await call(start, "remove", tmp_path / "d")
    assert code == 1 and "not empty" in said
    assert (await call(start, "rename", tmp_path / "d", str(tmp_path / "new")))[0] == 0
    assert (tmp_path / "new/e/file").exists()
    assert (await call(start, "remove", tmp_path / "new/e/file"))[0] == 0
    assert (await call(start, "remove", tmp_path / "new", "recursive"))[0] == 0
    assert list(tmp_path.iterdir()) == []


async def test_a_tree_is_removed_however_deep_and_nothing_beside_it(start: Start, tmp_path: Path) -> None:
    """Deeper than a path is long."""
    (tmp_path / "kept").mkdir()
    (tmp_path / "kept/file").touch()
    top = tmp_path / "top"
    top.mkdir()
    (top / "link").symlink_to(tmp_path / "kept")
    at = os.open(top, os.O_RDONLY)
    for _ in range(40):
        os.mkdir("d" * 200, dir_fd=at)
        below = os.open("d" * 200, os.O_RDONLY, dir_fd=at)
        os.close(at)
        at = below
    os.close(at)
    assert await call(start, "remove", top, "recursive") == (0, "", "")
    assert list(tmp_path.iterdir()) == [tmp_path / "kept"] and (tmp_path / "kept/file").exists()
    (tmp_path / "link").symlink_to(tmp_path / "kept")
    assert (await call(start, "remove", tmp_path / "link", "recursive"))[0] == 0
    assert list(tmp_path.iterdir()) == [tmp_path / "kept"] and (tmp_path / "kept/file").exists()


@pytest.mark.parametrize(("verb", "option"), [("list", "1"), ("remove", ""), ("rename", "/x"), ("watch", "")])
async def test_what_is_not_there(start: Start, tmp_path: Path, verb: FilesVerb, option: str) -> None:
    code, out, said = await call(start, verb, tmp_path / "none", option)
    assert (code, out) == (2, "") and "No such file" in said


async def test_watched(start: Start, tmp_path: Path) -> None:
    """Directories that come later are watched, too; it ends with the one that was asked for."""
    root = tmp_path / "root"
    (root / "old").mkdir(parents=True)
    async with start() as guest:
        session = await guest.session()
        sink = Sink()
        handle = await session.start(GuestProcess(args=("watch", str(root), "recursive"), builtin=Builtin.FILES), sink)

        async def seen(*records: str) -> None:
            async with asyncio.timeout(TIMEOUT):
                while any(r.encode() + b"\0" not in sink.data[1] for r in records):
                    await asyncio.sleep(0.005)

        await seen("R ")
        (root / "old/file").write_text("x")
        await seen(f"C {root}/old/file", f"W {root}/old/file")
        (root / "new/sub").mkdir(parents=True)
        await seen(f"C {root}/new/sub")
        (root / "new/sub/file").touch()
        await seen(f"C {root}/new/sub/file")
        (root / "new").rename(root / "other")
        await seen(f"M {root}/new", f"C {root}/other", f"C {root}/other/sub/file")
        (root / "other/sub/file").unlink()
        await seen(f"D {root}/other/sub/file")
        for path in (root / "other/sub", root / "other", root / "old/file", root / "old", root):
            path.rmdir() if path.is_dir() else path.unlink()
        assert (await asyncio.wait_for(handle.exited, TIMEOUT)).shell_code == 0
        await seen(f"E {root}")
        session.close()
