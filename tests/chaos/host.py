# SPDX-License-Identifier: Apache-2.0
"""A host of its own: a network namespace, a disk that can be full, and hyperd."""

from __future__ import annotations

import contextlib
import ctypes
import json
import os
import signal
import socket
import subprocess
import tempfile
import time
from collections.abc import Iterator
from pathlib import Path
from typing import Any

from hypercontainer.client.transport import Connection
from hypercontainer.errors import HyperError
from tests.e2e.conftest import BIN, Daemon, wait_for
from tests.e2e.test_networks import namespaces
from tests.small_disk import small_disk

SLOW = 120.0  # seconds for what takes a moment on an idle machine
_DISK = 400  # MiB
_PIDFD_GETFD = 438  # its number, of all architectures


class Host:
    """hyperd, and ways to hurt it."""

    def __init__(self, place: Path, namespace: str, run: Path, pool: str) -> None:
        """`pool` is the memory for machines that wait."""
        self._pool = pool
        self.place, self.namespace = place, namespace
        self.disk = place / "disk"
        self.log = place / "hyperd.log"
        self.slowest = 0.0  # seconds that `version` took, at most
        self._run = run
        self.daemon = self._launch()

    def _launch(self) -> Daemon:
        command = ["ip", "netns", "exec", self.namespace, str(BIN / "hyperd"), "--root", str(self.disk / "root")]
        options = ["--run", str(self._run), "--network", "bridge", "--pool-memory", self._pool]
        with open(self.log, "ab") as log:
            process = subprocess.Popen([*command, *options], stdout=log, stderr=log)
        return Daemon(process, self.disk / "root", self._run)

    def start(self) -> float:
        """Another hyperd takes up what is there; the seconds until it answers."""
        began = time.monotonic()
        self.daemon = self._launch()
        self.answers()
        return time.monotonic() - began

    def answers(self) -> None:
        def answered() -> bool:
            assert self.daemon.process.poll() is None, "hyperd has ended"
            with contextlib.suppress(HyperError, OSError):
                return bool(self.ask("/version"))
            return False

        wait_for(answered, "hyperd's answer", SLOW)

    def end(self, number: int = signal.SIGKILL) -> None:
        self.daemon.process.send_signal(number)
        self.daemon.process.wait(SLOW)

    def ask(self, target: str) -> Any:
        began = time.monotonic()
        answer = json.loads(Connection(str(self.daemon.socket), SLOW).request("GET", f"/v1{target}", {}).read())
        self.slowest = max(self.slowest, time.monotonic() - began) if target == "/version" else self.slowest
        return answer

    def docker(self, method: str, target: str, body: Any = None) -> tuple[int, bytes]:
        """Status and body of what Docker's API answers."""
        data = b"" if body is None else json.dumps(body).encode()
        headers = {"Content-Type": "application/json"}
        answer = Connection(str(self._run / "docker.sock"), SLOW).request(method, target, headers, data)
        return answer.status, answer.read()

    def ctl(self, *words: str | Path, input: bytes | None = None) -> subprocess.CompletedProcess[str]:
        return self.daemon.ctl(*words, input=input, check=False)

    def fetch(self, port: int) -> str:
        """What a published port says."""
        words = ["ip", "netns", "exec", self.namespace, "curl", "-s", "-m", "5", f"http://203.0.113.1:{port}/"]
        return subprocess.run(words, capture_output=True, text=True, check=False).stdout.strip()

    # -- machines -----------------------------------------------------------------------------

    def machine(self, pod: str) -> int:
        """QEMU of a pod, which is a process."""
        return int((self._run / "pods" / pod[:12] / "pid").read_text().split()[0])

    def break_channel(self, pod: str) -> None:
        """The connection between hyperd and the guest ends, as when a driver of it fails."""
        words = ["ip", "netns", "exec", self.namespace, "ss", "-xHn", "state", "connected"]
        connected = subprocess.run(words, capture_output=True, text=True, check=True)
        rows = [line.split() for line in connected.stdout.splitlines() if "/guest.sock " in line]
        theirs = _sockets(self.machine(pod))  # its path is that of a machine which waited, where it was one
        ends = {int(row[-1]) for row in rows if int(row[-3]) in theirs}
        ours = [fd for inode, fd in _sockets(self.daemon.process.pid).items() if inode in ends]
        assert len(ours) == 1, f"{len(ours)} connections to the guest of {pod}: {rows}"
        with _taken(self.daemon.process.pid, ours[0]) as connection:
            connection.shutdown(socket.SHUT_RDWR)

    # -- the disk -----------------------------------------------------------------------------

    def fill(self) -> Path:
        """Not a byte of the disk is free; the file that takes them."""
        path = self.disk / "fill"
        with open(path, "ab", buffering=0) as f:
            for size in (1 << 20, 4096):
                with contextlib.suppress(OSError):
                    while True:
                        f.write(bytes(size))
        assert os.statvfs(self.disk).f_bavail == 0
        return path


def _sockets(pid: int) -> dict[int, int]:
    """Those of a process, by inode: their descriptors."""
    found = {}
    for fd in Path(f"/proc/{pid}/fd").iterdir():
        with contextlib.suppress(FileNotFoundError):
            if (target := os.readlink(fd)).startswith("socket:["):
                found[int(target[8:-1])] = int(fd.name)
    return found


@contextlib.contextmanager
def _taken(pid: int, number: int) -> Iterator[socket.socket]:
    """A socket of another process, as it is there: pidfd_getfd(2)."""
    libc = ctypes.CDLL(None, use_errno=True)
    process = os.pidfd_open(pid)
    try:
        fd = libc.syscall(_PIDFD_GETFD, process, number, 0)
        if fd < 0:
            raise OSError(ctypes.get_errno(), "pidfd_getfd")
        with socket.socket(fileno=fd) as ours:
            yield ours
    finally:
        os.close(process)


@contextlib.contextmanager
def host(place: Path, name: str, pool: str = "256m") -> Iterator[Host]:
    """One with the built-in image; at its end nothing may be left."""
    with contextlib.ExitStack() as stack:
        stack.enter_context(small_disk(place / "disk", _DISK))
        namespace = stack.enter_context(namespaces(name))
        run = Path(stack.enter_context(tempfile.TemporaryDirectory(prefix="hyc")))
        made = Host(place, namespace, run, pool)
        try:
            made.answers()
            made.daemon.ctl("pull", "-q", "builtin:busybox")
            yield made
        finally:
            made.daemon.stop()
            for pid in _machines(run):  # of a storm that failed
                os.kill(pid, signal.SIGKILL)


def _machines(run: Path) -> list[int]:
    found = []
    for path in (run / "pods").glob("*/pid"):
        with contextlib.suppress(OSError, ValueError, IndexError):
            pid = int(path.read_text().split()[0])
            if b"qemu" in Path(f"/proc/{pid}/cmdline").read_bytes():
                found.append(pid)
    return found
