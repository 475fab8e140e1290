# SPDX-License-Identifier: Apache-2.0
"""Frames of SPDY/3.1.

https://www.chromium.org/spdy/spdy-protocol/spdy-protocol-draft3-1/#22-framing

    data      0 stream:31        flags:8 length:24  bytes
    control   1 version:15=3 type:16  flags:8 length:24  what the type says
"""

from __future__ import annotations

import struct
from collections.abc import Iterator, Mapping
from dataclasses import dataclass
from enum import IntEnum

from ...errors import InvalidArgument
from .spdy_headers import HeaderReader, HeaderWriter

VERSION = 3
FIN = 1
DATA_MAX = 32 << 10  # bytes in each frame that we send
CONTROL_MAX = 64 << 10  # bytes of a control frame that is taken; data comes in pieces, whatever a frame's length
_HEADER = struct.Struct(">II")
_CONTROL = 1 << 31
_STREAM = _CONTROL - 1


class Type(IntEnum):
    """Of a control frame; others than these are passed over."""

    SYN_STREAM = 1
    SYN_REPLY = 2
    RST_STREAM = 3
    PING = 6
    GOAWAY = 7
    HEADERS = 8


class Why(IntEnum):
    """Why a stream is reset."""

    PROTOCOL_ERROR = 1
    REFUSED_STREAM = 3
    CANCEL = 5


@dataclass(frozen=True)
class Opened:
    """SYN_STREAM: the other side has a new stream."""

    stream: int
    headers: dict[str, str]
    fin: bool = False


@dataclass(frozen=True)
class Replied:
    """SYN_REPLY: the other side takes a stream of ours."""

    stream: int
    headers: dict[str, str]
    fin: bool = False


@dataclass(frozen=True)
class Data:
    """A piece of a stream; `fin`: the last."""

    stream: int
    data: bytes
    fin: bool = False


@dataclass(frozen=True)
class Reset:
    """RST_STREAM."""

    stream: int
    status: int


@dataclass(frozen=True)
class Ping:
    """To be sent back."""

    id: int


@dataclass(frozen=True)
class GoAway:
    """The other side opens no further streams."""

    last: int


Frame = Opened | Replied | Data | Reset | Ping | GoAway


class Decoder:
    """Bytes as they come become frames."""

    def __init__(self) -> None:
        self._headers = HeaderReader()
        self._buffer = bytearray()
        self._data: tuple[int, int, bool] | None = None  # a data frame's stream, the bytes that are missing, its end

    def feed(self, data: bytes) -> Iterator[Frame]:
        """:raise InvalidArgument: what comes is no SPDY/3.1; there is no going on."""
        self._buffer += data
        while (frame := self._next()) is not None:
            yield from frame

    def _next(self) -> tuple[Frame, ...] | None:
        """() for one that is passed over; None: more bytes are needed."""
        if self._data is not None:
            return self._piece(*self._data)
        if len(self._buffer) < _HEADER.size:
            return None
        first, second = _HEADER.unpack_from(self._buffer)
        flags, length = second >> 24, second & 0xFFFFFF
        if not first & _CONTROL:
            del self._buffer[: _HEADER.size]
            self._data = (first, length, bool(flags & FIN))
            return self._piece(*self._data)
        version, kind = first >> 16 & 0x7FFF, first & 0xFFFF
        if version != VERSION:
            raise InvalidArgument(f"a frame is of SPDY/{version}, not of SPDY/{VERSION}")
        if length > CONTROL_MAX:
            raise InvalidArgument(f"a SPDY frame of {length} bytes is longer than {CONTROL_MAX}")
        if len(self._buffer) < _HEADER.size + length:
            return None
        body = bytes(self._buffer[_HEADER.size : _HEADER.size + length])
        del self._buffer[: _HEADER.size + length]
        return self._control(kind, body, bool(flags & FIN))

    def _piece(self, stream: int, missing: int, fin: bool) -> tuple[Frame, ...] | None:
        if missing and not self._buffer:
            return None
        piece = bytes(self._buffer[:missing])
        del self._buffer[:missing]
        left = missing - len(piece)
        self._data = (stream, left, fin) if left else None
        return (Data(stream, piece, fin and not left),)

    def _control(self, kind: int, body: bytes, fin: bool) -> tuple[Frame, ...]:
        try:
            if kind == Type.SYN_STREAM:
                (stream,) = struct.unpack_from(">I4x2x", body)
                return (Opened(stream & _STREAM, self._headers.read(body[10:]), fin),)
            if kind == Type.SYN_REPLY:
                return (Replied(_stream_of(body), self._headers.read(body[4:]), fin),)
            if kind == Type.HEADERS:
                stream = _stream_of(body)
                self._headers.read(body[4:])  # there is one state for all blocks
                return (Data(stream, b"", True),) if fin else ()
            if kind == Type.RST_STREAM:
                stream, status = struct.unpack_from(">II", body)
                return (Reset(stream & _STREAM, status),)
            if kind == Type.PING:
                return (Ping(struct.unpack_from(">I", body)[0]),)
            if kind == Type.GOAWAY:
                return (GoAway(_stream_of(body)),)
        except struct.error:
            raise InvalidArgument(f"a SPDY frame of type {kind} is too short") from None
        return ()


def _stream_of(body: bytes) -> int:
    number: int = struct.unpack_from(">I", body)[0]
    return number & _STREAM


class Encoder:
    """Frames become bytes; they go in the order in which they are made, as the headers have one state."""

    def __init__(self) -> None:
        self._headers = HeaderWriter()

    def opened(self, stream: int, headers: Mapping[str, str], *, fin: bool = False) -> bytes:
        return _control(Type.SYN_STREAM, struct.pack(">I4x2x", stream) + self._headers.write(headers), fin)

    def replied(self, stream: int) -> bytes:
        return _control(Type.SYN_REPLY, struct.pack(">I", stream) + self._headers.write({}))

    def reset(self, stream: int, why: Why) -> bytes:
        return _control(Type.RST_STREAM, struct.pack(">II", stream, why))

    def ping(self, id_: int) -> bytes:
        return _control(Type.PING, struct.pack(">I", id_))

    def go_away(self, last: int) -> bytes:
        return _control(Type.GOAWAY, struct.pack(">II", last, 0))

    def data(self, stream: int, data: bytes, *, fin: bool = False) -> bytes:
        return _HEADER.pack(stream, fin << 24 | len(data)) + data


def _control(kind: Type, body: bytes, fin: bool = False) -> bytes:
    return _HEADER.pack(_CONTROL | VERSION << 16 | kind, fin << 24 | len(body)) + body
