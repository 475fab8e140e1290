# SPDX-License-Identifier: Apache-2.0
"""Accepting connections: so many of each peer and in all, none that does not say what it wants in time.

aiohttp parses requests, bounds their heads (`server_options`), and closes a connection on which no whole head has
come for a while. What it does not do is done here: counting who has how many connections, from the moment
they are accepted on, before TLS has been negotiated.
"""

from __future__ import annotations

import asyncio
import contextlib
import errno
import logging
import os
import socket
import ssl
import traceback
from collections import Counter
from collections.abc import Callable
from dataclasses import dataclass
from typing import Any

from aiohttp.http import HttpProcessingError

from ..sys import tasks
from ..sys.peer import peer_name
from .tls import TlsProtocol

log = logging.getLogger(__name__)
_BACKLOG = 4096  # connections that may wait for us; the kernel caps it by net.core.somaxconn
_EXHAUSTED = (errno.EMFILE, errno.ENFILE, errno.ENOBUFS, errno.ENOMEM)
_PAUSE = 0.2  # seconds until the next attempt, when there are no descriptors or no memory
_REFUSED = (
    b"HTTP/1.1 503 Service Unavailable\r\nContent-Type: application/json\r\nConnection: close\r\n"
    b"Content-Length: %d\r\n\r\n%b"
)
_WHY = b'{"code":"unavailable","message":"too many connections are open","hint":"close some, or raise connections_max"}'
# A peer that is gone without a word: tcp(7). Seconds, and probes.
_KEEPALIVE = ((socket.TCP_KEEPIDLE, 60), (socket.TCP_KEEPINTVL, 10), (socket.TCP_KEEPCNT, 3))


@dataclass(frozen=True)
class ListenLimits:
    """What a listener admits."""

    connections: int = 1024  # at once; root and hyperd's own user have as many of their own
    per_peer: int = 256  # of them, of one user, address, or IPv6 network of 64 bits
    head_time: float = 20.0  # seconds for a request's head, and for a connection to be idle
    handshake_time: float = 10.0  # seconds for TLS


def server_options(limits: ListenLimits) -> dict[str, Any]:
    """For aiohttp's AppRunner."""
    return {
        "keepalive_timeout": limits.head_time,  # runs from the connection's begin on
        "max_line_size": 32 << 10,  # a path of a container has 4096 bytes, three times as many when it is escaped
        "max_field_size": 16 << 10,
        "max_headers": 64,
        "logger": _quiet(),
        "auto_decompress": False,  # nobody sends compressed bodies but to fill memory
        "lingering_time": 5.0,  # for the rest of a body that nobody wants
    }


def _quiet() -> logging.Logger:
    """What is no HTTP is no error of ours: anybody could fill the log with it."""
    logger = logging.getLogger(f"{__name__}.http")
    logger.addFilter(_is_ours)
    return logger


def _is_ours(record: logging.LogRecord) -> bool:
    error = record.exc_info[1] if record.exc_info else None
    return not isinstance(error, (HttpProcessingError, ConnectionError))


