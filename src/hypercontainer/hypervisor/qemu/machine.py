# SPDX-License-Identifier: Apache-2.0
"""A QEMU process, launched by this daemon or by one before it."""

from __future__ import annotations

import asyncio
import contextlib
import logging
import os
import re
import resource
import signal
import socket
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any

from ...errors import Unavailable
from ...model.specs import PortMapping
from ...sys import deadlines, process, tasks
from ..driver import AnyDisk, Disk
from . import devices
from .confinement import largest_file
from .console import Console
from .monitor import Monitor
from .ports import check_port_free

log = logging.getLogger(__name__)
CHANNEL, MONITOR, CONSOLE, LOG, PIDFILE = "guest.sock", "qmp.sock", "console.sock", "qemu.log", "pid"
CONSOLE_FILE = "console.log"  # of machines that an earlier version launched, which stored all of it
SERVER_LOG = "server.log"  # of whoever serves shared directories
_CAUGHT = "QEMU made a system call that its jail forbids, and was ended (SIGSYS)"
_TAIL = 8000  # bytes of the logs that are read for an error message: a panic, and the registers that follow it
_PANIC = "Kernel panic"  # how Linux begins to say why it ended (kernel/panic.c)
_ANSI = re.compile(r"\x1b\[[0-9;?]*[A-Za-z]|[^\n\x20-\x7e]")


