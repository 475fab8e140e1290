# SPDX-License-Identifier: Apache-2.0
"""systemd's journal, by its native protocol: a datagram per entry, a line per field.

`NAME=value\\n`, or where a value has line ends `NAME\\n`, its length in 64 bits little endian, the value, `\\n`
(systemd's docs/JOURNAL_NATIVE_PROTOCOL.md). The fields are those of Docker's driver, so the same searches find them:

    journalctl CONTAINER_NAME=web
"""

from __future__ import annotations

import socket
import struct
from pathlib import Path

from ...model.moments import write_moment
from .sender import Sender, connect_path
from .sink import Piece

SOCKET = Path("/run/systemd/journal/socket")
_PRIORITY = {1: b"6", 2: b"3"}  # info, error: as Docker has them


def entry(fields: dict[str, bytes]) -> bytes:
    """A datagram."""
    out = b""
    for name, value in fields.items():
        if b"\n" in value:
            out += name.encode() + b"\n" + struct.pack("<Q", len(value)) + value + b"\n"
        else:
            out += name.encode() + b"=" + value + b"\n"
    return out


def journald(what: str, names: dict[str, str], tag: str, path: Path = SOCKET) -> Sender:
    """`names` are the fields that say whose output it is."""
    fixed = {name: value.encode() for name, value in names.items()} | {
        "CONTAINER_TAG": tag.encode(),
        "SYSLOG_IDENTIFIER": tag.encode(),
    }

    def encode(piece: Piece, line: bytes, goes_on: bool) -> bytes:
        fields = {
            "MESSAGE": line,
            "PRIORITY": _PRIORITY[piece.stream],
            "SYSLOG_TIMESTAMP": write_moment(piece.time).encode(),
            **fixed,
        }
        return entry(fields | ({"CONTAINER_PARTIAL_MESSAGE": b"true"} if goes_on else {}))

    async def connect() -> socket.socket:
        return (await connect_path(str(path)))[0]

    return Sender(what, connect, encode)
