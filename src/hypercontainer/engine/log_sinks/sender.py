# SPDX-License-Identifier: Apache-2.0
"""Sinks that send to somebody else: messages over a socket, by a task of their own, and no process waits for them.

What cannot be sent yet waits, up to a limit; then it is dropped and counted, and the receiver is told of the gap when
it is there again. What fails is logged once, until it works again.
"""

from __future__ import annotations

import asyncio
import errno
import logging
import os
import socket
from collections import deque
from collections.abc import Awaitable, Callable

from .sink import NAMES, Piece

log = logging.getLogger(__name__)
_WAITS_MAX = 1 << 20  # bytes of output that wait to be sent
_RETRY = 1.0  # seconds
Encode = Callable[[Piece, bytes, bool], bytes]  # a line of a piece, and whether it goes on, as a message


class Sender:
    """One container's messages. It needs a running event loop."""

    def __init__(self, what: str, connect: Callable[[], Awaitable[socket.socket]], encode: Encode) -> None:
        """`what` names it to people; `connect` gives a connected socket that does not block."""
        self.what = what
        self.error: OSError | None = None  # why nothing is sent now
        self.task: asyncio.Task[None] | None = None  # its owner waits for it after `close`, or ends it
        self._connect, self._encode = connect, encode
        self._socket: socket.socket | None = None
        self._waiting: deque[Piece] = deque()
        self._size = 0
        self._dropped = {1: 0, 2: 0}  # bytes
        self._sent = 0  # lines of the first piece
        self._more = asyncio.Event()
        self._closing = False

    def open(self) -> None:
        if self.task is None:
            self.task = asyncio.create_task(self._send_all())

    def write(self, piece: Piece) -> None:
        if self._waiting and self._size + len(piece.data) > _WAITS_MAX:
            self._dropped[piece.stream] += len(piece.data)
            raise OSError(errno.ENOBUFS, os.strerror(errno.ENOBUFS))
        self._mark_gaps(piece.time)
        self._waiting.append(piece)
        self._size += len(piece.data)
        self._more.set()

    def _mark_gaps(self, time: int) -> None:
        for stream, count in self._dropped.items():
            if count:
                text = f"[hyperd: {count} bytes of {NAMES[stream]} are missing here: they could not be sent in time]\n"
                self._waiting.append(Piece(stream, time, text.encode()))
                self._dropped[stream] = 0

    def flush(self) -> None:
        """It is sent as soon as it can be."""

    def reopen(self) -> None:
        self._disconnect()

    def close(self) -> None:
        """What waits is sent yet, by the task, if that can be done now."""
        self._closing = True
        self._more.set()

    async def _send_all(self) -> None:
        try:
            while not (self._closing and (not self._waiting or self.error)):
                if not self._waiting:
                    self._more.clear()
                    await self._more.wait()
                    continue
                try:
                    await self._send(self._waiting[0])
                except OSError as error:
                    self._fail(error)
                    await asyncio.sleep(_RETRY)
                    continue
                if self.error:
                    log.warning("%s works again", self.what)
                    self.error = None
                self._size -= len(self._waiting.popleft().data)
                self._sent = 0
            if self._waiting:
                log.warning("%s: the last %d bytes were not sent: %s", self.what, self._size, self.error)
        finally:
            self._disconnect()

    async def _send(self, piece: Piece) -> None:
        for number, (line, goes_on) in enumerate(piece.lines()):
            if number < self._sent:
                continue
            if self._socket is None or _ended(self._socket):
                self._disconnect()
                self._socket = await self._connect()
            await asyncio.get_running_loop().sock_sendall(self._socket, self._encode(piece, line, goes_on))
            self._sent = number + 1

    def _fail(self, error: OSError) -> None:
        if self.error is None:
            log.warning("%s does not work, and is tried again: %s", self.what, error.strerror or error)
        self.error = error
        self._disconnect()

    def _disconnect(self) -> None:
        if self._socket:
            self._socket.close()
            self._socket = None


def _ended(sock: socket.socket) -> bool:
    """Whether the other end of a stream has closed it: what is written then is taken all the same, and lost."""
    if sock.type != socket.SOCK_STREAM:
        return False
    try:
        return not sock.recv(1, socket.MSG_PEEK)
    except BlockingIOError:
        return False


async def connect_path(path: str) -> tuple[socket.socket, bool]:
    """A socket of this host, and whether it takes messages rather than a stream. :raise OSError: nobody is there."""
    for kind in (socket.SOCK_DGRAM, socket.SOCK_STREAM):
        sock = socket.socket(socket.AF_UNIX, kind)
        sock.setblocking(False)
        try:
            await asyncio.get_running_loop().sock_connect(sock, path)
        except OSError as error:
            sock.close()
            if error.errno != errno.EPROTOTYPE or kind == socket.SOCK_STREAM:
                raise
            continue
        except BaseException:
            sock.close()
            raise
        return sock, kind == socket.SOCK_DGRAM
    raise AssertionError("one of them was raised")


async def connect_host(kind: socket.SocketKind, host: str, port: int) -> socket.socket:
    """A socket to another host. :raise OSError: it has no address, or nobody is there."""
    loop = asyncio.get_running_loop()
    found = await loop.getaddrinfo(host, port, type=kind)
    failed: OSError | None = None
    for family, type_, protocol, _, address in found:
        sock = socket.socket(family, type_, protocol)
        sock.setblocking(False)
        try:
            await loop.sock_connect(sock, address)
        except OSError as error:
            sock.close()
            failed = error
            continue
        except BaseException:
            sock.close()
            raise
        return sock
    raise failed or OSError(errno.EADDRNOTAVAIL, f"{host} has no address")
