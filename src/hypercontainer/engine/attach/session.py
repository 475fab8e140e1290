# SPDX-License-Identifier: Apache-2.0
"""One attached client and one process: input, output, window sizes, the detach keys, and how it ends.

Five tasks at most, all of them the session's own:

    listening   takes what the client says, at once: neither the keys nor a size wait behind input
    feeding     hands input to the process, which may not take it for long; so much of it waits, and no more is taken
    sizing      tells the guest the last size, which takes an answer
    course      shows the log so far, then the output, and learns how the process ended
    starting    the start, if there is to be one: given up with a client that goes, and not with one that detaches

The session ends with the course, with the client, or by the keys, whichever comes first. A slow client slows the
process by what waits for it in its `Reader`.
"""

from __future__ import annotations

import asyncio
import contextlib
import logging
from collections import deque
from collections.abc import AsyncGenerator, Awaitable, Callable
from dataclasses import dataclass
from typing import Any, Protocol

from ...errors import HyperError
from ...model.detach_keys import DETACH_KEYS
from ...sys import tasks
from ..streams import FanOut, Reader
from .keys import DetachFilter
from .peer import End, Input, Peer, Resize, Watched

log = logging.getLogger(__name__)
_INPUT_MAX = 256 << 10  # bytes of input that wait for the process before no more is taken
_BOTH = frozenset({1, 2})
Chunks = AsyncGenerator[tuple[int, bytes], None]


class Source(Protocol):
    """Output of a process, by (stream, bytes)."""

    def __aiter__(self) -> Chunks: ...

    def close(self) -> None: ...


@dataclass(frozen=True, kw_only=True)
class AttachOptions:
    """What a client asks for."""

    outputs: frozenset[int] = _BOTH  # which of stdout and stderr it gets
    logs: bool = False  # what the log has, first
    stream: bool = True  # and then what comes; without, the session ends after the log
    keeps_stdin: bool = False  # the end of its input is nobody else's: the process's stdin stays open
    detach_keys: bytes = DETACH_KEYS  # of a terminal; b"": none
    bound: bool = False  # the process is killed when the client goes, unless by the keys
    size: tuple[int, int] = (0, 0)  # rows and columns of the client's terminal, for a process that it starts


@dataclass(frozen=True, kw_only=True)
class Attached:
    """The process, as its owner hands it out."""

    fan_out: FanOut
    tty: bool
    closes_stdin: bool  # the end of a client's input is that of the process's
    begin: Callable[[], asyncio.Task[Any]] | None  # asks for its start, if the client does, and waits for it
    finish: Callable[[], Awaitable[End]]  # when its output has ended: how it ended
    detached: Callable[[], None] = lambda: None  # a client has left it by the keys
    kill: Callable[[], Awaitable[None]] | None = None  # for a client that it is bound to
    history: Callable[[], Source] | None = None  # what of the output came before now, without a gap to what follows


