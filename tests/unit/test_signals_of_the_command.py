# SPDX-License-Identifier: Apache-2.0
"""Signals that come to an attached hyperctl: the process gets them, and nobody has to wait for a daemon that hangs."""

from __future__ import annotations

import queue
import signal
import socketserver
import struct
import subprocess
import sys
import tempfile
import threading
from collections.abc import Iterator
from pathlib import Path

import pytest

from hypercontainer.model.frames import STDOUT

PATIENCE = 60  # seconds
READY = b"ready\n"


class Daemon:
    """Has one exec that runs for ever; `got` are the requests, in order. One that is `deaf` takes no signals."""

    def __init__(self, path: Path) -> None:
        self.path = path
        self.got: queue.Queue[bytes] = queue.Queue()
        self.deaf = threading.Event()
        self.over = threading.Event()

    def handler(self) -> type[socketserver.StreamRequestHandler]:
        daemon = self

        class Handler(socketserver.StreamRequestHandler):
            def handle(self) -> None:
                first = self.rfile.readline()
                length = 0
                while (line := self.rfile.readline()) not in (b"\r\n", b""):
                    if line.lower().startswith(b"content-length:"):
                        length = int(line.split(b":")[1])
                self.rfile.read(length)
                daemon.got.put(first)
                if b"/kill" in first and daemon.deaf.is_set():
                    daemon.over.wait(PATIENCE)
                elif b"/kill" in first:
                    self.wfile.write(b"HTTP/1.1 204 No Content\r\n\r\n")
                else:
                    self.wfile.write(b"HTTP/1.1 101 Switching Protocols\r\nUpgrade: tcp\r\nHyper-Id: e1\r\n\r\n")
                    self.wfile.write(struct.pack(">B3xI", STDOUT, len(READY)) + READY)
                    daemon.over.wait(PATIENCE)

        return Handler


@pytest.fixture
def daemon() -> Iterator[Daemon]:
    with tempfile.TemporaryDirectory(prefix="hs") as short:
        made = Daemon(Path(short) / "s")
        with socketserver.ThreadingUnixStreamServer(str(made.path), made.handler()) as server:
            thread = threading.Thread(target=server.serve_forever, kwargs={"poll_interval": 0.01})
            thread.start()
            yield made
            made.over.set()
            server.shutdown()
            thread.join()


@pytest.fixture
def attached(daemon: Daemon) -> Iterator[subprocess.Popen[bytes]]:
    """`hyperctl exec`, which is attached."""
    command = [sys.executable, "-m", "hypercontainer.hyperctl", "--host", str(daemon.path), "exec", "c", "sleep", "9"]
    with subprocess.Popen(command, stdin=subprocess.DEVNULL, stdout=subprocess.PIPE, stderr=subprocess.PIPE) as process:
        assert b"/exec" in daemon.got.get(timeout=PATIENCE) and process.stdout
        assert process.stdout.readline() == READY  # from here on it takes signals
        yield process
        process.kill()


def words(process: subprocess.Popen[bytes]) -> str:
    return process.communicate(timeout=PATIENCE)[1].decode()


def test_a_daemon_that_hangs_is_not_waited_for(daemon: Daemon, attached: subprocess.Popen[bytes]) -> None:
    daemon.deaf.set()
    attached.send_signal(signal.SIGTERM)
    said = words(attached)
    assert attached.returncode == 128 + signal.SIGTERM
    assert said == "hyperctl: hyperd did not take SIGTERM within 5 s: this command ends, and the process may go on\n"


def test_the_third_signal_to_end_ends_the_command(daemon: Daemon, attached: subprocess.Popen[bytes]) -> None:
    for number in (signal.SIGUSR1, signal.SIGUSR1, signal.SIGINT, signal.SIGTERM):
        attached.send_signal(number)
        assert number.name.encode() in daemon.got.get(timeout=PATIENCE)
    attached.send_signal(signal.SIGINT)
    said = words(attached)
    assert attached.returncode == 128 + signal.SIGINT and daemon.got.empty()
    assert said == "hyperctl: SIGINT is the third signal to end: this command ends, and the process may go on\n"
