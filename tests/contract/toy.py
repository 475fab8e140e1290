# SPDX-License-Identifier: Apache-2.0
"""A toy driver, to show that the port is small: its machines are hyperstart in namespaces of this host's kernel.

No disk, no network, nothing that only some can do. A relay holds the agent's channel and gives it to one
connection after the other, as QEMU does; it is the process by which a machine is known.
"""

from __future__ import annotations

import asyncio
import contextlib
import os
import socket
import subprocess
import sys
from collections.abc import Mapping
from pathlib import Path
from typing import Any

from hypercontainer.errors import Unavailable
from hypercontainer.guest.initramfs import hyperstart_path
from hypercontainer.hypervisor.driver import MachineConfig, Probe, check_takes
from hypercontainer.sys import process

CHANNEL, LOG = "toy.sock", "toy.log"
NAMESPACES = ("unshare", "--pid", "--fork", "--kill-child", "--mount", "--uts", "--ipc", "--net")
RELAY = """
import os, select, socket, subprocess, sys
listening, agent = socket.socket(fileno=int(sys.argv[1])), sys.argv[2:]
ours, theirs = socket.socketpair()
guest = subprocess.Popen([*agent, "--fd", str(theirs.fileno())], pass_fds=[theirs.fileno()])
theirs.close()
end = os.pidfd_open(guest.pid)
client = None
while True:
    ready = select.select([end, client or listening] + ([ours] if client else []), [], [])[0]
    if end in ready:
        sys.exit(0)
    for side in ready:
        if side is listening:
            client = side.accept()[0]
            continue
        try:
            data = side.recv(65536)
            (ours if side is client else client).sendall(data)
        except OSError:
            data = b""
        if not data:
            client.close()
            client = None
            break
"""


class ToyMachine:
    """A relay and what is behind it."""

    driver, accelerator, machine_type = "toy", "none", ""
    names: Mapping[str, str] = {}

    def __init__(self, directory: Path, pid: int, started: int) -> None:
        self.pid = pid
        self._directory = directory
        self._started = started

    @property
    def handle(self) -> dict[str, Any]:
        return {"directory": str(self._directory), "pid": self.pid, "started": self._started}

    @property
    def alive(self) -> bool:
        return process.start_time(self.pid) == self._started

    def connect(self) -> socket.socket:
        sock = socket.socket(socket.AF_UNIX)
        sock.setblocking(False)
        try:
            sock.connect(str(self._directory / CHANNEL))
        except OSError as error:
            sock.close()
            raise Unavailable(f"cannot reach the guest: {error.strerror}") from error
        return sock

    async def wait(self) -> None:
        try:
            fd = os.pidfd_open(self.pid)
        except ProcessLookupError:
            return
        gone = asyncio.Event()
        loop = asyncio.get_running_loop()
        loop.add_reader(fd, gone.set)
        try:
            if self.alive:
                await gone.wait()
        finally:
            loop.remove_reader(fd)
            os.close(fd)
        self._reap()

    def _reap(self) -> None:
        with contextlib.suppress(ChildProcessError):
            os.waitpid(self.pid, os.WNOHANG)

    async def kill(self) -> None:
        process.kill(self.pid, self._started)  # the agent ends with its channel
        await self.wait()

    def detach(self) -> None: ...

    def last_words(self) -> str:
        with contextlib.suppress(OSError):
            return (self._directory / LOG).read_text(errors="replace")[-2000:].strip()
        return ""


class ToyDriver:
    """Launches them."""

    name, version = "toy", "1"
    takes: frozenset[type] = frozenset()
    facets: frozenset[type] = frozenset()

    def __init__(self, agent: Path | None = None) -> None:
        """`agent` is what runs in hyperstart's place."""
        self._agent = agent or hyperstart_path()

    async def probe(self) -> Probe:
        return Probe("none", "its guests are processes of this host")

    async def launch(self, config: MachineConfig) -> ToyMachine:
        check_takes(self, config)
        config.directory.mkdir(mode=0o700, parents=True, exist_ok=True)
        (config.directory / CHANNEL).unlink(missing_ok=True)
        unshare = NAMESPACES if os.geteuid() == 0 else (*NAMESPACES, "--map-root-user")
        with socket.socket(socket.AF_UNIX) as sock, open(config.directory / LOG, "wb") as log:
            sock.bind(str(config.directory / CHANNEL))
            sock.listen(1)
            child = subprocess.Popen(
                [sys.executable, "-c", RELAY, str(sock.fileno()), *unshare, str(self._agent)],
                stdin=subprocess.DEVNULL, stdout=log, stderr=log, pass_fds=[sock.fileno()], start_new_session=True,
            )  # fmt: skip
        child.returncode = 0  # it is reaped by `wait`
        return ToyMachine(config.directory, child.pid, process.start_time(child.pid))

    async def reattach(self, handle: Mapping[str, Any]) -> ToyMachine | None:
        machine = ToyMachine(Path(handle["directory"]), handle["pid"], handle["started"])
        return machine if machine.alive else None
