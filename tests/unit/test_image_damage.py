# SPDX-License-Identifier: Apache-2.0
"""Layers with broken headers: whatever they say, they are converted or refused, by an error that is meant."""

from __future__ import annotations

import io
import os
import random
import subprocess
from collections import Counter
from pathlib import Path

import pytest

from hypercontainer.errors import InvalidArgument
from hypercontainer.images.erofs.writer import Writer
from hypercontainer.images.guard import Guard
from hypercontainer.images.limits import Budget, Limits
from hypercontainer.images.tree import Tree

from .. import erofs

FORMATS = {
    "gnu": ["--format=gnu", "--sparse"],
    "pax": ["--format=posix", "--sparse", "--sparse-version=1.0"],
    "pax-sparse-0.0": ["--format=posix", "--sparse", "--sparse-version=0.0"],
    "pax-sparse-0.1": ["--format=posix", "--sparse", "--sparse-version=0.1"],
}
FIELDS = [
    0,
    100,
    108,
    124,
    125,
    135,
    156,
    257,
    345,
    386,
    482,
    483,
]  # offsets in a header where something depends on one byte
BYTES = b"\0\x30\x37\x80\xffLKxgS"
SIZES = [b"\x80" + b"\xff" * 11, b"\xff" * 12, b"77777777777\0", b"00000000000\0", b"-1".ljust(12, b"\0")]


@pytest.fixture(scope="module")
def tree(tmp_path_factory: pytest.TempPathFactory) -> Path:
    top = tmp_path_factory.mktemp("tree")
    (top / "d").mkdir()
    (top / "d" / ("n" * 200)).write_text("a long name")
    with open(top / "sparse", "wb") as f:
        for offset in range(0, 30_000_000, 3_000_000):  # more pieces than a header holds
            f.seek(offset)
            f.write(b"x")
    os.link(top / "sparse", top / "hard")
    (top / "link").symlink_to("d")
    return top


def damaged(data: bytes, chance: random.Random) -> bytes:
    """With a few headers changed; most have a right checksum again."""
    out = bytearray(data)
    for _ in range(chance.randint(1, 6)):
        at = chance.randrange(len(out) // 512) * 512
        kind = chance.randrange(4)
        if kind == 0:
            out[at + chance.choice(FIELDS)] = chance.choice(BYTES)
        elif kind == 1:
            out[at + 124 : at + 136] = chance.choice(SIZES)
        elif kind == 2:
            out[chance.randrange(len(out))] = chance.randrange(256)
        else:
            other = chance.randrange(len(out) // 512) * 512
            out[at:at] = out[other : other + 512]
        if chance.random() < 0.9:
            out[at + 148 : at + 156] = b" " * 8
            out[at + 148 : at + 156] = b"%06o\0 " % sum(out[at : at + 512])
    return bytes(out)


@pytest.mark.parametrize("format_", FORMATS)
def test_damaged_layers(tree: Path, tmp_path: Path, format_: str) -> None:
    whole = subprocess.run(["tar", "-C", tree, *FORMATS[format_], "-c", "."], capture_output=True, check=True).stdout
    chance, ends = random.Random(format_), Counter[str]()
    for _ in range(300):
        data = damaged(whole, chance)
        try:
            guard, cut = Guard(Budget(Limits(), len(data))), chance.randrange(1, 5000)
            for at in range(0, len(data), cut):
                guard.feed(data[at : at + cut])
            merged = Tree(Budget(Limits(), len(data)))
            merged.apply(0, io.BytesIO(data), len(data))
            with open(tmp_path / "layer", "wb") as f:
                f.write(data)
            with open(tmp_path / "layer", "rb") as f, open(tmp_path / "disk", "w+b") as disk:
                Writer(disk.fileno(), [(f.fileno(), 0)]).write(merged)
            assert erofs.tree(tmp_path / "disk")
            ends["converted"] += 1
        except InvalidArgument:
            ends["refused"] += 1
    assert min(ends["converted"], ends["refused"]) > 10, ends
