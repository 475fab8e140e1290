# SPDX-License-Identifier: Apache-2.0
"""Processes of a fake guest: programs written in Python, with the streams of the real protocol.

A program is a coroutine function that gets its `FakeProcess` and returns an exit code.
"""

from __future__ import annotations

import asyncio
import signal
from collections.abc import Awaitable, Callable
from contextvars import Context
from dataclasses import dataclass, field, replace
from typing import Protocol

from ..protocol.constants import DATA_MAX, OUTPUT_RING, STDIN_RING, Tag, Type
from ..protocol.messages import ExitStatus
from ..protocol.streams import Data, Window, encode_data, encode_window
from ..protocol.wire import Attrs, encode_attrs

_IGNORED = (signal.SIGCHLD, signal.SIGURG, signal.SIGWINCH, signal.SIGCONT)  # signal(7): their default is to do nothing


@dataclass
class FakeContainer:
    """What a guest has of a container."""

    id: str
    image_disk: str
    scratch_disk: str
    files: dict[str, bytes] = field(default_factory=dict)
    changes: list[str] = field(default_factory=list)  # against its image: "A /path", "C /path", "D /path"
    frozen: asyncio.Event | None = None
    limits: dict[int, int] = field(default_factory=dict)  # by tag, of those that were given while it ran

    def copy(self) -> FakeContainer:
        """Another guest's, in the same state."""
        frozen = asyncio.Event() if self.frozen else None
        return replace(self, files=dict(self.files), changes=list(self.changes), frozen=frozen)


class Output:
    """stdout or stderr as the guest keeps it: from the last acknowledged byte on."""

    def __init__(self, stream: int) -> None:
        self.stream = stream
        self.kept = bytearray()
        self.base = 0  # offset of kept[0]
        self.sent = 0
        self.limit = 0  # nothing is sent before the host has said how far it may come
        self.eof = self.eof_sent = False
        self.room = asyncio.Event()
        self.room.set()

    def copy(self) -> Output:
        """Another guest's, with what was kept."""
        other = Output(self.stream)
        other.kept, other.base, other.sent, other.eof = bytearray(self.kept), self.base, self.base, self.eof
        return other

    def rewind(self) -> None:
        """Another connection: the host's next window says where it begins."""
        self.sent, self.limit, self.eof_sent = self.base, 0, False

    def grant(self, window: Window) -> None:
        if window.ack > self.base:
            del self.kept[: window.ack - self.base]
            self.base = window.ack
            self.sent = max(self.sent, window.ack)
        self.limit = window.limit
        if window.closed:
            self.base = self.sent = self.base + len(self.kept)
            self.kept.clear()
        if len(self.kept) < OUTPUT_RING:
            self.room.set()

    def add(self, data: bytes) -> None:
        self.kept += data
        if len(self.kept) >= OUTPUT_RING:
            self.room.clear()

    def frames(self) -> list[bytes]:
        """Bodies of the DATA frames that may be sent now."""
        out = []
        while self.limit:
            start = self.sent - self.base
            payload = bytes(self.kept[start : start + max(0, min(self.limit - self.sent, DATA_MAX))])
            last = self.eof and start + len(payload) == len(self.kept)
            if not payload and (not last or self.eof_sent):
                break
            out.append(encode_data(Data(self.stream, self.sent, payload, last)))
            self.sent += len(payload)
            self.eof_sent = self.eof_sent or last
        return out


class Input:
    """stdin as the guest takes it."""

    def __init__(self, *, wanted: bool) -> None:
        self.have = 0  # bytes that came
        self.eof = not wanted
        self.closed = not wanted  # nobody reads
        self._unread = bytearray()
        self._told = 0
        self._came = asyncio.Event()

    def take(self, data: Data) -> None:
        fresh = data.payload[self.have - data.offset :] if data.offset <= self.have else b""
        self._unread += fresh
        self.have += len(fresh)
        self.eof = self.eof or (data.eof and data.offset + len(data.payload) == self.have)
        self._came.set()

    async def read(self) -> bytes:
        """What has come; b"" at the end."""
        while not self._unread and not self.eof:
            self._came.clear()
            await self._came.wait()
        found = bytes(self._unread)
        self._unread.clear()
        return found

    def rewind(self) -> None:
        self._told = 0

    def window(self) -> Window | None:
        """What to tell the host, when there is something new."""
        limit = self.have - len(self._unread) + STDIN_RING
        if self.closed or limit <= self._told:
            return None
        self._told = limit
        return Window(0, self.have, limit, closed=False)


class Kernel(Protocol):
    """What a process needs of its guest."""

    def send(self, type_: int, id_: int, body: bytes) -> None: ...

    def frozen(self, container: str) -> asyncio.Event | None:
        """Set when a container goes on again; None when it is not frozen."""

    def ended(self, process: FakeProcess) -> None: ...


