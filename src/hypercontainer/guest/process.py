# SPDX-License-Identifier: Apache-2.0
"""A process in the guest, as the host holds it: streams and exit status."""

from __future__ import annotations

import asyncio
from typing import Protocol

from ..model.identity import Identity
from ..protocol.constants import Type
from ..protocol.messages import ExitStatus, KnownProcess
from ..protocol.streams import Data, Receiver, Sender, Window, encode_window
from ..sys import clock, tasks
from .agent import Sink
from .replies import record_spans

DRAIN_PATIENCE = 10.0  # seconds without a byte of the last output of a process that has ended
DRAIN_LONGEST = 60.0  # seconds for all of it


class Wire(Protocol):
    """What a process needs of its session."""

    def send_frame(self, type_: int, id_: int, body: bytes) -> None:
        """Queue one frame for the guest."""

    async def signal(self, handle: GuestProcessHandle, signal: int, *, everyone: bool = False) -> None: ...

    async def signal_group(self, handle: GuestProcessHandle, signal: int) -> None: ...

    async def resize(self, handle: GuestProcessHandle, rows: int, columns: int) -> None: ...

    async def release(self, handle: GuestProcessHandle) -> None: ...

    def kill_orphan(self, id_: int, offsets: tuple[int, int] = (0, 0)) -> None:
        """End a process that nobody follows any more, and let the guest forget it."""


class GuestProcessHandle:
    """Started by `GuestSession.start`, or found again by `GuestSession.reattach`."""

    def __init__(self, wire: Wire, id_: int, sink: Sink, offsets: tuple[int, int] = (0, 0)) -> None:
        self.id = id_
        self.pid = 0
        self.identity: Identity | None = None  # whose it began as, where the guest said it
        self.stdin = Sender()
        self._exited: asyncio.Future[ExitStatus] = asyncio.get_running_loop().create_future()
        # The session may end with nobody waiting for this process any more.
        self._exited.add_done_callback(lambda f: f.cancelled() or f.exception())
        self.drained = asyncio.Event()  # both outputs have ended
        self._last_message = b""  # that told of the exit
        self._wire = wire
        self._sink = sink
        self._receivers = {1: Receiver(1, offsets[0]), 2: Receiver(2, offsets[1])}
        self._stdin_room = asyncio.Event()
        self._stdin_room.set()

    @property
    def exited(self) -> asyncio.Future[ExitStatus]:
        return asyncio.shield(self._exited)  # one who waits, and is cancelled, does not cancel it for the others

    @property
    def offsets(self) -> tuple[int, int]:
        """Bytes of stdout and stderr that have come."""
        return self._receivers[1].received, self._receivers[2].received

    def open_windows(self) -> None:
        """Grant the first credits of a connection."""
        for receiver in self._receivers.values():
            self._send_window(receiver.window())

    def on_data(self, data: Data) -> None:
        """Bytes of its output, which the sink may take now or later."""
        receiver = self._receivers.get(data.stream)
        if receiver is None or receiver.eof:
            return
        fresh = receiver.data(data)
        if fresh:
            receiver.consumed(self._sink.write(data.stream, fresh))
        if receiver.eof:
            self._sink.end(data.stream)
            if all(r.eof for r in self._receivers.values()):
                self.drained.set()
        self._send_window(receiver.window())

    def acknowledge(self, stream: int, count: int) -> None:
        """`count` bytes that the sink had held back are safe now."""
        receiver = self._receivers[stream]
        receiver.consumed(count)
        self._send_window(receiver.window())

    def on_window(self, window: Window) -> None:
        """The guest has so much of stdin, and takes so much more."""
        self.stdin.acknowledge(window)
        self._push_stdin()

    async def write_stdin(self, data: bytes) -> None:
        """Queue input; returns when the guest has room for more."""
        self.stdin.write(data)
        self._push_stdin()
        await self._stdin_room.wait()

    def close_stdin(self) -> None:
        self.stdin.write_eof()
        self._push_stdin()

    async def signal(self, number: int, *, everyone: bool = False) -> None:
        """To it, or to all processes of its container."""
        await self._wire.signal(self, number, everyone=everyone)

    async def signal_group(self, number: int) -> None:
        """To its process group."""
        await self._wire.signal_group(self, number)

    async def resize(self, rows: int, columns: int) -> None:
        """:raise GuestError: when the process has no terminal."""
        await self._wire.resize(self, rows, columns)

    async def release(self) -> None:
        """Let the guest forget it: it has ended."""
        await self._wire.release(self)

    def abandon(self) -> None:
        """It is killed, and forgotten when it has ended."""
        self._wire.kill_orphan(self.id, self.offsets)

    def record_spans(self) -> None:
        """Record, for the caller's trace, where the guest's time until its end went."""
        record_spans(self._last_message)

    def set_exit(self, status: ExitStatus, told: bytes = b"") -> None:
        """`told` is the guest's message, with its spans."""
        self._last_message = told
        if not self._exited.done():
            self._exited.set_result(status)
        self._sink.exited()
        self._end_stdin()

    async def drain(self) -> bool:
        """After the end, until all output has come; False when none came for some seconds, or it never ended."""
        deadline = clock.seconds() + DRAIN_LONGEST
        while not self.drained.is_set():
            received = sum(r.received for r in self._receivers.values())
            try:
                await tasks.within(self.drained.wait(), DRAIN_PATIENCE)
            except TimeoutError:
                if clock.seconds() > deadline or received == sum(r.received for r in self._receivers.values()):
                    break
        return all(r.eof for r in self._receivers.values())

    def fail(self, error: Exception) -> None:
        if not self._exited.done():
            self._exited.set_exception(error)
        self._end_stdin()
        self.drained.set()

    def _end_stdin(self) -> None:
        """It has ended: whoever writes is not held back, and nothing that they write is kept."""
        self.stdin.close()
        self._stdin_room.set()

    def rebind(self, wire: Wire, known: KnownProcess) -> None:
        """Go on over another connection, whose guest says what it has of this process."""
        self._wire = wire
        for stream, begin in zip((1, 2), known.output_begins, strict=True):
            receiver = self._receivers[stream]
            receiver.renew()
            if begin > receiver.received:
                self._sink.lost(stream, begin - receiver.received)
                receiver.received = receiver.acknowledged = begin
        self.stdin.rewind(known.stdin_have)
        if known.stdin_eof:
            self.stdin.closed = True
        if known.exit and not self._exited.done():
            self.set_exit(known.exit)
        self.open_windows()
        self._push_stdin()

    def _push_stdin(self) -> None:
        for body in self.stdin.frames():
            self._wire.send_frame(Type.DATA, self.id, body)
        if self.stdin.unsent and not self.stdin.closed and not self._exited.done():
            self._stdin_room.clear()
        else:
            self._stdin_room.set()

    def _send_window(self, window: Window | None) -> None:
        if window:
            self._wire.send_frame(Type.WINDOW, self.id, encode_window(window))


class Nothing:
    """Takes the output of a process that nobody wants."""

    def write(self, stream: int, data: bytes) -> int:
        return len(data)

    def exited(self) -> None: ...

    def lost(self, stream: int, count: int) -> None: ...

    def end(self, stream: int) -> None:
        pass
