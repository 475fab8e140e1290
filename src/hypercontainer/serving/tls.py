# SPDX-License-Identifier: Apache-2.0
"""TLS over a connection that asyncio has accepted, of which either side may end its half and go on to read.

A close_notify ends the direction in which it was sent and no other (RFC 8446, 6.1), and Docker's clients end their half
of an attached connection so. `asyncio.sslproto` closes both at the first one. Who has ended the TCP connection
below has gone, whatever was said before.
"""

from __future__ import annotations

import asyncio
import contextlib
import ssl
from typing import Any

_PIECE = 256 << 10  # bytes that are decrypted at once


class TlsProtocol(asyncio.Protocol):
    """What the transport below calls. `inner` is the protocol that is served, once both sides know each other."""

    def __init__(self, inner: asyncio.Protocol, context: ssl.SSLContext) -> None:
        self._inner = inner
        self._incoming, self._outgoing = ssl.MemoryBIO(), ssl.MemoryBIO()
        self._tls = context.wrap_bio(self._incoming, self._outgoing, server_side=True)
        self._below: asyncio.Transport | None = None
        self._above: TlsTransport | None = None  # when the handshake is over
        self._ended = False  # the peer has ended its half
        self.established: asyncio.Future[None] = asyncio.get_running_loop().create_future()

    def connection_made(self, transport: asyncio.BaseTransport) -> None:
        assert isinstance(transport, asyncio.Transport)
        self._below = transport

    def data_received(self, data: bytes) -> None:
        assert self._below is not None
        if self._ended or self._below.is_closing():
            return  # nothing may come after the end
        self._incoming.write(data)
        try:
            if self._above is None:
                self._tls.do_handshake()
                self._begin(self._below)
            self.deliver()
        except ssl.SSLWantReadError:
            pass
        except ssl.SSLError as error:
            self._fail(error)
        finally:
            self._flush()

    def _begin(self, below: asyncio.Transport) -> None:
        self._above = TlsTransport(self, below, self._tls, self._inner)
        self._flush()
        self.established.set_result(None)
        self._inner.connection_made(self._above)

    def _flush(self) -> None:
        if self._outgoing.pending and self._below is not None and not self._below.is_closing():
            self._below.write(self._outgoing.read())

    def _fail(self, error: ssl.SSLError) -> None:
        """The peer is told why, by an alert, if it still listens."""
        assert self._below is not None
        self._flush()
        self._below.close()
        if not self.established.done():
            self.established.set_exception(error)

    def deliver(self) -> None:
        """What has been received, as far as it is wanted.

        :raise ssl.SSLWantReadError: no more is there yet. :raise ssl.SSLError: it is no TLS.
        """
        assert self._above is not None
        while not (self._ended or self._above.paused or self._above.is_closing()):
            try:
                data = self._tls.read(_PIECE)
            except ssl.SSLZeroReturnError:
                data = b""
            if data:
                self._inner.data_received(data)
                continue
            self._ended = True
            if not self._inner.eof_received():
                self._above.close()

    def resumed(self) -> None:
        """What lay here while nothing was wanted comes before anything else."""
        try:
            self.deliver()
        except ssl.SSLWantReadError:
            pass
        except ssl.SSLError as error:
            self._fail(error)
        if self._above and self._below and not (self._above.paused or self._below.is_closing()):
            self._below.resume_reading()

    def send(self, data: bytes | bytearray | memoryview) -> None:
        assert self._below is not None
        rest = memoryview(data)
        while rest:
            rest = rest[self._tls.write(rest) :]
        self._flush()

    def end(self) -> None:
        """Our half: a close_notify, once."""
        with contextlib.suppress(ssl.SSLError):  # it waits for the peer's, or what the peer sends comes before that
            self._tls.unwrap()
        self._flush()

    def eof_received(self) -> None:
        """The transport closes itself."""

    def connection_lost(self, exc: Exception | None) -> None:
        if not self.established.done():
            self.established.set_exception(exc or ConnectionResetError("the peer has gone"))
        if self._above is not None:
            self._inner.connection_lost(exc)

    def pause_writing(self) -> None:
        if self._above is not None:
            self._inner.pause_writing()

    def resume_writing(self) -> None:
        if self._above is not None:
            self._inner.resume_writing()


class TlsTransport(asyncio.Transport):
    """What is served writes to it."""

    def __init__(
        self, tls: TlsProtocol, below: asyncio.Transport, connection: ssl.SSLObject, protocol: asyncio.Protocol
    ) -> None:
        super().__init__(
            {"sslcontext": connection.context, "ssl_object": connection, "peercert": connection.getpeercert(),
             "cipher": connection.cipher()}
        )  # fmt: skip
        self._tls = tls
        self._below = below
        self._protocol = protocol
        self._half = False  # we have ended ours
        self.paused = False

    def get_extra_info(self, name: str, default: Any = None) -> Any:
        found = super().get_extra_info(name)
        return self._below.get_extra_info(name, default) if found is None else found

    def get_protocol(self) -> asyncio.BaseProtocol:
        return self._protocol

    def is_closing(self) -> bool:
        return self._below.is_closing()

    def is_reading(self) -> bool:
        return not self.paused and not self.is_closing()

    def pause_reading(self) -> None:
        if not self.paused and not self.is_closing():
            self.paused = True
            self._below.pause_reading()

    def resume_reading(self) -> None:
        if self.paused and not self.is_closing():
            self.paused = False
            asyncio.get_running_loop().call_soon(self._tls.resumed)

    def write(self, data: bytes | bytearray | memoryview) -> None:
        if not (self._half or self.is_closing()):
            self._tls.send(data)

    def can_write_eof(self) -> bool:
        return True

    def write_eof(self) -> None:
        if not (self._half or self.is_closing()):
            self._half = True
            self._tls.end()

    def close(self) -> None:
        """When all that was written is sent."""
        self.write_eof()
        self._below.close()

    def abort(self) -> None:
        self._below.abort()

    def get_write_buffer_size(self) -> int:
        return self._below.get_write_buffer_size()

    def get_write_buffer_limits(self) -> tuple[int, int]:
        return self._below.get_write_buffer_limits()

    def set_write_buffer_limits(self, high: int | None = None, low: int | None = None) -> None:
        self._below.set_write_buffer_limits(high, low)
