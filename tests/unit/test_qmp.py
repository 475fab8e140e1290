# SPDX-License-Identifier: Apache-2.0
"""QMP against a server that speaks it."""

from __future__ import annotations

import array
import asyncio
import contextlib
import json
import os
import socket
from collections.abc import AsyncIterator, Callable
from pathlib import Path
from typing import Any

import pytest

from hypercontainer.errors import Conflict, InvalidState, Unavailable
from hypercontainer.hypervisor.driver import Disk, RbdDisk
from hypercontainer.hypervisor.qemu import live_disks, snapshots
from hypercontainer.hypervisor.qemu.monitor import Command, Monitor

GREETING = b'{"QMP": {"version": {}, "capabilities": []}}\r\n'
Answer = Callable[[dict[str, Any]], list[dict[str, Any]]]


class Server:
    """Answers as it is told; keeps what it got, descriptors too."""

    def __init__(self, path: Path) -> None:
        self.path = path
        self.got: list[dict[str, Any]] = []
        self.contents: list[bytes] = []
        self.raw: bytes | None = None  # instead of an answer
        self.answer: Answer = lambda command: [{"return": {}}]
        self._sock = socket.socket(socket.AF_UNIX)
        self._sock.bind(str(path))
        self._sock.listen(1)
        self._sock.setblocking(False)

    async def serve(self) -> None:
        loop = asyncio.get_running_loop()
        while True:
            conn, _ = await loop.sock_accept(self._sock)
            with conn:
                await loop.sock_sendall(conn, GREETING[:10])
                await loop.sock_sendall(conn, GREETING[10:])
                await self._talk(loop, conn)

    async def _talk(self, loop: asyncio.AbstractEventLoop, conn: socket.socket) -> None:
        buffer = b""
        while True:
            readable = asyncio.Event()
            loop.add_reader(conn, readable.set)
            await readable.wait()
            loop.remove_reader(conn)
            data, ancillary, _, _ = conn.recvmsg(4096, socket.CMSG_SPACE(4))
            for _, _, raw in ancillary:
                fd = array.array("i", raw)[0]
                self.contents.append(os.pread(fd, 100, 0))
                os.close(fd)
            if not data:
                return
            buffer += data
            *lines, buffer = buffer.split(b"\n")
            for line in lines:
                command = json.loads(line)
                self.got.append(command)
                if self.raw is not None:
                    with contextlib.suppress(ConnectionError):
                        await loop.sock_sendall(conn, self.raw)
                    return
                answers = [{"return": {}}] if command["execute"] == "qmp_capabilities" else self.answer(command)
                for answer in answers:
                    await loop.sock_sendall(conn, json.dumps(answer).encode() + b"\r\n")


@pytest.fixture
async def server(tmp_path_factory: pytest.TempPathFactory) -> AsyncIterator[Server]:
    server = Server(tmp_path_factory.mktemp("q") / "q.sock")
    task = asyncio.create_task(server.serve())
    yield server
    task.cancel()
    await asyncio.gather(task, return_exceptions=True)
    server._sock.close()


async def test_answers_come_with_events_between(server: Server) -> None:
    server.answer = lambda c: [
        {"event": "STOP"},
        {"return": {"status": c["arguments"]["n"]}},
        {"event": "RESUME", "data": {"a": 1}},
    ]
    async with Monitor(server.path) as monitor:
        found = await monitor.execute_all([Command("query", {"n": n}) for n in range(3)])
        assert [f["status"] for f in found] == [0, 1, 2]
        assert await monitor.event("RESUME", 1) == {"a": 1}
        with pytest.raises(TimeoutError):
            await monitor.event("SHUTDOWN", 0.01)


async def test_a_refusal_has_qemus_words(server: Server) -> None:
    server.answer = lambda c: [{"error": {"class": "GenericError", "desc": "no such node"}}]
    async with Monitor(server.path) as monitor:
        with pytest.raises(Unavailable, match="QEMU did not take 'blockdev-del': no such node"):
            await monitor.execute("blockdev-del")


@pytest.mark.parametrize(
    "answer", [b"no JSON\r\n", b'{"return": "\xff"}\r\n', b"[1]\n", b'{"id": 1}\n', b"{" * (5 << 20)]
)
async def test_what_is_no_answer_is_said(server: Server, answer: bytes) -> None:
    """A QEMU that was taken over says what it likes: that ends the conversation, and nothing else."""
    async with Monitor(server.path) as monitor:
        server.raw = answer
        with pytest.raises(Unavailable, match="QEMU"):
            await monitor.execute("query-status")


