# SPDX-License-Identifier: Apache-2.0
"""The name of the server that a TLS client asks for: its ClientHello, before anything is answered.

Sources: RFC 8446 (4.1.2, 5.1), RFC 6066 (3), RFC 9849 (encrypted ClientHello).
"""

from __future__ import annotations

import struct
from collections.abc import Iterator

from ...model.egress import canonical_name
from .refused import Refused

HELLO_MAX = 32 << 10  # bytes, with the records' headers
_HANDSHAKE, _CLIENT_HELLO = 22, 1
_RECORD_MAX = 1 << 14
_SERVER_NAME, _HOST_NAME, _ENCRYPTED_HELLO = 0, 0, 0xFE0D


def is_tls(data: bytes) -> bool:
    """Whether this begins a TLS connection; one byte decides."""
    return data[:1] == bytes([_HANDSHAKE])


def server_name(data: bytes) -> str | None:
    """The canonical name that is asked for; None while the message is not whole.

    :raise Refused: there is none, more than one, or it is hidden; or this is no ClientHello.
    """
    message = _message(data)
    if message is None:
        if len(data) >= HELLO_MAX:
            raise Refused("its TLS hello is too long")
        return None
    try:
        return _name_in(message)
    except (struct.error, IndexError):
        raise Refused("its TLS hello is malformed") from None


def _message(data: bytes) -> bytes | None:
    """The handshake message, out of as many records as it was cut into; None while a part is missing."""
    message, at = b"", 0
    while len(data) >= at + 5:
        kind, major, length = data[at], data[at + 1], struct.unpack_from("!H", data, at + 3)[0]
        if kind != _HANDSHAKE or major != 3 or not 0 < length <= _RECORD_MAX:
            raise Refused("it is no TLS hello")
        message += data[at + 5 : at + 5 + length]
        at += 5 + length
        if message[:1] not in (b"", bytes([_CLIENT_HELLO])):
            raise Refused("it is no TLS hello")
        if len(message) >= 4:
            wanted = 4 + int.from_bytes(message[1:4], "big")
            if wanted > HELLO_MAX:
                raise Refused("its TLS hello is too long")
            if len(message) > wanted:
                raise Refused("its TLS hello is malformed")
            if len(message) == wanted:
                return message[4:]
    return None


class _Reader:
    """Fields of a message; what goes beyond it raises struct.error."""

    def __init__(self, data: bytes) -> None:
        self._data = data
        self._at = 0

    def take(self, count: int) -> bytes:
        if self._at + count > len(self._data):
            raise struct.error("cut short")
        self._at += count
        return self._data[self._at - count : self._at]

    def number(self, size: int) -> int:
        return int.from_bytes(self.take(size), "big")

    def vector(self, size: int) -> _Reader:
        """What has its length before it, in `size` bytes."""
        return _Reader(self.take(self.number(size)))

    @property
    def left(self) -> int:
        return len(self._data) - self._at


def _name_in(message: bytes) -> str:
    reader = _Reader(message)
    reader.take(2 + 32)  # version, random
    reader.vector(1)  # session
    reader.vector(2)  # cipher suites
    reader.vector(1)  # compression
    extensions = reader.vector(2) if reader.left else _Reader(b"")
    if reader.left:
        raise Refused("its TLS hello is malformed")
    found: dict[int, _Reader] = {}
    for kind, body in _extensions(extensions):
        if kind in found:
            raise Refused("its TLS hello is malformed")
        found[kind] = body
    if _ENCRYPTED_HELLO in found:
        raise Refused("its TLS hello is encrypted (ECH)")
    if _SERVER_NAME not in found:
        raise Refused("its TLS hello names no server (SNI)")
    names = found[_SERVER_NAME].vector(2)
    kind, text = names.number(1), names.vector(2)
    if kind != _HOST_NAME or names.left or found[_SERVER_NAME].left:
        raise Refused("its TLS hello is malformed")
    name = canonical_name(text.take(text.left).decode("latin-1"))
    if not name:
        raise Refused("its TLS hello names no server (SNI)")
    return name


def _extensions(reader: _Reader) -> Iterator[tuple[int, _Reader]]:
    while reader.left:
        kind = reader.number(2)
        yield kind, reader.vector(2)