class AttachSession:
    """Made for one `run`."""

    def __init__(self, attached: Attached, options: AttachOptions) -> None:
        self._attached = attached
        self._options = options
        self._fan_out = attached.fan_out
        self._keys = DetachFilter(options.detach_keys) if attached.tty and options.detach_keys else None
        self._input: deque[bytes | None] = deque()  # None: its end
        self._waiting = 0
        self._fed = asyncio.Event()  # there is input, for who feeds
        self._room = asyncio.Event()  # there is room for more, for who listens
        self._room.set()
        self._size: Resize | None = None
        self._sized = asyncio.Event()
        self._told = False  # the last word was said, or is about to be

    async def run(self, peer: Peer) -> None:
        """To the end, which the client is told.

        :raise Exception: a defect of ours; the client was told that, too. A client that goes is none.
        """
        attached = self._attached
        reader = self._fan_out.attach() if self._options.stream else None
        history = attached.history() if attached.history and self._options.logs else None
        running: list[asyncio.Task[Any]] = []
        try:
            # First, and in any case: what was made to be started is settled by its start, which may be given up.
            starting = attached.begin() if attached.begin else None
            running += [starting] if starting else []
            await peer.open()
            course = asyncio.create_task(self._course(peer, starting, history, reader))
            listening = asyncio.create_task(self._listen(peer))
            running += [course, listening, asyncio.create_task(self._feed()), asyncio.create_task(self._resize())]
            await _until_one_matters(running, starting)
            await self._conclude(peer, course, starting, running)
        except ConnectionError as error:
            log.debug("an attached client has gone: %s", error)
        finally:
            if reader:
                reader.close()
            try:
                await tasks.end(running)
                await asyncio.gather(*running, return_exceptions=True)
            finally:
                if history:
                    history.close()
                if self._is_abandoned(peer) and attached.kill:
                    # A server may have cancelled this, since the client has gone; not because the daemon ends.
                    with contextlib.suppress(HyperError):  # it has ended, or did not start
                        await tasks.to_the_end(attached.kill())

    def _is_abandoned(self, peer: Peer) -> bool:
        return self._options.bound and not self._told and isinstance(peer, Watched) and peer.gone

    def resize(self, rows: int, columns: int) -> None:
        """Where sizes come by another way than the peer's."""
        self._size = Resize(rows, columns)
        self._sized.set()

    # -- the client's side ------------------------------------------------------------

    async def _listen(self, peer: Peer) -> None:
        """Until the client goes, or has detached."""
        while (said := await peer.receive()) is not None:
            if isinstance(said, Resize):
                self.resize(said.rows, said.columns)
            elif isinstance(said, Input):
                self._put(self._keys.feed(said.data) if self._keys else said.data)
                if self._keys and self._keys.detached:
                    return
            else:
                self._put(self._keys.end() if self._keys else b"")
                if self._attached.closes_stdin and not self._options.keeps_stdin:
                    self._put(None)
            await self._room.wait()

    def _put(self, data: bytes | None) -> None:
        if data == b"":
            return
        self._input.append(data)
        self._waiting += len(data or b"")
        self._fed.set()
        if self._waiting > _INPUT_MAX:
            self._room.clear()

    # -- the process's side -----------------------------------------------------------

    async def _feed(self) -> None:
        """Input for a process that has not started waits for it."""
        while True:
            await self._fan_out.started.wait()
            await self._fed.wait()
            self._fed.clear()
            while self._input:
                data = self._input.popleft()
                if handle := self._fan_out.handle:
                    if data is None:
                        handle.close_stdin()
                    else:
                        await handle.write_stdin(data)
                self._waiting -= len(data or b"")
                if self._waiting <= _INPUT_MAX:
                    self._room.set()

    async def _resize(self) -> None:
        while True:
            await self._sized.wait()
            await self._fan_out.started.wait()
            self._sized.clear()
            size, handle = self._size, self._fan_out.handle
            if size and handle:
                with contextlib.suppress(HyperError):  # it may have ended, or have no terminal
                    await handle.resize(size.rows, size.columns)

    async def _course(
        self, peer: Peer, starting: asyncio.Task[Any] | None, history: Source | None, reader: Reader | None
    ) -> End:
        for source in filter(None, (history, reader)):
            async with contextlib.aclosing(aiter(source)) as chunks:
                async for stream, data in chunks:
                    if stream in self._options.outputs:
                        await peer.send(stream, data)
        if starting:
            await asyncio.wait([starting])  # it is not cancelled with this: see `_conclude`
            starting.result()
        if reader is None:
            return End()
        return _with_loss(await self._attached.finish(), reader.lost)

    # -- the end ----------------------------------------------------------------------

    async def _conclude(
        self,
        peer: Peer,
        course: asyncio.Task[End],
        starting: asyncio.Task[Any] | None,
        running: list[asyncio.Task[Any]],
    ) -> None:
        """By the course, by the keys, by an error, or because the client has gone and need not be told."""
        detached = self._keys is not None and self._keys.detached and not course.done()
        if detached and starting:
            await asyncio.wait([starting])
        if failed := _error_of(running):
            await tasks.end([course])  # nothing is sent after the last word
            if isinstance(failed, ConnectionError):
                raise failed
            await self._tell(peer, End(error=failed))
            if not isinstance(failed, HyperError):
                raise failed
        elif detached:
            await tasks.end([course])
            self._attached.detached()
            await self._tell(peer, End(detached=True))
        elif course.done():
            await self._tell(peer, course.result())

    async def _tell(self, peer: Peer, end: End) -> None:
        self._told = True
        await peer.finish(end)


async def _until_one_matters(running: list[asyncio.Task[Any]], starting: asyncio.Task[Any] | None) -> None:
    """Until one has ended; a start that went well is no end."""
    waiting = set(running)
    while waiting:
        done, waiting = await asyncio.wait(waiting, return_when=asyncio.FIRST_COMPLETED)
        if any(t is not starting or t.cancelled() or t.exception() for t in done):
            return


def _error_of(running: list[asyncio.Task[Any]]) -> Exception | None:
    """Of the first that has failed; a start that was cancelled by somebody else is one, too."""
    for task in running:
        if task.done() and not task.cancelled() and isinstance(error := task.exception(), Exception):
            return error
    return None


def _with_loss(end: End, lost: int) -> End:
    if not lost:
        return end
    why = (
        f"{lost} bytes of output are not shown: they were not read in time; `hyperctl logs` has them if there is a log"
    )
    return End(exit_code=end.exit_code, message="; ".join(filter(None, (end.message, why))))