async def test_a_complaint_of_the_human_monitor(server: Server) -> None:
    server.answer = lambda c: [{"return": "could not set up host forwarding rule\r\n"}]
    async with Monitor(server.path) as monitor:
        with pytest.raises(Conflict, match="could not set up host forwarding rule"):
            await monitor.human("hostfwd_add net0 tcp::80-:80")


async def test_disks_are_exchanged_with_their_descriptors(server: Server, tmp_path: Path) -> None:
    (tmp_path / "a").write_bytes(b"image")
    (tmp_path / "b").write_bytes(b"scratch")
    disks = [Disk("image", tmp_path / "a", True), Disk("scratch", tmp_path / "b", False)]
    old: dict[str, str] = {}
    async with Monitor(server.path) as monitor:
        await live_disks.exchange(monitor, disks, old)
        first = dict(old)
        await live_disks.exchange(monitor, disks[1:], old)
    assert server.contents == [b"image", b"scratch", b"scratch"]
    names = [c["execute"] for c in server.got[1:]]
    assert names == ["add-fd", "blockdev-add"] * 2 + ["blockdev-reopen"] + [
        "add-fd",
        "blockdev-add",
        "blockdev-reopen",
        "blockdev-del",
    ]
    nodes = server.got[5]["arguments"]["options"]
    assert [(n["node-name"], n["file"], n["read-only"]) for n in nodes] == [
        ("disk-image", first["image"], True), ("disk-scratch", first["scratch"], False)]  # fmt: skip
    assert server.got[-1]["arguments"] == {"node-name": first["scratch"]} and old["scratch"] != first["scratch"]


@pytest.mark.parametrize("fails", ["blockdev-add", "device_add", ""])
async def test_the_key_of_a_disk_goes_with_it(server: Server, fails: str) -> None:
    """Else the same disk comes no second time."""
    keys: set[str] = set()

    def answer(command: dict[str, Any]) -> list[dict[str, Any]]:
        name, id_ = command["execute"], command.get("arguments", {}).get("id", "")
        if name == fails or (name == "object-add" and id_ in keys):
            return [{"error": {"desc": "no"}}]
        if name == "query-named-block-nodes":
            return [{"return": [{"node-name": "disk-v"}]}]
        keys.symmetric_difference_update({id_} if name.startswith("object-") else ())
        gone = [{"event": "DEVICE_DELETED", "data": {"device": id_}}] if name == "device_del" else []
        return [{"return": {}}, *gone]

    server.answer = answer
    disk = RbdDisk("v", "pool", "image", ("host:1",), keyring="a2V5")
    async with Monitor(server.path) as monitor:
        for _ in range(2):
            with pytest.raises((Unavailable, InvalidState)) if fails else contextlib.nullcontext():
                await live_disks.add(monitor, disk)
            if not fails:
                assert keys == {"disk-v-key"}
                await live_disks.remove(monitor, "v")
            assert keys == set()


async def test_a_machine_that_is_not_taken_up(server: Server, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(snapshots, "_LOAD_TIMEOUT", 0.01)
    async with Monitor(server.path) as monitor:
        with pytest.raises(Unavailable, match="did not take the saved machine up"):
            await snapshots.load(monitor, 7)


async def test_a_machine_that_cannot_be_saved(server: Server, tmp_path: Path) -> None:
    failed = [
        {"return": {}},
        {"event": "MIGRATION", "data": {"status": "active"}},
        {"event": "MIGRATION", "data": {"status": "failed"}},
    ]
    server.answer = lambda c: failed if c["execute"] == "migrate" else [{"return": {}}]
    fd = os.open(tmp_path, os.O_RDONLY | os.O_DIRECTORY)
    (tmp_path / "state").write_bytes(b"here")
    state = os.open(tmp_path / "state", os.O_RDONLY)
    try:
        async with Monitor(server.path) as monitor:
            with pytest.raises(Unavailable, match="its migration is 'failed'"):
                await snapshots.save(monitor, state)
        assert server.contents == [b"here"]
    finally:
        os.close(fd)
        os.close(state)


async def test_nobody_listens(tmp_path: Path) -> None:
    with pytest.raises(Unavailable, match="QEMU's monitor cannot be reached"):
        async with Monitor(tmp_path / "none.sock"):
            pass


async def test_it_ends_in_the_middle(server: Server) -> None:
    async with Monitor(server.path) as monitor:
        monitor._sock.shutdown(socket.SHUT_RD)
        with pytest.raises(Unavailable, match="did not answer 'query-status'"):
            await monitor.execute("query-status")
