# SPDX-License-Identifier: Apache-2.0
"""What BuildKit answers to clients that speak with it themselves: which images it has made.

Its answer to a build (`SolveResponse` of https://github.com/moby/buildkit/blob/master/api/services/control/
control.proto) is a message of gRPC (https://github.com/grpc/grpc/blob/master/doc/PROTOCOL-HTTP2.md) in frames of HTTP/2
(RFC 9113, 4.1). Only frames of contents are read; what is longer than such an answer can be is passed over.
"""

from __future__ import annotations

import re
from collections.abc import Iterator
from dataclasses import dataclass

from ...errors import HyperError, InvalidArgument
from ...model import protobuf
from .passing import ID

_HEAD, _PREFIX = 9, 5  # bytes of a frame's head, and of what is before a message
_DATA, _HEADERS, _RESET, _SETTINGS, _GOAWAY = 0, 1, 3, 4, 7
_END, _PADDED = 0x1, 0x8
_INTERNAL_ERROR, _LAST_STREAM = 2, 2**31 - 1
_FRAME_MAX, _MESSAGE_MAX = 64 << 10, 64 << 10  # bytes
_STREAMS_MAX = 100  # as many as gRPC's servers take by default
_ID, _NAMES = "containerimage.config.digest", "image.name"
# What a request to build says, where the result is to be an image of dockerd's: `Exporter`, or that of `Exporters`.
_REQUEST = re.compile(rb"[\x1a\n](?:\x04moby|\x05image)")
_OVERLAP = 8  # bytes


@dataclass(frozen=True)
class Solved:
    """An image that was made, and the names that it was given."""

    id: str
    names: list[str]


class Asked:
    """Looks through what a client sends: whether it asks for an image."""

    def __init__(self) -> None:
        self._tail = b""

    def feed(self, data: bytes) -> bool:
        """Whether this piece asks for one."""
        text = self._tail + data
        self._tail = text[-_OVERLAP:]
        return bool(_REQUEST.search(text))


class Answers:
    """Reads along in what BuildKit sends to one client."""

    def __init__(self) -> None:
        self._data = bytearray()  # of a frame that has not come as a whole
        self._skip = 0  # bytes of a frame that is not looked at
        self.nothing = True  # has come
        self._streams: dict[int, bytearray] = {}  # of each, what has come of a message

    @property
    def between(self) -> bool:
        """Whether a frame has ended, and none begun."""
        return not self._data and not self._skip

    def feed(self, data: bytes) -> list[Solved]:
        """What this piece says to be made."""
        found: list[Solved] = []
        self.nothing = False
        self._data += data
        while True:
            if self._skip:
                gone = min(self._skip, len(self._data))
                self._skip -= gone
                del self._data[:gone]
            if len(self._data) < _HEAD:
                return found
            size, kind, flags = int.from_bytes(self._data[:3], "big"), self._data[3], self._data[4]
            stream = int.from_bytes(self._data[5:_HEAD], "big")
            if size > _FRAME_MAX or kind not in (_DATA, _HEADERS, _RESET):
                self._skip = _HEAD + size
            elif len(self._data) < _HEAD + size:
                return found
            else:
                content = bytes(self._data[_HEAD : _HEAD + size])
                del self._data[: _HEAD + size]
                found += self._frame(kind, flags, stream, content)

    def _frame(self, kind: int, flags: int, stream: int, content: bytes) -> Iterator[Solved]:
        if kind == _DATA and not flags & _PADDED and (stream in self._streams or len(self._streams) < _STREAMS_MAX):
            waiting = self._streams.setdefault(stream, bytearray())
            waiting += content
            while (message := _taken(waiting)) is not None:
                if _ID.encode() in message and (solved := _solved(message)):
                    yield solved
            if len(waiting) > _MESSAGE_MAX + _PREFIX:
                waiting.clear()  # what follows is no message from its beginning, and is not taken for one
        if kind == _RESET or flags & _END:
            self._streams.pop(stream, None)


def _taken(waiting: bytearray) -> bytes | None:
    """The next message, taken away."""
    if len(waiting) < _PREFIX:
        return None
    size = int.from_bytes(waiting[1:_PREFIX], "big")
    if len(waiting) < _PREFIX + size:
        return None
    message = bytes(waiting[_PREFIX : _PREFIX + size])
    del waiting[: _PREFIX + size]
    return message


def _solved(message: bytes) -> Solved | None:
    """What a message says, if it is the answer to a build."""
    try:
        said = {protobuf.text(e, 1): protobuf.text(e, 2) for e in protobuf.messages(protobuf.decoded(message), 1)}
    except InvalidArgument:
        return None
    id_ = said.get(_ID, "")
    return Solved(id_, [n for n in said.get(_NAMES, "").split(",") if n]) if ID.fullmatch(id_) else None


def goaway(error: HyperError, *, first: bool) -> bytes:
    """Frames that end a connection and say why, which clients of gRPC show; `first` on it are the server's settings."""
    content = _LAST_STREAM.to_bytes(4, "big") + _INTERNAL_ERROR.to_bytes(4, "big") + str(error).encode()
    return (_frame(_SETTINGS, b"") if first else b"") + _frame(_GOAWAY, content)


def _frame(kind: int, content: bytes) -> bytes:
    return len(content).to_bytes(3, "big") + bytes([kind, 0]) + bytes(4) + content
