# SPDX-License-Identifier: Apache-2.0
"""Files of podfiles that are given by a URI."""

from __future__ import annotations

import asyncio
import os
from pathlib import Path

import pytest

from hypercontainer.engine.fetch import SIZE_MAX, fetch_all
from hypercontainer.errors import InvalidArgument, NotFound


async def test_files_of_this_host(tmp_path: Path) -> None:
    (tmp_path / "a file").write_bytes(b"content")
    uri = f"file://{tmp_path}/a%20file"
    assert await fetch_all([uri, uri]) == {uri: b"content"}


async def test_what_is_no_file_is_refused_at_once(tmp_path: Path) -> None:
    """A FIFO without a writer used to stop the whole daemon."""
    os.mkfifo(tmp_path / "fifo")
    for path in (tmp_path / "fifo", Path("/dev/zero")):
        async with asyncio.timeout(30):
            with pytest.raises(InvalidArgument, match="is no regular file"):
                await fetch_all([f"file://{path}"])
    with pytest.raises(NotFound, match="Is a directory"):
        await fetch_all([f"file://{tmp_path}"])
    with pytest.raises(NotFound, match="No such file"):
        await fetch_all([f"file://{tmp_path}/none"])


async def test_too_large_a_file(tmp_path: Path) -> None:
    with open(tmp_path / "large", "wb") as f:
        f.truncate(SIZE_MAX + 1)
    with pytest.raises(InvalidArgument, match="is larger than 16 MiB: use a volume for it"):
        await fetch_all([f"file://{tmp_path}/large"])
