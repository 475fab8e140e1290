# SPDX-License-Identifier: Apache-2.0
"""Output that goes to syslog: over sockets of this host, datagrams and streams, and where nobody listens."""

from __future__ import annotations

import asyncio
import contextlib
import os
import re
import socket
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest

from hypercontainer.engine.log_sinks import sender, syslog
from hypercontainer.errors import Unsupported
from hypercontainer.model.specs import LogOptions

from .stage import Stage

SOON = 5.0  # virtual seconds in which what waits is sent, and what failed is tried again
KINDS = {"udp": (socket.AF_INET, socket.SOCK_DGRAM), "tcp": (socket.AF_INET, socket.SOCK_STREAM),
         "unix": (socket.AF_UNIX, socket.SOCK_DGRAM), "stream": (socket.AF_UNIX, socket.SOCK_STREAM)}  # fmt: skip


class Server:
    """What a syslog daemon would be."""

    def __init__(self, kind: str, path: Path) -> None:
        family, type_ = KINDS[kind]
        self._sock, self._kind = socket.socket(family, type_), kind
        self._sock.setblocking(False)
        self._sock.bind(str(path) if family == socket.AF_UNIX else ("127.0.0.1", 0))
        self._clients: list[socket.socket] = []
        if type_ == socket.SOCK_STREAM:
            self._sock.listen()
        port = "" if family == socket.AF_UNIX else f":{self._sock.getsockname()[1]}"
        self.address = f"unix://{path}" if not port else f"{kind}://127.0.0.1{port}"

    def messages(self) -> list[bytes]:
        """All that came since the last time."""
        if self._kind in ("udp", "unix"):
            return list(iter(lambda: _received(self._sock), b""))
        with contextlib.suppress(BlockingIOError):
            while True:
                self._clients.append(self._sock.accept()[0])
                self._clients[-1].setblocking(False)
        return b"".join(iter(lambda: b"".join(_received(c) for c in self._clients), b"")).splitlines()

    def hang_up(self) -> None:
        for client in self._clients:
            client.close()
        self._clients.clear()

    def close(self) -> None:
        self.hang_up()
        self._sock.close()


def _received(sock: socket.socket) -> bytes:
    try:
        return sock.recv(1 << 20)
    except BlockingIOError:
        return b""


@pytest.fixture
def listen(tmp_path: Path) -> Any:
    made: list[Server] = []

    def listening(kind: str, name: str = "log") -> Server:
        made.append(Server(kind, tmp_path / name))
        return made[-1]

    yield listening
    for server in made:
        server.close()


def log_to(address: str, **options: str) -> LogOptions:
    return LogOptions(driver="syslog", options={"syslog-address": address, "tag": "{{.Name}}", **options})


@pytest.mark.parametrize("kind", KINDS)
def test_each_line_is_a_message(act: Any, listen: Callable[..., Server], kind: str) -> None:
    server = listen(kind)

    async def scenario(s: Stage) -> None:
        await s.run("box", "echo", "one\ntwo", log=log_to(server.address))
        await s.call(s.engine.containers.wait("box"))
        await asyncio.sleep(SOON)
        found = [re.sub(rb"^<30>\w{3} .\d \d\d:\d\d:\d\d ", b"", m) for m in server.messages()]
        assert found == [b"box[%d]: %s" % (os.getpid(), line) for line in (b"one", b"two")]

    act(scenario)


@pytest.mark.parametrize(
    ("format_", "begins"),
    [
        ("rfc3164", rf"<134>Nov \d\d \d\d:\d\d:\d\d {socket.gethostname()} box\[\d+\]: "),
        ("rfc5424", rf"<134>1 2023-11-14T22:13:2\dZ {socket.gethostname()} box \d+ box - "),
        ("rfc5424micro", rf"<134>1 2023-11-14T22:13:2\d\.\d{{6}}Z {socket.gethostname()} box \d+ box - "),
    ],
)
def test_the_formats_are_dockers(act: Any, listen: Callable[..., Server], format_: str, begins: str) -> None:
    server = listen("udp")
    log = log_to(server.address, **{"syslog-format": format_, "syslog-facility": "local0"})

    async def scenario(s: Stage) -> None:
        await s.run("box", "echo", "hello", log=log)
        await s.call(s.engine.containers.wait("box"))
        await asyncio.sleep(SOON)
        (message,) = server.messages()
        assert re.fullmatch(begins + "hello", message.decode())

    act(scenario)


async def _troubles(s: Stage) -> list[str]:
    return [c.found for c in await s.call(s.engine.doctor()) if "syslog for container" in c.found]


