# SPDX-License-Identifier: Apache-2.0
"""Golden frames, read by the guest's own decoder and by ours: both must find the same."""

from __future__ import annotations

import subprocess
from pathlib import Path

import pytest

from hypercontainer.protocol.constants import FRAME_HEADER, Tag, Type
from hypercontainer.protocol.streams import decode_data, decode_window
from hypercontainer.protocol.wire import decode_attrs

NESTED = {Tag.PROCESS, Tag.INTERFACE, Tag.SYSCTL, Tag.MOUNT, Tag.FILE, Tag.RLIMIT, Tag.STATS}
GOLDEN = Path(__file__).parents[1] / "golden"


@pytest.fixture(scope="module")
def decoder(tmp_path_factory: pytest.TempPathFactory, repository: Path) -> Path:
    out = tmp_path_factory.mktemp("golden") / "golden"
    tree = repository / "hyperstart"
    sources = [tree / "tests/golden.c", tree / "src/wire.c", tree / "src/util.c"]
    subprocess.run(
        [
            "gcc",
            "-D_GNU_SOURCE",
            "-std=c11",
            "-Wall",
            "-Wextra",
            "-Werror",
            f"-I{tree / 'include'}",
            "-o",
            out,
            *sources,
        ],
        check=True,
    )
    return out


def _lines(data: bytes, depth: int) -> list[str]:
    out = []
    pad = "  " * depth
    for tag, value in decode_attrs(data):
        if tag in NESTED:
            out += [f"{pad}{tag} {{", *_lines(value, depth + 1), f"{pad}}}"]
        else:
            out.append(f"{pad}{tag} {value.hex()}")
    return out


def described(frame: bytes) -> str:
    """What the C program prints, from our decoder."""
    kind, id_ = int.from_bytes(frame[4:6], "little"), int.from_bytes(frame[8:12], "little")
    body = frame[FRAME_HEADER:]
    lines = [f"type {kind} id {id_}"]
    if kind == Type.DATA:
        d = decode_data(body)
        lines.append(f"stream {d.stream} flags {int(d.eof)} offset {d.offset} bytes {len(d.payload)}")
    elif kind == Type.WINDOW:
        w = decode_window(body)
        lines.append(f"stream {w.stream} flags {int(w.closed)} offset {w.ack} limit {w.limit}")
    else:
        lines += _lines(body, 0)
    return "\n".join(lines) + "\n"


@pytest.mark.parametrize("path", sorted(GOLDEN.glob("*.bin")), ids=lambda p: p.stem)
def test_both_decoders_agree(decoder: Path, path: Path) -> None:
    done = subprocess.run([decoder], input=path.read_bytes(), capture_output=True, check=True)
    assert done.stdout.decode() == described(path.read_bytes())


def test_there_are_golden_frames() -> None:
    assert len(list(GOLDEN.glob("*.bin"))) >= 7
