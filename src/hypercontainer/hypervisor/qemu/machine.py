# SPDX-License-Identifier: Apache-2.0
"""A QEMU process, launched by this daemon or by one before it."""

from __future__ import annotations

import asyncio
import contextlib
import os
import re
import signal
import socket
from pathlib import Path

from ...errors import Unavailable
from ...sys import process

CHANNEL, MONITOR, CONSOLE, LOG, PIDFILE = "guest.sock", "qmp.sock", "console.log", "qemu.log", "pid"
_TAIL = 2000  # bytes of the logs that are read for an error message
_ANSI = re.compile(r"\x1b\[[0-9;?]*[A-Za-z]|[^\n\x20-\x7e]")


class QemuMachine:
    """Known by its process and its directory; both outlive the daemon."""

    def __init__(self, directory: Path, pid: int, pid_started: int, accelerator: str) -> None:
        self.pid = pid
        self.pid_started = pid_started
        self.accelerator = accelerator
        self._directory = directory
        self._gone: asyncio.Future[None] | None = None

    @property
    def alive(self) -> bool:
        return process.start_time(self.pid) == self.pid_started

    def connect(self) -> socket.socket:
        sock = socket.socket(socket.AF_UNIX)
        try:
            sock.connect(str(self._directory / CHANNEL))
            sock.setblocking(False)
        except OSError as error:
            sock.close()
            raise Unavailable(f"cannot reach the guest: {error.strerror}") from error
        return sock

    async def wait(self) -> None:
        if self._gone is None:
            self._gone = self._watch()
        await asyncio.shield(self._gone)

    def _watch(self) -> asyncio.Future[None]:
        """A future for the end of the process, by pidfd: it need not be our child."""
        loop = asyncio.get_running_loop()
        gone: asyncio.Future[None] = loop.create_future()
        try:
            fd = os.pidfd_open(self.pid)
        except ProcessLookupError:
            gone.set_result(None)
            return gone

        def ended() -> None:
            loop.remove_reader(fd)
            os.close(fd)
            with contextlib.suppress(ChildProcessError):
                os.waitpid(self.pid, os.WNOHANG)
            gone.set_result(None)

        if not self.alive:
            os.close(fd)
            gone.set_result(None)
        else:
            loop.add_reader(fd, ended)
        return gone

    async def kill(self) -> None:
        process.kill(self.pid, self.pid_started, signal.SIGKILL)
        await self.wait()

    async def pause(self) -> None:
        await self._qmp("stop")

    async def resume(self) -> None:
        await self._qmp("cont")

    async def _qmp(self, command: str) -> None:
        # Imported late: starting a machine does not need it.
        from qemu.qmp import QMPClient, QMPError

        client = QMPClient()
        try:
            await client.connect(str(self._directory / MONITOR))
            await client.execute(command)
        except (QMPError, OSError) as error:
            raise Unavailable(f"QEMU did not take {command!r}: {error}") from error
        finally:
            with contextlib.suppress(QMPError):
                await client.disconnect()

    def last_words(self) -> str:
        words = []
        for name in (LOG, CONSOLE):
            with contextlib.suppress(OSError):
                text = (self._directory / name).read_bytes()[-_TAIL:].decode(errors="replace")
                lines = [line for line in _ANSI.sub("", text).splitlines() if line.strip()]
                words += lines[-4:]
        return "; ".join(words)
