# SPDX-License-Identifier: Apache-2.0
"""Ports over SPDY: two streams for each connection, its data and why it failed, joined by the client's number.

https://github.com/kubernetes/kubernetes/blob/master/staging/src/k8s.io/client-go/tools/portforward/portforward.go
"""

from __future__ import annotations

import asyncio
import contextlib
from collections import deque

from ...engine.forwards import Forwards
from ...errors import HyperError
from ...sys import tasks
from ..faults import message_of
from .spdy import Connection
from .spdy_command import CREATION
from .spdy_frames import Data, Opened, Reset, Why

PROTOCOL = "portforward.k8s.io"
_WAITING_MAX = 256 << 10  # bytes for a server that does not take them, before its whole connection waits


class Incoming:
    """What a client has said on one connection and nobody has taken."""

    def __init__(self) -> None:
        self._pieces: deque[bytes] = deque()
        self._size = 0
        self._ended = self._gone = False
        self._moved = asyncio.Event()

    async def put(self, data: bytes) -> None:
        """Returns when there is room for more; what nobody takes any more is dropped."""
        if data and not self._gone:
            self._pieces.append(data)
            self._size += len(data)
        self._moved.set()
        while self._size > _WAITING_MAX and not self._gone:
            self._moved.clear()
            await self._moved.wait()

    def end(self) -> None:
        self._ended = True
        self._moved.set()

    def drop(self) -> None:
        """Nobody reads it any more, or it has been reset."""
        self._gone = True
        self._pieces.clear()
        self._size = 0
        self._moved.set()

    async def read(self) -> bytes:
        """b"" at its end. :raise ConnectionError: it was dropped."""
        while not self._pieces:
            if self._gone:
                raise ConnectionResetError("the client has given the connection up")
            if self._ended:
                return b""
            self._moved.clear()
            await self._moved.wait()
        data = self._pieces.popleft()
        self._size -= len(data)
        self._moved.set()
        return data


class _Pair:
    """The streams of one forwarded connection; `forwards.Client`."""

    def __init__(self, connection: Connection, port: int) -> None:
        self.port = port
        self.streams: dict[str, int] = {}
        self.complete = asyncio.Event()
        self.incoming = Incoming()
        self._connection = connection

    async def read(self) -> bytes:
        return await self.incoming.read()

    async def write(self, data: bytes) -> None:
        await self._connection.send(self.streams["data"], data)


class SpdyForward:
    """One client."""

    def __init__(self, connection: Connection, forwards: Forwards, pod: str) -> None:
        self._connection, self._forwards, self._pod = connection, forwards, pod
        self._pairs: dict[str, _Pair] = {}  # by the client's number
        self._of_stream: dict[int, _Pair] = {}  # by that of its data
        self._running: set[asyncio.Task[None]] = set()

    async def run(self) -> None:
        """Until it goes. :raise InvalidArgument: what it sends is no SPDY/3.1."""
        try:
            while (came := await self._connection.next()) is not None:
                if isinstance(came, Opened):
                    await self._open(came)
                elif pair := self._of_stream.get(came.stream):
                    await self._said(pair, came)
        except ConnectionError:
            pass
        finally:
            await tasks.end(self._running)

    async def _said(self, pair: _Pair, came: Data | Reset) -> None:
        if isinstance(came, Reset):
            pair.incoming.drop()
            return
        await pair.incoming.put(came.data)
        if came.fin:
            pair.incoming.end()

    async def _open(self, came: Opened) -> None:
        kind, port = came.headers.get("streamtype", ""), came.headers.get("port", "")
        valid = kind in ("data", "error") and port.isdecimal() and len(port) < 6 and 0 < int(port) < 1 << 16
        # Clients that give no number make both streams one after the other, that of errors first.
        number = came.headers.get("requestid") or str(came.stream - (2 if kind == "data" else 0))
        pair = self._pairs.get(number)
        if not valid or (pair and (kind in pair.streams or pair.port != int(port))):
            await self._connection.refuse(came.stream)
            return
        if pair is None:
            pair = self._pairs[number] = _Pair(self._connection, int(port))
            task = asyncio.create_task(self._serve(number, pair))
            self._running.add(task)
            task.add_done_callback(self._running.discard)
        pair.streams[kind] = came.stream
        if kind == "data":
            self._of_stream[came.stream] = pair
            if came.fin:
                pair.incoming.end()
        await self._connection.reply(came.stream)
        if len(pair.streams) == 2:
            pair.complete.set()

    async def _serve(self, number: str, pair: _Pair) -> None:
        """To the end of one connection, of which the client is told."""
        with contextlib.suppress(ConnectionError):
            try:
                await tasks.within(pair.complete.wait(), CREATION)
                words = await self._forwarded(pair)
                await self._connection.send(pair.streams["error"], words, fin=True)
                await self._connection.send(pair.streams["data"], b"", fin=True)
            except TimeoutError:
                for stream in pair.streams.values():
                    await self._connection.refuse(stream, Why.CANCEL)
            finally:
                pair.incoming.drop()
                self._pairs.pop(number, None)
                self._of_stream.pop(pair.streams.get("data", 0), None)

    async def _forwarded(self, pair: _Pair) -> bytes:
        """Why it failed, or nothing."""
        try:
            await self._forwards.connect(self._pod, pair.port, pair)
        except HyperError as error:
            return f"error forwarding port {pair.port}: {message_of(error)}".encode()
        return b""
