# SPDX-License-Identifier: Apache-2.0
"""What a machine of Firecracker is saved by: its memory without zeros, its state, and both as a stream."""

from __future__ import annotations

import os
import struct
import threading
from collections.abc import Iterator
from pathlib import Path

import pytest

from hypercontainer.errors import Unavailable
from hypercontainer.hypervisor.driver import Snapshot
from hypercontainer.hypervisor.firecracker import stream
from hypercontainer.hypervisor.firecracker.holes import punch, runs
from hypercontainer.hypervisor.firecracker.saving import STATE_MAX, Saving, read_state
from hypercontainer.hypervisor.memory_file import MemoryFile

_PAGE, _SIZE = 4096, 9 << 20  # bytes; more than two chunks are read at once


@pytest.fixture
def memory() -> Iterator[int]:
    """Written as a whole: something at its begin, over the border of two chunks, and at its end."""
    fd = os.memfd_create("memory")
    os.pwrite(fd, bytes(_SIZE), 0)
    for at in (0, (4 << 20) - _PAGE, 4 << 20, _SIZE - _PAGE):
        os.pwrite(fd, b"word", at)
    yield fd
    os.close(fd)


def test_what_is_not_zero(memory: int) -> None:
    whole = os.pread(memory, _SIZE, 0)
    found = list(runs(memory, _SIZE))
    assert [(at, len(data)) for at, data in found] == [
        (0, _PAGE), ((4 << 20) - _PAGE, _PAGE), (4 << 20, _PAGE), (_SIZE - _PAGE, _PAGE)
    ]  # fmt: skip
    punch(memory, _SIZE)
    assert list(runs(memory, _SIZE)) == found and os.pread(memory, _SIZE, 0) == whole
    assert os.fstat(memory).st_blocks * 512 == 4 * _PAGE


def test_a_file_that_its_process_made_endless_is_read_as_far_as_the_memory_goes(memory: int, tmp_path: Path) -> None:
    """The process may be its guest's by now: a thread would look through its zeros for ever."""
    found = list(runs(memory, _SIZE))
    os.ftruncate(memory, 1 << 62)
    os.pwrite(memory, b"beyond", _SIZE)
    assert list(runs(memory, _SIZE)) == found
    punch(memory, _SIZE)
    made = _read(_written(memory, tmp_path))
    assert os.fstat(made.memory).st_size == _SIZE
    os.close(made.memory)
    os.close(made.state)


def _written(memory: int, tmp_path: Path) -> Path:
    state, path = os.memfd_create("state"), tmp_path / "stream"
    os.write(state, b"devices")
    with open(path, "wb") as file:
        stream.write(file.fileno(), memory, _SIZE, state, threading.Event())
    os.close(state)
    return path


def _read(path: Path, size: int = _SIZE) -> Snapshot:
    with open(path, "rb") as file:
        return stream.read(file.fileno(), size)


def test_a_machine_comes_out_of_its_stream(memory: int, tmp_path: Path) -> None:
    path = _written(memory, tmp_path)
    assert path.stat().st_size < 5 * _PAGE
    made = _read(path)
    assert made.live and os.pread(made.state, 100, 0) == b"devices"
    assert os.pread(made.memory, _SIZE + 1, 0) == os.pread(memory, _SIZE, 0)
    os.close(made.memory)
    os.close(made.state)


@pytest.mark.parametrize("cut", [0, 7, 20, 5000, -1])
def test_one_that_is_cut_off_is_refused(memory: int, tmp_path: Path, cut: int) -> None:
    path, before = _written(memory, tmp_path), len(os.listdir("/proc/self/fd"))
    os.truncate(path, path.stat().st_size + cut if cut < 0 else cut)
    with pytest.raises(Unavailable, match="is not whole"):
        _read(path)
    assert len(os.listdir("/proc/self/fd")) == before


def test_one_of_another_machine_is_refused(memory: int, tmp_path: Path) -> None:
    path = _written(memory, tmp_path)
    with pytest.raises(Unavailable, match="is not whole"):
        _read(path, _SIZE // 2)
    beyond = stream.MAGIC + struct.pack("<QQ", _SIZE, 0) + struct.pack("<QQ", _SIZE, 1) + b"x" + bytes(16)
    path.write_bytes(beyond)
    with pytest.raises(Unavailable, match="is not whole"):
        _read(path)


def test_a_writer_that_was_given_up(memory: int) -> None:
    given_up, state = threading.Event(), os.memfd_create("state")
    given_up.set()
    with open(os.devnull, "wb") as file, pytest.raises(Unavailable, match="given up"):
        stream.write(file.fileno(), memory, _SIZE, state, given_up)
    os.close(state)


def test_a_state_is_read_once(tmp_path: Path) -> None:
    path, target = tmp_path / "state", os.memfd_create("state")
    path.write_bytes(b"devices")
    read_state(path, target)
    assert os.pread(target, 100, 0) == b"devices" and not path.exists()
    os.close(target)


def test_a_state_that_is_another_file_is_not_read(tmp_path: Path) -> None:
    """The process may be its guest's by now: it would have hyperd read what it may not."""
    secret, path, target = tmp_path / "secret", tmp_path / "state", os.memfd_create("state")
    secret.write_text("word")
    path.symlink_to(secret)
    with pytest.raises(Unavailable, match="cannot be read"):
        read_state(path, target)
    path.unlink()
    os.link(secret, path)
    with pytest.raises(Unavailable, match="is no state"):
        read_state(path, target)
    os.mkfifo(path)
    with pytest.raises(Unavailable, match="is no state"):
        read_state(path, target)
    path.touch()
    os.truncate(path, STATE_MAX + 1)
    with pytest.raises(Unavailable, match="is no state"):
        read_state(path, target)
    assert os.fstat(target).st_size == 0
    os.close(target)


def test_only_the_file_that_a_process_was_given_is_opened(memory: int) -> None:
    file = MemoryFile.of(memory)
    fd = file.open(os.getpid())
    assert MemoryFile.of(fd)[1:] == file[1:]
    os.close(fd)
    with pytest.raises(Unavailable, match="does not have the file"):
        file._replace(inode=file.inode + 1).open(os.getpid())
    with pytest.raises(Unavailable, match="has ended"):
        Saving(Path("/machine"), file._replace(descriptor=99999), _SIZE).opened(os.getpid())


def test_a_machine_of_an_earlier_version_has_no_file() -> None:
    assert Saving.noted({"inside": "/machine"}) is None
    noted = Saving.noted({"inside": "/machine", "memory": [5, 1, 2], "memorySize": _SIZE})
    assert noted == Saving(Path("/machine"), MemoryFile(5, 1, 2), _SIZE)
