# SPDX-License-Identifier: Apache-2.0
"""Messages of protobuf as numbered fields, without their descriptions.

The encoding is https://protobuf.dev/programming-guides/encoding/. A library would have to be given BuildKit's
descriptions, of which a dozen fields are used here.
"""

from __future__ import annotations

from collections.abc import Iterator

from ..errors import InvalidArgument

Fields = dict[int, list[int | bytes]]


def decoded(data: bytes) -> Fields:
    """The fields of a message. :raise InvalidArgument: it is none."""
    found: Fields = {}
    at = 0
    try:
        while at < len(data):
            key, at = _varint(data, at)
            kind, value = key & 7, 0
            if kind == 0:
                value, at = _varint(data, at)
                found.setdefault(key >> 3, []).append(value)
                continue
            size = {1: 8, 5: 4}.get(kind, 0)
            if kind == 2:
                size, at = _varint(data, at)
            elif not size:
                raise InvalidArgument(f"a message has a field of kind {kind}")
            if at + size > len(data):
                raise InvalidArgument("a message ends in the midst of a field")
            found.setdefault(key >> 3, []).append(data[at : at + size])
            at += size
    except IndexError:
        raise InvalidArgument("a message ends in the midst of a number") from None
    return found


def _varint(data: bytes, at: int) -> tuple[int, int]:
    value = shift = 0
    while True:
        byte = data[at]
        at += 1
        value |= (byte & 0x7F) << shift
        if byte < 0x80:
            return value, at
        shift += 7
        if shift > 63:
            raise InvalidArgument("a message has a number that is too long")


def encoded(fields: dict[int, int | str | bytes]) -> bytes:
    """A message of these fields; what is empty or 0 is left out, as proto3 does."""
    out = bytearray()
    for number, value in fields.items():
        if not value:
            continue
        if isinstance(value, int):
            out += _number(number << 3) + _number(value)
            continue
        data = value.encode() if isinstance(value, str) else value
        out += _number(number << 3 | 2) + _number(len(data)) + data
    return bytes(out)


def _number(value: int) -> bytes:
    out = bytearray()
    while value > 0x7F:
        out.append(value & 0x7F | 0x80)
        value >>= 7
    out.append(value)
    return bytes(out)


def text(fields: Fields, number: int) -> str:
    """The first value of a field as text; "" where there is none."""
    return raw(fields, number).decode(errors="replace")


def raw(fields: Fields, number: int) -> bytes:
    """The first value of a field; none where it has another kind."""
    value = fields.get(number, [b""])[0]
    return value if isinstance(value, bytes) else b""


def whole(fields: Fields, number: int) -> int:
    """The first value of a field as a number; 0 where there is none."""
    value = fields.get(number, [0])[0]
    return value if isinstance(value, int) else 0


def messages(fields: Fields, number: int) -> Iterator[Fields]:
    """The values of a field, which are messages themselves."""
    for value in fields.get(number, []):
        if isinstance(value, bytes):
            yield decoded(value)
