# SPDX-License-Identifier: Apache-2.0
"""Directories over a byte stream: a guest's messages of FUSE, put before a server that has them on a queue."""

from __future__ import annotations

import contextlib
import errno
import mmap
import os
import select
import socket
import struct
import subprocess
import time
from collections.abc import AsyncIterator
from pathlib import Path

import pytest

from hypercontainer.errors import Unavailable
from hypercontainer.jail import helpers
from hypercontainer.jail.binaries import binary
from hypercontainer.jail.hyperjail import HyperJail
from hypercontainer.jail.jail import Started
from hypercontainer.jail.plain import PlainJail
from hypercontainer.sys import process, users
from hypercontainer.volumes import share

LIMIT = 30.0 * float(os.environ.get("HYPER_TEST_SLOWNESS", "1"))  # seconds
# https://github.com/torvalds/linux/blob/v6.1/include/uapi/linux/fuse.h
LOOKUP, FORGET, OPEN, READ, RELEASE, INIT = 1, 2, 14, 15, 18, 26
# https://www.qemu.org/docs/master/interop/vhost-user.html
GET_FEATURES, SET_MEM_TABLE, SET_VRING_KICK, GET_PROTOCOL_FEATURES = 1, 5, 12, 15
QUEUE, SLOT = 848, 4096  # in the memory that a server is given: of requests, and where the first message lies
_HEADER, _ANSWER = struct.Struct("<IIQQIIII"), struct.Struct("<IiQ")


class Kernel:
    """A guest's: it asks, one thing after another."""

    def __init__(self, stream: socket.socket) -> None:
        self.stream = stream
        self._unique = 0

    def send(self, kind: int, node: int, body: bytes = b"") -> None:
        self._unique += 2
        self.stream.sendall(_HEADER.pack(_HEADER.size + len(body), kind, self._unique, node, 0, 0, 0, 0) + body)

    def _receive(self, size: int) -> bytes:
        found = b""
        while len(found) < size:
            data = self.stream.recv(size - len(found))
            if not data:
                raise EOFError
            found += data
        return found

    def answer(self) -> tuple[int, bytes]:
        """An error's number, and what was asked for."""
        length, error, unique = _ANSWER.unpack(self._receive(_ANSWER.size))
        assert unique == self._unique
        return -error, self._receive(length - _ANSWER.size)

    def ask(self, kind: int, node: int, body: bytes = b"") -> tuple[int, bytes]:
        self.send(kind, node, body)
        return self.answer()

    def find(self, *path: str) -> int:
        """The number by which the server knows it."""
        node = 1
        for name in path:
            error, found = self.ask(LOOKUP, node, name.encode() + b"\0")
            assert not error, (name, os.strerror(error))
            (node,) = struct.unpack_from("<Q", found)
        return node

    def contents(self, node: int, size: int) -> bytes:
        error, opened = self.ask(OPEN, node, struct.pack("<II", os.O_RDONLY, 0))
        assert not error
        (handle,) = struct.unpack_from("<Q", opened)
        error, data = self.ask(READ, node, struct.pack("<QQIIQII", handle, 0, size, 0, 0, 0, 0))
        assert not error
        return data


