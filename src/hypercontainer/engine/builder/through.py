# SPDX-License-Identifier: Apache-2.0
"""A client that speaks with BuildKit itself, whose connection is passed through and read along."""

from __future__ import annotations

import asyncio
import contextlib
import logging
import socket
from collections.abc import Awaitable, Callable
from typing import Protocol

from ...errors import HyperError, Unavailable
from ...sys import tasks
from .dockerd import Dockerd, Query
from .names import NameFinder
from .solved import Answers, Asked, goaway
from .transfer import Transfer

log = logging.getLogger(__name__)
_CHUNK = 64 << 10  # bytes
_HEAD_MAX = 16 << 10  # bytes


class Through(Protocol):
    """A client whose connection is passed through."""

    async def open(self) -> None:
        """Tell the client, which goes on in the other protocol."""

    async def read(self) -> bytes | None:
        """What comes next; b"" once, when the client has ended its half; None when it has gone."""

    async def write(self, data: bytes) -> None:
        """:raise ConnectionError: the client has gone."""

    async def end(self) -> None:
        """The builder has ended."""


class Passage:
    """One connection. Images that are named on the way are there before the name arrives, and what was made is in our
    store before the client hears of it."""

    def __init__(
        self, transfer: Transfer, dockerd: Dockerd, peer: Through, connect: Callable[[], Awaitable[socket.socket]]
    ) -> None:
        """`connect` gives a connection to dockerd in the other protocol."""
        self.owes = False  # an image was asked for that has not been seen to be made
        self._transfer = transfer
        self._dockerd = dockerd
        self._peer = peer
        self._connect = connect
        self._end: socket.socket | None = None
        self._first = b""  # what the client has sent before there was a connection
        self._whole = True  # what was written to the client ends with a frame
        self._names, self._asked, self._answers = NameFinder(), Asked(), Answers()

    async def open(self) -> None:
        """Connect, and tell the client. :raise HyperError: dockerd does not agree."""
        self._end = await self._connect()
        try:
            await self._peer.open()
        except BaseException:
            self._end.close()
            raise

    async def begun(self) -> bool:
        """Tell the client; whether it has sent something then, or has ended the connection."""
        with contextlib.suppress(ConnectionError):
            await self._peer.open()
            self._first = await self._peer.read() or b""
            if not self._first:
                await self._peer.end()
        return bool(self._first)

    async def go(self) -> None:
        """Both ways, until dockerd's side ends; without the client it is ended."""
        with contextlib.suppress(ConnectionError):
            try:
                self._end = self._end or await self._connect()
                with self._end as end:
                    await self._carry(end)
            except HyperError as error:
                log.warning("a client's connection to the builder ends: %s", error)
                if self._whole:
                    await self._peer.write(goaway(error, first=self._answers.nothing))
            await self._peer.end()

    async def _carry(self, end: socket.socket) -> None:
        """:raise HyperError: what was made cannot be taken in."""
        sending = asyncio.create_task(self._forth(end))
        try:
            while data := await asyncio.get_running_loop().sock_recv(end, _CHUNK):
                for solved in self._answers.feed(data):
                    await self._transfer.take(self._dockerd, solved.id, solved.names)
                    self.owes = False
                await self._peer.write(data)
                self._whole = self._answers.between
        finally:
            await tasks.end([sending])

    async def _forth(self, end: socket.socket) -> None:
        data = self._first or await self._peer.read()
        with contextlib.suppress(OSError):
            while data:
                self.owes = self._asked.feed(data) or self.owes
                await self._transfer.offer(self._dockerd, self._names.feed(data))
                await asyncio.get_running_loop().sock_sendall(end, data)
                data = await self._peer.read()
            end.shutdown(socket.SHUT_RDWR if data is None else socket.SHUT_WR)


async def upgraded(end: socket.socket, path: str, headers: Query) -> socket.socket:
    """A connection to dockerd that goes on in another protocol. :raise Unavailable: it does not agree."""
    fields = [("Host", "builder"), ("Connection", "Upgrade"), ("Upgrade", "h2c"), *headers]
    lines = [f"POST {path} HTTP/1.1", *(f"{name}: {value}" for name, value in fields), "", ""]
    loop, head = asyncio.get_running_loop(), b""
    try:
        await loop.sock_sendall(end, "\r\n".join(lines).encode())
        # A byte at a time: what follows the head is the client's.
        while not head.endswith(b"\r\n\r\n") and (byte := await loop.sock_recv(end, 1)) and len(head) < _HEAD_MAX:
            head += byte
        if not head.startswith(b"HTTP/1.1 101"):
            said = head.partition(b"\r\n")[0].decode(errors="replace") or "nothing"
            raise Unavailable(f"the builder does not take a connection for {path}: it says {said}")
    except BaseException:
        end.close()
        raise
    return end
