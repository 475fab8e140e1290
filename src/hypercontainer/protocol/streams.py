# SPDX-License-Identifier: Apache-2.0
"""Resumable byte streams: offsets, credits and acknowledgements, without I/O.

`Sender` is the host's end of stdin, `Receiver` of stdout or stderr. Both
survive a connection: `rewind` puts them where the new one begins.
"""

from __future__ import annotations

import struct
from typing import NamedTuple

from .constants import DATA_EOF, DATA_MAX, OUTPUT_RING, STDIN_RING, STREAM_HEADER, WINDOW_CLOSED
from .wire import ProtocolError

_DATA = struct.Struct("<BBHIQ")
_WINDOW = struct.Struct("<BBHIQQ")


class Data(NamedTuple):
    """Body of a DATA frame."""

    stream: int
    offset: int
    payload: bytes
    eof: bool


class Window(NamedTuple):
    """Body of a WINDOW frame."""

    stream: int
    ack: int
    limit: int
    closed: bool


def encode_data(data: Data) -> bytes:
    flags = DATA_EOF if data.eof else 0
    return _DATA.pack(data.stream, flags, 0, 0, data.offset) + data.payload


def decode_data(body: bytes) -> Data:
    """:raise ProtocolError: when it is cut short."""
    if len(body) < STREAM_HEADER:
        raise ProtocolError("a data frame is cut short")
    stream, flags, _, _, offset = _DATA.unpack_from(body)
    return Data(stream, offset, body[STREAM_HEADER:], bool(flags & DATA_EOF))


def encode_window(window: Window) -> bytes:
    flags = WINDOW_CLOSED if window.closed else 0
    return _WINDOW.pack(window.stream, flags, 0, 0, window.ack, window.limit)


def decode_window(body: bytes) -> Window:
    """:raise ProtocolError: when it has the wrong length."""
    if len(body) != _WINDOW.size:
        raise ProtocolError("a window frame has the wrong length")
    stream, flags, _, _, ack, limit = _WINDOW.unpack(body)
    return Window(stream, ack, limit, bool(flags & WINDOW_CLOSED))


class Receiver:
    """stdout or stderr as the host receives it.

    Bytes are acknowledged when the consumer says so (`consumed`), that is,
    after they are safe; what was received and not consumed is asked again
    after a reconnection.
    """

    def __init__(self, stream: int, offset: int = 0, window: int = OUTPUT_RING) -> None:
        self.stream = stream
        self.received = self.acknowledged = offset
        self.eof = False
        self._window = window
        self._announced = 0

    def data(self, data: Data) -> bytes:
        """The bytes that are new.

        :raise ProtocolError: when bytes between are missing, or are more than the peer had credit for.
        """
        if data.offset + len(data.payload) > self.acknowledged + self._window:
            raise ProtocolError(f"stream {self.stream} passes its credit at {self.acknowledged + self._window}")
        if data.offset > self.received:
            raise ProtocolError(f"stream {self.stream} has a gap at {self.received}")
        fresh = data.payload[self.received - data.offset :]
        self.received += len(fresh)
        self.eof = self.eof or (data.eof and data.offset + len(data.payload) == self.received)
        return fresh

    def consumed(self, count: int) -> None:
        self.acknowledged += count

    def rewind(self) -> None:
        self.received = self.acknowledged
        self.eof = False
        self._announced = 0

    def renew(self) -> None:
        """On another connection: what was received is still held here, the credit is to be told again."""
        self._announced = 0

    def window(self) -> Window | None:
        """What to tell the sender, when there is enough to tell."""
        limit = self.acknowledged + self._window
        if self._announced and limit - self._announced < self._window // 4:
            return None
        self._announced = limit
        return Window(self.stream, self.acknowledged, limit, closed=False)


class Sender:
    """stdin as the host sends it; keeps what the guest has not got yet."""

    def __init__(self, stream: int = 0) -> None:
        self.stream = stream
        self.closed = False  # the guest no longer reads
        self.abandoned = False  # nobody writes any more, and what the guest says of it is not looked at
        self._kept = bytearray()
        self._base = 0  # offset of _kept[0]
        self._sent = 0
        self._limit = 0
        self._eof = False
        self._eof_sent = False

    @property
    def unsent(self) -> int:
        """Bytes that wait for credit."""
        return self._base + len(self._kept) - self._sent

    @property
    def eof(self) -> bool:
        return self._eof

    def write(self, data: bytes) -> None:
        if not self.closed and not self._eof:
            self._kept += data

    def write_eof(self) -> None:
        self._eof = True

    def acknowledge(self, window: Window) -> None:
        """:raise ProtocolError: when it acknowledges what was never sent, or grants more than a guest keeps."""
        if self.abandoned:
            return
        if window.ack > self._sent and not window.closed:
            raise ProtocolError("stdin acknowledged beyond its end")
        if window.limit > window.ack + STDIN_RING and not window.closed:
            raise ProtocolError("stdin has more credit than a guest has room")
        if window.closed:
            self.close(window.ack)
            return
        if window.ack > self._base:
            del self._kept[: window.ack - self._base]
            self._base = window.ack
            self._sent = max(self._sent, window.ack)
        self._limit = max(self._limit, window.limit)

    def close(self, have: int = 0) -> None:
        """Nobody reads it any more: what is kept, and what is written yet, goes."""
        self.closed = True
        self._kept.clear()
        self._base = self._sent = max(self._sent, have)

    def rewind(self, have: int) -> None:
        """After a reconnection: the guest has all bytes below `have`."""
        if have > self._base:
            del self._kept[: have - self._base]
            self._base = have
        self._sent = max(have, self._base)
        self._limit = 0
        self._eof_sent = False

    def frames(self) -> list[bytes]:
        """Bodies of the DATA frames that may be sent now."""
        out: list[bytes] = []
        while not self.closed:
            start = self._sent - self._base
            room = self._limit - self._sent
            payload = bytes(self._kept[start : start + max(0, min(room, DATA_MAX))])
            last = self._eof and start + len(payload) == len(self._kept)
            if not payload and (not last or self._eof_sent or not self._limit):
                break
            out.append(encode_data(Data(self.stream, self._sent, payload, last)))
            self._sent += len(payload)
            self._eof_sent = self._eof_sent or last
        return out
