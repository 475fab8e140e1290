# SPDX-License-Identifier: Apache-2.0
"""What hyperd and a pod's proxy say to each other: a message a packet, with a connection at most (SOCK_SEQPACKET).

Neither waits for the other: a proxy that does not read what it is sent is ended.
"""

from __future__ import annotations

import os
import socket

import msgspec

PACKET_MAX = 4096  # bytes
_KINDS = {"serve", "opened", "not_opened", "end", "open", "refused", "moved", "done"}


class Message(msgspec.Struct, frozen=True, omit_defaults=True):
    """Of one connection, by its number."""

    # To the proxy: serve, opened (each with a descriptor), not_opened, end. From it: open, refused, moved, done.
    kind: str
    number: int
    host: str = ""
    port: int = 0
    why: str = ""
    received: int = 0  # bytes that pods got, and sent, since the last message that said so
    sent: int = 0


class Swap(msgspec.Struct, frozen=True):
    """What stands in headers for a secret, and the secret."""

    placeholder: str
    value: str
    header: str  # small letters; "": any


class Intercepted(msgspec.Struct, frozen=True):
    """A host in whose place the proxy answers by TLS; certificate and key are PEM."""

    host: str
    port: int
    certificate: str
    key: str
    swaps: list[Swap]


class Job(msgspec.Struct, frozen=True):
    """What a proxy gets on its standard input."""

    channel: int  # descriptor
    intercepted: list[Intercepted] = []
    authorities: str = ""  # PEM: whom it trusts at these hosts


def send(channel: socket.socket, message: Message, fd: int = -1) -> None:
    """:raise OSError: the other end is gone, or does not read."""
    socket.send_fds(channel, [msgspec.json.encode(message)], [fd] if fd >= 0 else [])


def receive(channel: socket.socket) -> tuple[Message | None, int]:
    """A message with its descriptor, or -1; None when the other end is gone.

    :raise BlockingIOError: there is none. :raise ValueError: it is none of ours.
    """
    data, fds, _, _ = socket.recv_fds(channel, PACKET_MAX, 1)
    fd = fds[0] if fds else -1
    if not data:
        return None, fd
    try:
        message = msgspec.json.decode(data, type=Message)
        if message.kind not in _KINDS:
            raise ValueError(f"no message is {message.kind[:20]!r}")
    except (msgspec.MsgspecError, ValueError, RecursionError) as error:
        if fd >= 0:
            os.close(fd)
        raise ValueError(str(error)) from error
    return message, fd
