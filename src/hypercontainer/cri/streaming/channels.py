# SPDX-License-Identifier: Apache-2.0
"""Exec and attach over a websocket: the first byte of a message is its channel.

    0 stdin   1 stdout   2 stderr   3 errors   4 the terminal's size   255 the end of a channel, which follows (v5)

https://github.com/kubernetes/enhancements/blob/master/keps/sig-api-machinery/4006-transition-spdy-to-websockets
"""

from __future__ import annotations

import contextlib
from enum import IntEnum

from ...engine.attach.peer import End, Input, InputEnd, Said
from ...errors import InvalidArgument
from .spdy_command import read_size
from .status import encoded
from .tickets import CommandTicket
from .wires import WebsocketWire

V5, V4 = "v5.channel.k8s.io", "v4.channel.k8s.io"
PROTOCOLS = (V5, V4, "channel.k8s.io")


class Channel(IntEnum):
    """The first byte."""

    STDIN = 0
    STDOUT = 1
    STDERR = 2
    ERROR = 3
    RESIZE = 4
    CLOSE = 255


class ChannelPeer:
    """An attached client."""

    def __init__(self, wire: WebsocketWire, wanted: CommandTicket, protocol: str) -> None:
        self._wire, self._wanted, self._protocol = wire, wanted, protocol

    async def open(self) -> None:
        """An empty message tells that it stands, on the lowest channel that has output."""
        first = Channel.STDOUT if self._wanted.stdout else Channel.STDERR
        await self._wire.write(bytes([first if self._wanted.stdout or self._wanted.stderr else Channel.ERROR]))

    async def receive(self) -> Said | None:
        while (message := await self._wire.read()) is not None:
            channel, data = message[:1], message[1:]
            if channel == b"\0" and data and self._wanted.stdin:
                return Input(data)
            if channel == bytes([Channel.RESIZE]):
                return read_size(data)
            if channel == bytes([Channel.CLOSE]) and self._protocol == V5:
                if len(data) != 1:
                    raise InvalidArgument("a channel is closed, and not said which")
                if data[0] == Channel.STDIN:
                    return InputEnd()
        return None

    async def send(self, stream: int, data: bytes) -> None:
        await self._wire.write(bytes([stream]) + data)

    async def finish(self, end: End) -> None:
        with contextlib.suppress(ConnectionError):
            words = encoded(end, self._wanted, as_json=self._protocol in (V5, V4))
            if words:
                await self._wire.write(bytes([Channel.ERROR]) + words)
            await self._wire.end()
