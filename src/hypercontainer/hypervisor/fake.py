# SPDX-License-Identifier: Apache-2.0
"""A driver without a hypervisor: machines are hyperstart processes on this host.

For tests of the layers above. Containers need a VM, so only what runs beside
hyperstart works here.
"""

from __future__ import annotations

import asyncio
import contextlib
import socket
from pathlib import Path

from ..errors import Unavailable, Unsupported
from ..sys import process
from .driver import Capabilities, MachineConfig


class FakeMachine:
    """One hyperstart process on a socket pair."""

    accelerator = "none"

    def __init__(self, child: asyncio.subprocess.Process, channel: socket.socket) -> None:
        self.pid = child.pid
        self.pid_started = process.start_time(child.pid)
        self._child = child
        self._channel: socket.socket | None = channel

    def connect(self) -> socket.socket:
        if self._channel is None:
            raise Unavailable("a fake machine can be connected once")
        channel, self._channel = self._channel, None
        return channel

    async def wait(self) -> None:
        await self._child.wait()

    async def kill(self) -> None:
        with contextlib.suppress(ProcessLookupError):
            self._child.kill()
        await self._child.wait()

    async def pause(self) -> None:
        raise Unsupported("a fake machine cannot be paused")

    async def resume(self) -> None:
        raise Unsupported("a fake machine cannot be paused")

    def last_words(self) -> str:
        return ""


class FakeDriver:
    """Launches `hyperstart --fd N`."""

    name = "fake"
    capabilities = Capabilities(pause=False, user_network=False)

    def __init__(self, hyperstart: Path) -> None:
        self._hyperstart = hyperstart
        self.launched: list[MachineConfig] = []

    async def launch(self, config: MachineConfig) -> FakeMachine:
        self.launched.append(config)
        ours, theirs = socket.socketpair()
        ours.setblocking(False)
        with theirs:
            fd = theirs.fileno()
            child = await asyncio.create_subprocess_exec(self._hyperstart, "--fd", str(fd), pass_fds=[fd])
        return FakeMachine(child, ours)

    def attach(self, directory: Path, pid: int, pid_started: int, accelerator: str) -> None:
        return None

    def sweep(self, parent: Path, keep: set[Path]) -> None:
        pass

    async def accelerator(self) -> tuple[str, str]:
        return "none", "a fake driver has no accelerator"

    def version(self) -> str:
        return "fake"
