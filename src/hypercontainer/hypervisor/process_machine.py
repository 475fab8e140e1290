# SPDX-License-Identifier: Apache-2.0
"""A machine that is a process of this host, launched by this daemon or by one before it."""

from __future__ import annotations

import asyncio
import contextlib
import logging
import os
import re
import signal
import socket
from pathlib import Path

from ..errors import Unavailable
from ..jail import violations
from ..sys import deadlines, process, tasks
from .console import Console

log = logging.getLogger(__name__)
_CAUGHT = "{} made a system call that its jail forbids{}, and was ended (SIGSYS): docs/jail.md says what that means"
_PANIC = "Kernel panic"  # how Linux begins to say why it ended (kernel/panic.c)
_ANSI = re.compile(r"\x1b\[[0-9;?]*[A-Za-z]|[^\n\x20-\x7e]")


def dial(path: Path, opening: bytes = b"") -> socket.socket:
    """A further byte stream to a guest, by a socket of its hypervisor's, which is told `opening`.

    :raise Unavailable: nobody takes it.
    """
    sock = socket.socket(socket.AF_UNIX)
    sock.setblocking(False)
    try:
        sock.connect(str(path))
        if opening:
            sock.send(opening)  # its buffer is empty, so it is taken
    except BlockingIOError as error:  # its backlog is full, and it takes nothing from there
        sock.close()
        raise Unavailable("the virtual machine does not take connections") from error
    except OSError as error:
        sock.close()
        raise Unavailable(f"cannot reach the guest: {error.strerror}") from error
    return sock


class ProcessMachine:
    """What its end needs, and what its guest said last."""

    program: str  # what people call it
    machine_type = ""

    def __init__(self, pid: int, pid_started: int) -> None:
        """`pid_started` is in clock ticks since the host's boot: a pid alone may be reused."""
        self.pid = pid
        self.pid_started = pid_started
        self._console = Console()
        self._caught: bool | None = False  # at a system call that its jail forbids; None: it may have been
        self._call = ""  # which
        self._ending = ""  # how it ended by itself
        self._killed = False
        self._looking = asyncio.Lock()
        self._gone: asyncio.Future[None] | None = None

    @property
    def alive(self) -> bool:
        return self.pid_started > 0 and process.start_time(self.pid) == self.pid_started

    @property
    def heard(self) -> int:
        """Bytes that the guest has written to its console, as far as they were read."""
        return self._console.heard

    def detach(self) -> None:
        """Let it go on without us. Idempotent."""
        self._console.close()

    async def wait(self) -> None:
        if self._gone is None:
            self._gone = self._watch()
        await asyncio.shield(self._gone)
        await self._see_violation()

    async def _ends(self, by: float) -> bool:
        """Whether it does until then, by the loop's clock."""
        try:
            async with asyncio.timeout_at(by):
                await self.wait()
        except (TimeoutError, OSError):
            return False
        return not self.alive

    async def _see_violation(self) -> None:
        """Find out which call its jail has ended it for; of an earlier daemon's child only the kernel's log tells."""
        async with self._looking:
            if self._caught is False or self._call:
                return
            self._call = await self._forbidden_call()
            self._caught = bool(self._caught or self._call)
            for sentence in self.violation():
                log.error("process %d, a virtual machine: %s", self.pid, sentence)

    async def _forbidden_call(self) -> str:
        return await violations.forbidden_call(self.pid, expected=bool(self._caught))

    def _was_caught(self, status: int) -> bool:
        """Whether a process that ended with this status of waitpid(2) has made a call that its filter forbids."""
        return os.WIFSIGNALED(status) and os.WTERMSIG(status) == signal.SIGSYS

    def violation(self) -> list[str]:
        """What its jail has ended it for, once that is known."""
        call = f": {self._call}" if self._call else ""
        return [_CAUGHT.format(self.program, call)] if self._caught else []

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
        self._caught = None
        with contextlib.suppress(ChildProcessError):
            pid, status = os.waitpid(self.pid, os.WNOHANG)
            self._caught = pid == self.pid and self._was_caught(status)
            if pid == self.pid and not self._killed:
                self._ending = _described(os.waitstatus_to_exitcode(status))

    def ending(self) -> str:
        return self._ending

    async def kill(self) -> None:
        self._killed = self._killed or self.alive
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


def _described(code: int) -> str:
    """An exit status, as Python has it."""
    if code >= 0:
        return f"with status {code}"
    try:
        return f"by {signal.Signals(-code).name}"
    except ValueError:  # of real time
        return f"by signal {-code}"


def telling(text: bytes) -> list[str]:
    """What of a log says why a machine ended: its kernel's own reason, which registers follow, or the last lines."""
    lines = [line for line in _ANSI.sub("", text.decode(errors="replace")).splitlines() if line.strip()]
    return [line[line.index(_PANIC) :] for line in lines if _PANIC in line][:1] or lines[-4:]