@pytest.mark.parametrize("kind", ["tcp", "stream"])
def test_a_server_that_hangs_up_gets_the_next_line_on_another_connection(
    act: Any, listen: Callable[..., Server], kind: str
) -> None:
    server = listen(kind)

    async def scenario(s: Stage) -> None:
        await s.run("box", "cat", stdin=True, log=log_to(server.address))
        handle = s.engine.containers.supervisor(s.engine.registry.container("box")).fan_out.handle
        assert handle
        for line in (b"one", b"two"):
            await s.call(handle.write_stdin(line + b"\n"))
            await asyncio.sleep(SOON)
            assert [m.rpartition(b" ")[2] for m in server.messages()] == [line]
            server.hang_up()
        s.engine.containers.reopen_log("box")
        await s.call(handle.write_stdin(b"three\n"))
        await asyncio.sleep(SOON)
        assert [m.rpartition(b" ")[2] for m in server.messages()] == [b"three"]

    act(scenario)


def test_a_server_that_is_away_is_told_of_the_gap_and_doctor_names_it(
    act: Any, listen: Callable[..., Server], tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(sender, "_WAITS_MAX", 2048)
    listen("unix").close()

    async def scenario(s: Stage) -> None:
        await s.run("box", "cat", stdin=True, log=log_to(f"unix://{tmp_path}/log"))
        handle = s.engine.containers.supervisor(s.engine.registry.container("box")).fan_out.handle
        assert handle
        for _ in range(4):
            await s.call(handle.write_stdin(b"x" * 1023 + b"\n"))
            await asyncio.sleep(SOON)
        assert await _troubles(s) == ["syslog for container box does not work: Connection refused"]
        (tmp_path / "log").unlink()
        server = listen("unix")
        await asyncio.sleep(SOON)
        assert [len(m) > 1000 for m in server.messages()] == [True, True] and await _troubles(s) == []
        await s.call(handle.write_stdin(b"end\n"))
        await asyncio.sleep(SOON)
        gap, end = server.messages()
        assert b"[hyperd: 2048 bytes of stdout are missing here: they could not be sent in time]" in gap
        assert end.endswith(b" end") and s.status("box") == "running"

    act(scenario)


def test_what_nobody_takes_is_given_up_with_the_daemon(act: Any, listen: Callable[..., Server], tmp_path: Path) -> None:
    listen("unix").close()

    async def scenario(s: Stage) -> None:
        await s.run("box", "echo", "x", log=log_to(f"unix://{tmp_path}/log"))
        await s.call(s.engine.containers.wait("box"))
        await s.close()  # in two seconds, and leaves no task
        await s.open()
        assert s.status("box") == "exited"

    act(scenario)


def test_a_host_without_syslog_refuses_before_anything_is_made(
    act: Any, listen: Callable[..., Server], tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(syslog, "LOCAL", (tmp_path / "log",))

    async def scenario(s: Stage) -> None:
        with pytest.raises(Unsupported, match=f"there is no syslog on this host \\({tmp_path}/log\\)"):
            await s.create("box", log=LogOptions(driver="syslog"))
        with pytest.raises(Unsupported, match="there is no syslog at /nothing/such"):
            await s.create("box", log=log_to("unix:///nothing/such"))
        with pytest.raises(Unsupported, match="there is no systemd-journald on this host"):
            await s.create("box", log=LogOptions(driver="journald"))
        server = listen("unix")
        await s.run("box", "echo", "hello", log=LogOptions(driver="syslog"))
        await asyncio.sleep(SOON)
        assert [m.endswith(b": hello") for m in server.messages()] == [True]

    act(scenario)


def test_a_host_with_several_addresses_is_reached_by_one_of_them(
    act: Any, listen: Callable[..., Server], monkeypatch: pytest.MonkeyPatch
) -> None:
    """As `localhost`, where nobody listens on ::1."""
    server = listen("tcp")
    port = int(server.address.rpartition(":")[2])

    async def scenario(s: Stage) -> None:
        loop = asyncio.get_running_loop()
        found = [(socket.AF_INET, socket.SOCK_STREAM, 6, "", (ip, port)) for ip in ("127.0.0.9", "127.0.0.1")]

        async def resolved(*_: Any, **__: Any) -> Any:
            return found

        monkeypatch.setattr(loop, "getaddrinfo", resolved)
        await s.run("box", "echo", "hello", log=log_to(f"tcp://logs:{port}"))
        await asyncio.sleep(SOON)
        assert len(server.messages()) == 1
        found.clear()
        await s.run("other", "echo", "hello", log=log_to(f"tcp://logs:{port}"))
        await asyncio.sleep(SOON)
        assert (await _troubles(s))[0].endswith("logs has no address")

    act(scenario)
