# SPDX-License-Identifier: Apache-2.0
"""The wire of a fake guest: one connection, and requests as it reads them."""

from __future__ import annotations

import asyncio
import socket
from collections.abc import Callable
from contextvars import Context
from typing import Protocol

from ..protocol.constants import Tag
from ..protocol.wire import Frame, FrameReader, ProtocolError, decode_attrs, encode_frame, number, text

_CHUNK = 1 << 18  # bytes that are read at once


class Ears(Protocol):
    """Who hears the frames."""

    def on_frame(self, frame: Frame) -> None: ...


class RequestAttrs:
    """A request's attributes; what is absent is empty."""

    def __init__(self, body: bytes) -> None:
        self._found = list(decode_attrs(body))

    def all(self, tag: Tag) -> list[bytes]:
        return [value for t, value in self._found if t == tag]

    def raw(self, tag: Tag) -> bytes:
        return next(iter(self.all(tag)), b"")

    def text(self, tag: Tag) -> str:
        return text(self.raw(tag))

    def number(self, tag: Tag) -> int:
        return number(self.raw(tag) or bytes(8))


class Wire:
    """One connection: the token, then frames both ways."""

    def __init__(
        self, guest: Ears, sock: socket.socket, token: bytes, closed: Callable[[], None], *, paused: bool
    ) -> None:
        sock.setblocking(False)
        self._guest, self._sock, self._closed = guest, sock, closed
        self._token = token
        self._reader = FrameReader(token)
        self._greeted = False
        self._out = bytearray()
        self._loop = asyncio.get_running_loop()
        self._paused = paused
        if not paused:
            self._watch()

    def _watch(self) -> None:
        # In a context of its own: who connected is not who asks later.
        Context().run(self._loop.add_reader, self._sock, self._readable)

    def send(self, type_: int, id_: int, body: bytes) -> None:
        """Before the host's token has come nothing is sent: it would be an older connection's."""
        if self._greeted:
            self._out += encode_frame(type_, id_, body)
            self._flush()

    def send_nonsense(self) -> None:
        """A frame of a length that none may have."""
        self._out += b"\xff" * 16
        self._flush()

    def pause(self) -> None:
        self._paused = True
        self._loop.remove_reader(self._sock)
        self._loop.remove_writer(self._sock)

    def resume(self) -> None:
        if self._paused:
            self._paused = False
            self._watch()
            self._flush()

    def close(self) -> None:
        self._loop.remove_reader(self._sock)
        self._loop.remove_writer(self._sock)
        self._sock.close()

    def _readable(self) -> None:
        try:
            data = self._sock.recv(_CHUNK)
        except BlockingIOError:
            return
        except OSError:
            data = b""
        if not data:
            self._closed()
            return
        try:
            for frame in self._reader.feed(data):
                self._greet()
                self._guest.on_frame(frame)
            if self._reader.synchronised:
                self._greet()
        except ProtocolError:  # it is no host that speaks there
            self._closed()

    def _greet(self) -> None:
        if not self._greeted:
            self._greeted = True
            self._out += self._token
            self._flush()

    def _flush(self) -> None:
        if self._paused or self._sock.fileno() < 0:
            return
        try:
            while self._out:
                del self._out[: self._sock.send(self._out)]
        except BlockingIOError:
            Context().run(self._loop.add_writer, self._sock, self._writable)
        except OSError:  # the host has closed it: `_readable` sees that
            self._out.clear()

    def _writable(self) -> None:
        self._loop.remove_writer(self._sock)
        self._flush()