@pytest.fixture
async def kernel(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> AsyncIterator[Kernel]:
    """Of a guest that is served `tree`; afterwards the server has ended."""
    if not share.find_virtiofsd():
        pytest.skip("virtiofsd is not installed")
    jail = HyperJail(tmp_path / "jail")
    monkeypatch.setattr(helpers, "_jail", jail if not os.geteuid() and not jail.hindrance() else PlainJail())
    (tmp_path / "tree").mkdir()
    (tmp_path / "tree/word").write_bytes(b"of the host" * 20_000)
    ours, theirs = socket.socketpair()

    async def opened() -> socket.socket:
        return theirs

    entries = [share.Entry(tmp_path / "tree", read_only=False)]
    server = await share.serve(
        str(share.find_virtiofsd()), tmp_path, entries, ["d"], (), opened, user=users.pick(), root=os.geteuid() == 0
    )
    ours.settimeout(LIMIT)
    with ours:
        made = Kernel(ours)
        error, _ = made.ask(INIT, 0, struct.pack("<IIII", 7, 36, 1 << 17, 0))
        assert not error, (tmp_path / share.SERVER_LOG).read_text()
        assert share.noted(tmp_path) == (server, ["d"])
        yield made
    pid = os.pidfd_open(server.pid) if process.start_time(server.pid) == server.started else None
    if pid is not None:  # it ends by itself, with the stream
        with contextlib.closing(os.fdopen(pid, "rb", 0)):
            assert select.select([pid], [], [], LIMIT)[0], "the server goes on"
    assert share.noted(tmp_path) is None


async def test_files_are_read_as_far_as_was_asked(kernel: Kernel) -> None:
    node = kernel.find("0", "word")
    assert kernel.contents(node, 64) == (b"of the host" * 6)[:64]
    assert len(kernel.contents(node, 1 << 17)) == 1 << 17


async def test_what_is_not_there_and_what_is_forgotten(kernel: Kernel) -> None:
    """A forgotten one has no answer: the next is that of the next question."""
    node = kernel.find("0", "word")
    for _ in range(100):
        kernel.send(FORGET, node, struct.pack("<Q", 0))
    assert kernel.ask(LOOKUP, 1, b"none\0")[0] == errno.ENOENT
    error, _ = kernel.ask(LOOKUP, 1, b"..\0")
    assert error or kernel.find("0")  # of the tree's root there is nothing above


@pytest.mark.parametrize("length", [0, 39, (256 << 10) + 1, 0xFFFFFFFF])
async def test_what_is_no_message_ends_the_stream(kernel: Kernel, length: int) -> None:
    kernel.stream.sendall(struct.pack("<II", length, LOOKUP) + bytes(32))
    with pytest.raises((EOFError, ConnectionResetError)):
        kernel.answer()


async def test_nonsense_is_answered_with_an_error(kernel: Kernel) -> None:
    """Also more to read than a message may have."""
    assert kernel.ask(9999, 1)[0] == errno.ENOSYS
    node = kernel.find("0", "word")
    error, opened = kernel.ask(OPEN, node, struct.pack("<II", os.O_RDONLY, 0))
    asked = opened[:8] + struct.pack("<QIIQII", 0, 0xFFFFFFF0, 0, 0, 0, 0)
    kernel.send(READ, node, asked)
    with contextlib.suppress(EOFError, ConnectionResetError, AssertionError):
        error, data = kernel.answer()
        assert error or len(data) <= 256 << 10


async def test_many_at_a_time(kernel: Kernel) -> None:
    """More than the server takes at once."""
    for _ in range(200):
        kernel.send(LOOKUP, 1, b"none\0")
    for _ in range(200):
        length, error, _unique = _ANSWER.unpack(kernel._receive(_ANSWER.size))
        assert (length, -error) == (_ANSWER.size, errno.ENOENT)


async def test_nobody_goes_on_with_a_server_that_is_of_no_use(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """It ends when its stream cannot be opened, though not at once."""
    ours, theirs = socket.socketpair()

    async def started(*_: object, **__: object) -> tuple[socket.socket, Started]:
        start = process.start_time(os.getpid())  # one that goes on
        assert start is not None
        return ours, Started(os.getpid(), start)

    async def refused() -> socket.socket:
        raise Unavailable("there is no stream")

    monkeypatch.setattr(share, "start_virtiofsd", started)
    with theirs, pytest.raises(Unavailable, match="there is no stream"):
        await share.serve("virtiofsd", tmp_path, [], ["d"], (), refused, user=0, root=True)
    assert share.noted(tmp_path) is None and ours.fileno() == -1


def answer_a_driver(server: socket.socket) -> tuple[mmap.mmap, int]:
    """As virtiofsd, until the queues have started: their memory, and what tells that there are requests."""
    memory: mmap.mmap | None = None
    kicks: list[int] = []
    while len(kicks) < 2:
        head, given, _, _ = socket.recv_fds(server, 12, 1)
        request, _, size = struct.unpack("<III", head)
        body = server.recv(size, socket.MSG_WAITALL) if size else b""
        if request in (GET_FEATURES, GET_PROTOCOL_FEATURES):
            server.sendall(struct.pack("<IIIQ", request, 5, 8, 1 << 30 | 1 << 32))
        elif request == SET_MEM_TABLE:
            memory = mmap.mmap(given[0], struct.unpack_from("<Q", body, 16)[0])
            os.close(given[0])
        elif request == SET_VRING_KICK:
            kicks += given
        else:
            for fd in given:
                os.close(fd)
    os.close(kicks[0])
    assert memory is not None
    return memory, kicks[1]


def test_a_server_that_changes_a_message_while_it_comes() -> None:
    """It gets what the guest has sent, and nothing lies where there is no room for it."""
    ours, stream = socket.socketpair()
    server, asked = socket.socketpair()
    fds = stream.fileno(), asked.fileno()
    with subprocess.Popen([binary("hyperjail-files"), *map(str, fds)], pass_fds=fds) as carrier, ours, server:
        for handed in (stream, asked):
            handed.close()
        server.settimeout(LIMIT)
        memory, kick = answer_a_driver(server)
        message = _HEADER.pack(100, LOOKUP, 2, 1, 0, 0, 0, 0) + b"x" * 60
        ours.sendall(message[:60])
        late = time.monotonic() + LIMIT
        while memory[SLOT + 59 : SLOT + 60] != b"x":
            assert time.monotonic() < late and carrier.poll() is None
        memory[SLOT : SLOT + 4] = struct.pack("<I", 41)  # less than has come
        ours.sendall(message[60:] + _HEADER.pack(_HEADER.size, FORGET, 4, 1, 0, 0, 0, 0))
        assert select.select([kick], [], [], LIMIT)[0]
        assert struct.unpack_from("<QI", memory, QUEUE) == (SLOT, 100)
        os.close(kick)