class QemuMachine:
    """Known by its process and its directory; both outlive the daemon."""

    driver = "qemu"
    names: Mapping[str, str] = {}  # the guest finds disks by their serial numbers

    def __init__(self, directory: Path, pid: int, pid_started: int, accelerator: str) -> None:
        self.pid = pid
        self.pid_started = pid_started
        self.accelerator = accelerator
        self._directory = directory
        self._nodes: dict[
            str, str
        ] = {}  # serial number of a disk -> node of the file behind it, where that was exchanged
        self._console = Console()
        self._caught = False  # at a system call that its jail forbids
        self._gone: asyncio.Future[None] | None = None

    @classmethod
    def of(cls, handle: Mapping[str, Any]) -> QemuMachine:
        """The machine that a handle names, which may have ended."""
        return cls(Path(handle["directory"]), handle["pid"], handle["pidStarted"], handle.get("accelerator", ""))

    @property
    def handle(self) -> dict[str, Any]:
        return {
            "directory": str(self._directory),
            "pid": self.pid,
            "pidStarted": self.pid_started,  # clock ticks since the host's boot: a pid alone may be reused
            "accelerator": self.accelerator,
        }

    @property
    def alive(self) -> bool:
        return process.start_time(self.pid) == self.pid_started

    @property
    def heard(self) -> int:
        """Bytes that the guest has written to its console, as far as they were read."""
        return self._console.heard

    def connect(self) -> socket.socket:
        sock = socket.socket(socket.AF_UNIX)
        sock.setblocking(False)
        try:
            sock.connect(str(self._directory / CHANNEL))
        except BlockingIOError as error:  # its backlog is full, and it takes nothing from there
            sock.close()
            raise Unavailable("the virtual machine does not take connections") from error
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
            self._reap()
            gone.set_result(None)

        if process.start_time(self.pid) != self.pid_started:  # it has ended, or the number is another one's by now
            os.close(fd)
            self._reap()
            gone.set_result(None)
        else:
            loop.add_reader(fd, ended)
        return gone

    def _reap(self) -> None:
        """Nothing happens when it is another daemon's child, or when its number belongs to a child that runs."""
        with contextlib.suppress(ChildProcessError):
            pid, status = os.waitpid(self.pid, os.WNOHANG)
            self._caught = pid == self.pid and os.WIFSIGNALED(status) and os.WTERMSIG(status) == signal.SIGSYS

    async def kill(self) -> None:
        process.kill(self.pid, self.pid_started, signal.SIGKILL)
        self._console.tail()
        self._console.close()
        try:
            await tasks.within(self.wait(), deadlines.DEATH)
        except TimeoutError:
            log.error(
                "process %d, a virtual machine, was killed and has not ended: the kernel keeps it, perhaps for a disk",
                self.pid,
            )
        except OSError as error:  # there is no descriptor left for it, say; it ends all the same
            log.error("the end of process %d, a virtual machine, cannot be waited for: %s", self.pid, error)

    def listen(self) -> None:
        """Keep the end of what the guest writes to its console from here on, for `last_words`."""
        self._console.open(self._directory / CONSOLE)

    def detach(self) -> None:
        self._console.close()

    def _monitor(self) -> Monitor:
        return Monitor(self._directory / MONITOR)

    async def pause(self) -> None:
        await self._order("stop")

    async def resume(self) -> None:
        await self._order("cont")

    async def _order(self, command: str) -> None:
        try:
            async with asyncio.timeout(deadlines.MONITOR), self._monitor() as monitor:
                await monitor.execute(command)
        except TimeoutError:
            raise Unavailable(
                f"QEMU did not answer {command!r} within {deadlines.MONITOR:g} s",
                hint="`hyperctl kill -s KILL` and `rm -f` end it",
            ) from None

    async def stalled(self) -> bool:
        # https://www.qemu.org/docs/master/interop/qemu-qmp-ref.html, RunState
        async with self._monitor() as monitor:
            status: str = (await monitor.execute("query-status"))["status"]
        return status == "io-error"

    async def load(self, state: int) -> None:
        """Go on from a saved state; its number is the descriptor's in the hypervisor."""
        async with self._monitor() as monitor:
            await monitor.load(state)

    async def save(self, state: int) -> None:
        async with self._monitor() as monitor:
            await monitor.save(state)

    async def reconfigure(self, directory: Path, disks: Sequence[Disk], ports: Sequence[PortMapping]) -> None:
        self._directory = directory
        for port in ports:
            check_port_free(port)
        if not disks and not ports:
            return
        self._let_write(disks)
        async with self._monitor() as monitor:
            await monitor.exchange(disks, self._nodes)
            for port in ports:
                await monitor.human(f"hostfwd_add net0 {_forward(port)}")

    def _let_write(self, disks: Sequence[AnyDisk]) -> None:
        """To all of disks that it has only now: a longer file than before needs a higher limit.

        :raise Unavailable: hyperd may not raise it.
        """
        size = largest_file(disks)
        try:
            now = process.file_size_limit(self.pid)
            if now >= 0 and not 0 <= size <= now:
                resource.prlimit(self.pid, resource.RLIMIT_FSIZE, (size, size))  # -1 is no limit
        except ProcessLookupError:
            return  # it has ended: its monitor says so
        except PermissionError as error:
            raise Unavailable("hyperd may not let the virtual machine write to a disk of this size") from error

    async def add_disk(self, disk: AnyDisk) -> None:
        self._let_write([disk])
        async with self._monitor() as monitor:
            await monitor.add_disk(disk)

    async def remove_disk(self, serial: str) -> None:
        async with self._monitor() as monitor:
            await monitor.remove_disk(serial)

    async def add_port(self, port: PortMapping) -> None:
        check_port_free(port)
        async with self._monitor() as monitor:
            await monitor.human(f"hostfwd_add net0 {_forward(port)}")

    async def remove_port(self, port: PortMapping) -> None:
        async with self._monitor() as monitor:
            await monitor.human(f"hostfwd_remove net0 {_forward(port).partition('-:')[0]}")

    def last_words(self) -> str:
        texts = []
        for name in (SERVER_LOG, LOG, CONSOLE_FILE) if not self.alive else (LOG, CONSOLE_FILE):
            with contextlib.suppress(OSError):
                texts.append(_tail(self._directory / name))
        words = [_CAUGHT] if self._caught else []
        for text in (*texts, self._console.tail()[-_TAIL:]):
            words += _telling(_ANSI.sub("", text.decode(errors="replace")))
        return "; ".join(words)


def _telling(text: str) -> list[str]:
    """What of a log says why a machine ended: its kernel's own reason, which registers follow, or the last lines."""
    lines = [line for line in text.splitlines() if line.strip()]
    return [line[line.index(_PANIC) :] for line in lines if _PANIC in line][:1] or lines[-4:]


def _tail(path: Path) -> bytes:
    """The guest decides how long its console's log is."""
    with open(path, "rb") as f:
        f.seek(max(0, os.fstat(f.fileno()).st_size - _TAIL))
        return f.read(_TAIL)


def _forward(port: PortMapping) -> str:
    return devices.forward(port.protocol, port.host_ip, port.host_port, port.container_port)