class Listener:
    """One socket that listens; `start`, and `close` at the end."""

    def __init__(
        self, sock: socket.socket, factory: Callable[[], asyncio.BaseProtocol], limits: ListenLimits,
        tls: ssl.SSLContext | None = None,
    ) -> None:  # fmt: skip
        """`factory` makes aiohttp's protocol of a connection."""
        self._sock = sock
        self._factory = factory
        self._limits = limits
        self._tls = tls
        self._of_peer: Counter[str] = Counter()
        self._greeting: set[asyncio.Task[None]] = set()
        self._task: asyncio.Task[None] | None = None
        self.refused = 0  # connections, since the start

    def start(self) -> None:
        self._sock.setblocking(False)
        self._sock.listen(_BACKLOG)
        self._task = asyncio.create_task(self._accept())

    async def close(self) -> None:
        """No further ones; those that are open are aiohttp's to end.

        The kernel takes none for us either: whoever it took would wait for an answer until we have ended.
        """
        await tasks.end([*([self._task] if self._task else []), *self._greeting])
        self._sock.close()

    @property
    def connections(self) -> int:
        return self._of_peer.total()

    async def _accept(self) -> None:
        loop = asyncio.get_running_loop()
        while True:
            try:
                conn, _ = await loop.sock_accept(self._sock)
            except OSError as error:
                if self._sock.fileno() < 0:
                    return  # it is closed, and would fail again at once, for ever
                if error.errno in _EXHAUSTED:
                    log.error("no further connection can be accepted: %s", error.strerror)
                    await asyncio.sleep(_PAUSE)
                continue  # or the peer has gone already
            peer = peer_name(conn)
            if not self._admits(peer):
                self._refuse(conn, peer)
                continue
            self._of_peer[peer] += 1
            task = loop.create_task(self._greet(conn, peer))
            self._greeting.add(task)
            task.add_done_callback(self._greeting.discard)

    def _admits(self, peer: str) -> bool:
        limits = self._limits
        if peer in _OWN:
            return self._of_peer[peer] < limits.connections
        others = sum(n for p, n in self._of_peer.items() if p not in _OWN)
        return others < limits.connections and self._of_peer[peer] < limits.per_peer

    def _refuse(self, conn: socket.socket, peer: str) -> None:
        self.refused += 1
        if self.refused & (self.refused - 1) == 0:  # the first, the second, the fourth: a flood fills no log
            log.warning("too many connections, last one of %s: %d were refused so far", peer, self.refused)
        with conn, contextlib.suppress(OSError):
            if self._tls is None:
                conn.send(_REFUSED % (len(_WHY), _WHY))

    async def _greet(self, conn: socket.socket, peer: str) -> None:
        protocol = Connection(self._factory(), lambda: self._gone(peer))
        try:
            _tune(conn)
            # From here on the loop owns the descriptor, and closes it whatever happens.
            if self._tls:
                await self._greet_by_tls(conn, TlsProtocol(protocol, self._tls))
            else:
                await asyncio.get_running_loop().connect_accepted_socket(lambda: protocol, conn)
        except (OSError, ssl.SSLError) as error:
            log.debug("a connection of %s came to nothing: %s", peer, error)
            protocol.release()
            _let_go(error)
        except BaseException:
            protocol.release()
            raise

    async def _greet_by_tls(self, conn: socket.socket, protocol: TlsProtocol) -> None:
        transport, _ = await asyncio.get_running_loop().connect_accepted_socket(lambda: protocol, conn)
        try:
            async with asyncio.timeout(self._limits.handshake_time):
                await protocol.established
        except BaseException:
            if not transport.is_closing():  # what says why is still on its way
                transport.abort()
            raise

    def _gone(self, peer: str) -> None:
        self._of_peer[peer] -= 1
        if not self._of_peer[peer]:
            del self._of_peer[peer]


class Connection(asyncio.Protocol):
    """aiohttp's protocol, whose end is told once; and the end of what comes to one that was taken from HTTP."""

    def __init__(self, inner: asyncio.BaseProtocol, gone: Callable[[], None]) -> None:
        assert isinstance(inner, asyncio.Protocol)
        self._inner = inner
        self._gone: Callable[[], None] | None = gone
        self.keeps_half: Callable[[], None] | None = None  # told when the peer has ended its half: ours goes on
        # What a loop calls for every piece goes straight to it.
        self.data_received = inner.data_received  # type: ignore[method-assign]
        self.pause_writing = inner.pause_writing  # type: ignore[method-assign]
        self.resume_writing = inner.resume_writing  # type: ignore[method-assign]
        self.connection_made = inner.connection_made  # type: ignore[method-assign]

    def eof_received(self) -> bool | None:
        if self.keeps_half:
            self.keeps_half()
            return True
        return self._inner.eof_received()

    def connection_lost(self, exc: Exception | None) -> None:
        self.release()
        self._inner.connection_lost(exc)

    def release(self) -> None:
        gone, self._gone = self._gone, None
        if gone:
            gone()


def _let_go(error: BaseException | None) -> None:
    """What a failed handshake holds, 256 KiB of buffers, is in a circle by its error's frames, which lasts until
    the collector comes by: thousands of connections, for whoever opens and closes them.
    """
    while error:
        traceback.clear_frames(error.__traceback__)
        error.__traceback__ = None
        error = error.__context__


def _tune(conn: socket.socket) -> None:
    if conn.family == socket.AF_UNIX:
        return
    try:
        conn.setsockopt(socket.SOL_SOCKET, socket.SO_KEEPALIVE, 1)
        for option, value in _KEEPALIVE:
            conn.setsockopt(socket.IPPROTO_TCP, option, value)
    except OSError:
        conn.close()
        raise


_OWN = frozenset({"uid:0", f"uid:{os.geteuid()}"})
