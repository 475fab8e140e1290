# SPDX-License-Identifier: Apache-2.0
"""Frames and attributes as bytes.

An attribute list is a list of `(tag, value)` where a value is an int (8 bytes),
str or bytes (as they are), or a nested attribute list.
"""

from __future__ import annotations

import struct
from collections.abc import Iterable, Iterator
from typing import NamedTuple, TypeAlias, Union

from ..errors import HyperError
from .constants import ATTR_HEADER, FRAME_HEADER, FRAME_MAX, TOKEN_SIZE

_FRAME = struct.Struct("<IHHI")
_ATTR = struct.Struct("<HHI")
_U64 = struct.Struct("<Q")

Value: TypeAlias = Union[int, str, bytes, "list[tuple[int, Value]]"]
Attrs: TypeAlias = "list[tuple[int, Value]]"


class ProtocolError(HyperError):
    """The peer sent what the protocol does not allow."""

    code = "protocol"


class Frame(NamedTuple):
    """One frame; `id` is a request's or a process's number."""

    type: int
    id: int
    body: bytes


def encode_attrs(attrs: Iterable[tuple[int, Value]]) -> bytes:
    """Attributes as bytes; text is encoded as UTF-8 with raw bytes kept (surrogateescape)."""
    parts: list[bytes] = []
    for tag, value in attrs:
        if isinstance(value, int):
            data = _U64.pack(value)
        elif isinstance(value, str):
            data = value.encode("utf-8", "surrogateescape")
        elif isinstance(value, bytes):
            data = value
        else:
            data = encode_attrs(value)
        parts.append(_ATTR.pack(tag, 0, len(data)))
        parts.append(data)
    return b"".join(parts)


def decode_attrs(data: bytes | memoryview) -> Iterator[tuple[int, bytes]]:
    """Each attribute's tag and raw value.

    :raise ProtocolError: when a length passes the end.
    """
    view = memoryview(data)
    at, end = 0, len(view)
    while at < end:
        if end - at < ATTR_HEADER:
            raise ProtocolError("an attribute's header is cut short")
        tag, _, length = _ATTR.unpack_from(view, at)
        at += ATTR_HEADER
        if length > end - at:
            raise ProtocolError(f"attribute {tag} is longer than its frame")
        yield tag, bytes(view[at : at + length])
        at += length


def required(attrs: dict[int, bytes], tag: int) -> bytes:
    """:raise ProtocolError: when there is no such attribute."""
    try:
        return attrs[tag]
    except KeyError:
        raise ProtocolError(f"attribute {tag} is missing") from None


def bounded(data: bytes, most: int) -> int:
    """A number that is at most `most`.

    :raise ProtocolError: when it is not.
    """
    value = number(data)
    if value > most:
        raise ProtocolError(f"the number {value} is out of range")
    return value


def number(data: bytes) -> int:
    """:raise ProtocolError: when it is not 8 bytes."""
    if len(data) != _U64.size:
        raise ProtocolError("a number is not 8 bytes long")
    value: int = _U64.unpack(data)[0]
    return value


def text(data: bytes) -> str:
    """For people: what is no UTF-8 becomes U+FFFD, as in Docker's answers; a surrogate could not be sent on as JSON."""
    return data.decode("utf-8", "replace")


def encode_frame(type_: int, id_: int, body: bytes = b"") -> bytes:
    """:raise ProtocolError: when the body is larger than a frame may be."""
    size = FRAME_HEADER + len(body)
    if size > FRAME_MAX:
        raise ProtocolError(f"a frame of {size} bytes is too large")
    return _FRAME.pack(size, type_, 0, id_) + body


class FrameReader:
    """Bytes in, frames out, for one connection.

    What precedes the connection's token is the torn end of an older
    connection and is thrown away.
    """

    def __init__(self, token: bytes) -> None:
        self._token: bytes | None = token
        self._buffer = bytearray()

    @property
    def synchronised(self) -> bool:
        """Whether the token has been seen."""
        return self._token is None

    def feed(self, data: bytes) -> list[Frame]:
        """:raise ProtocolError: on an impossible length; the connection is of no more use."""
        self._buffer += data
        if self._token is not None and not self._find_token(self._token):
            return []
        frames = []
        view = memoryview(self._buffer)
        at = 0
        try:
            while len(view) - at >= FRAME_HEADER:
                size, type_, _, id_ = _FRAME.unpack_from(view, at)
                if not FRAME_HEADER <= size <= FRAME_MAX:
                    raise ProtocolError(f"a frame of {size} bytes")
                if len(view) - at < size:
                    break
                frames.append(Frame(type_, id_, bytes(view[at + FRAME_HEADER : at + size])))
                at += size
        finally:
            view.release()
        del self._buffer[:at]
        return frames

    def _find_token(self, token: bytes) -> bool:
        at = self._buffer.find(token)
        if at < 0:
            del self._buffer[: max(0, len(self._buffer) - TOKEN_SIZE + 1)]
            return False
        del self._buffer[: at + TOKEN_SIZE]
        self._token = None
        return True