Program = Callable[["FakeProcess"], Awaitable[int]]


class FakeProcess:
    """One process, from its start until it is released."""

    def __init__(self, kernel: Kernel, id_: int, pid: int, args: tuple[str, ...], container: str) -> None:
        self.id, self.pid, self.args, self.container = id_, pid, args, container
        self.env: dict[str, str] = {}
        self.main = self.tty = False
        self.size = (0, 0)
        self.ignored: set[int] = set(_IGNORED)
        self.signals: list[int] = []  # all that came
        self.exit: ExitStatus | None = None
        self.stdin = Input(wanted=False)
        self.outputs = {1: Output(1), 2: Output(2)}
        self.program: Program | None = None
        self._kernel = kernel
        self._task: asyncio.Task[int] | None = None
        self._signalled = asyncio.Event()

    def begin(self, program: Program) -> None:
        """In a context of its own: nothing of who asked for it is the program's."""
        self.program = program
        self._task = asyncio.get_running_loop().create_task(_run(program, self), context=Context())
        self._task.add_done_callback(self._returned)

    def copy(self, kernel: Kernel) -> FakeProcess:
        """Another guest's, whose program has not begun: a coroutine has no copy."""
        other = FakeProcess(kernel, self.id, self.pid, self.args, self.container)
        other.env, other.main, other.tty, other.size = dict(self.env), self.main, self.tty, self.size
        other.exit, other.program = self.exit, self.program
        other.stdin.eof, other.stdin.closed, other.stdin.have = self.stdin.eof, self.stdin.closed, self.stdin.have
        other.outputs = {stream: output.copy() for stream, output in self.outputs.items()}
        return other

    # -- for programs ---------------------------------------------------------------

    async def write(self, data: bytes, stream: int = 1) -> None:
        """As write(2) to a pipe that is full: waits for room."""
        await self.thawed()
        for at in range(0, len(data), DATA_MAX):
            await self.outputs[stream].room.wait()
            self.outputs[stream].add(data[at : at + DATA_MAX])
            self.push()

    async def read(self) -> bytes:
        """stdin's next bytes; b"" at its end."""
        found = await self.stdin.read()
        await self.thawed()
        self.tell_window()
        return found

    async def until(self, number: int) -> None:
        """A signal has come, which the program handles itself."""
        self.ignored.add(number)
        while number not in self.signals:
            self._signalled.clear()
            await self._signalled.wait()
        await self.thawed()

    async def thawed(self) -> None:
        while event := self._kernel.frozen(self.container):
            await event.wait()

    # -- for the guest --------------------------------------------------------------

    def push(self) -> None:
        for output in self.outputs.values():
            for body in output.frames():
                self._kernel.send(Type.DATA, self.id, body)

    def tell_window(self) -> None:
        if not self.exit and (window := self.stdin.window()):
            self._kernel.send(Type.WINDOW, self.id, encode_window(window))

    def signal(self, number: int) -> None:
        """One that is not handled ends it, also when it is frozen: Linux makes a SIGKILL of what would be fatal."""
        self.signals.append(number)
        self._signalled.set()
        if not self.exit and (number not in self.ignored or number == signal.SIGKILL):
            self.end(ExitStatus(signal=number))

    def end(self, status: ExitStatus) -> None:
        """Idempotent."""
        if self.exit:
            return
        self.exit = status
        if self._task:
            self._task.cancel()
        for output in self.outputs.values():
            output.eof = True
        self._kernel.send(Type.EXITED, self.id, encode_attrs(exit_attrs(status)))
        self.push()
        self._kernel.ended(self)

    def vanish(self) -> None:
        """Its machine is gone."""
        if self._task:
            self._task.cancel()

    def _returned(self, task: asyncio.Task[int]) -> None:
        if not task.cancelled():
            self.end(ExitStatus(code=1 if task.exception() else task.result()))

    def known(self) -> Attrs:
        """For the answer to HELLO."""
        out: Attrs = [(Tag.ID, self.id), (Tag.PID, self.pid), (Tag.STDIN_ACK, self.stdin.have)]
        out += [(Tag.STDIN_EOF, int(self.stdin.eof)), (Tag.STDOUT_BEGIN, self.outputs[1].base)]
        return [*out, (Tag.STDERR_BEGIN, self.outputs[2].base), *(exit_attrs(self.exit) if self.exit else [])]


def exit_attrs(status: ExitStatus) -> Attrs:
    """How a process ended, as EXITED and HELLO's reply carry it."""
    out: Attrs = [(Tag.SIGNAL, status.signal)] if status.signal else [(Tag.CODE, status.code)]
    return [*out, (Tag.OOM, 1)] if status.oom else out


async def _run(program: Program, process: FakeProcess) -> int:
    code = await program(process)
    await process.thawed()
    return code
