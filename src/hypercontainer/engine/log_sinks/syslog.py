# SPDX-License-Identifier: Apache-2.0
"""syslog, on this host or another: a datagram per line over UDP or a unix socket, a line per line over a stream.

The formats are Docker's: without a name the one of syslog(3), `<PRI>Mmm dd hh:mm:ss tag[pid]: text`; rfc3164, with the
host's name; rfc5424 and rfc5424micro, `<PRI>1 TIME HOST TAG PID TAG - text`. Over a stream a line end ends a message
(RFC 6587, 3.4.2), also of rfc5424, as Docker has it without TLS.
"""

from __future__ import annotations

import os
import socket
import time
from collections.abc import Callable
from datetime import UTC, datetime
from pathlib import Path

from .sender import Sender, connect_host, connect_path
from .sink import Piece

LOCAL = (Path("/dev/log"), Path("/var/run/syslog"), Path("/var/run/log"))  # where this host's own may listen
_SEVERITY = {1: 6, 2: 3}  # info, error: as Docker has them
Header = Callable[[Piece], str]


def header(format_: str, facility: int, tag: str, host: str) -> Header:
    """What stands before the text."""
    pid = os.getpid()

    def make(piece: Piece) -> str:
        priority = f"<{facility * 8 + _SEVERITY[piece.stream]}>"
        seconds = piece.time // 10**9
        if format_.startswith("rfc5424"):
            micro = f".{piece.time // 1000 % 10**6:06}" if format_ == "rfc5424micro" else ""
            moment = f"{datetime.fromtimestamp(seconds, UTC):%Y-%m-%dT%H:%M:%S}{micro}Z"
            return f"{priority}1 {moment} {host} {tag} {pid} {tag} - "
        moment = time.strftime("%b %e %H:%M:%S", time.localtime(seconds))
        return f"{priority}{moment} {f'{host} ' if format_ == 'rfc3164' else ''}{tag}[{pid}]: "

    return make


def syslog(what: str, address: tuple[str, str, int], make_header: Header) -> Sender:
    """`address` are transport, host or path, and port."""
    transport, host, port = address
    ends = b"\n" if transport == "tcp" else b""

    def encode(piece: Piece, line: bytes, goes_on: bool) -> bytes:
        return make_header(piece).encode() + line + ends

    async def connect() -> socket.socket:
        nonlocal ends
        if transport == "unix":
            sock, messages = await connect_path(host)
            ends = b"" if messages else b"\n"
            return sock
        return await connect_host(socket.SOCK_DGRAM if transport == "udp" else socket.SOCK_STREAM, host, port)

    return Sender(what, connect, encode)
