# SPDX-License-Identifier: Apache-2.0
"""Ports over a websocket: of the port N in the order of the request, channel 2N is its data, 2N+1 why it failed.

The first message of each channel is the port, 16 bits little-endian. A websocket has one connection to each port.
https://github.com/kubernetes/kubernetes/blob/master/staging/src/k8s.io/kubelet/pkg/cri/streaming/portforward
"""

from __future__ import annotations

import asyncio
import contextlib
import struct
from collections.abc import Sequence

from ...engine.forwards import Forwards
from ...errors import HyperError, InvalidArgument
from ...sys import tasks
from ..faults import message_of
from .spdy_forward import Incoming
from .wires import WebsocketWire

PROTOCOLS = ("v4.channel.k8s.io",)
PORTS_MAX = 64  # of a websocket


def ports_of(asked: Sequence[int], words: Sequence[str]) -> tuple[int, ...]:
    """Those that CRI named, or else the query's.

    :raise InvalidArgument: there are none, or too many, or one is no port.
    """
    found = tuple(asked)
    if not found:
        texts = [text for word in words for text in word.split(",")]
        if not all(t.isdecimal() and len(t) < 6 for t in texts):
            raise InvalidArgument("a port is a number", hint="write ports=80,443")
        found = tuple(int(t) for t in texts)
    if not 0 < len(found) <= PORTS_MAX or not all(0 < p < 1 << 16 for p in found):
        raise InvalidArgument(f"a websocket forwards 1 to {PORTS_MAX} ports", hint="write ports=80,443")
    return found


class _Channel:
    """One connection; `forwards.Client`."""

    def __init__(self, wire: WebsocketWire, number: int) -> None:
        self.incoming = Incoming()
        self._wire, self._number = wire, number

    async def read(self) -> bytes:
        return await self.incoming.read()

    async def write(self, data: bytes) -> None:
        await self._wire.write(bytes([self._number]) + data)


class PortChannels:
    """One client."""

    def __init__(self, wire: WebsocketWire, forwards: Forwards, pod: str, ports: tuple[int, ...]) -> None:
        self._wire, self._forwards, self._pod, self._ports = wire, forwards, pod, ports
        self._channels = [_Channel(wire, 2 * n) for n in range(len(ports))]

    async def run(self) -> None:
        """Until it goes, or all connections are over."""
        with contextlib.suppress(ConnectionError):
            for number, port in enumerate(self._ports):
                for channel in (2 * number, 2 * number + 1):
                    await self._wire.write(bytes([channel]) + struct.pack("<H", port))
        listening = asyncio.create_task(self._listen())
        serving = [asyncio.create_task(self._serve(n, port)) for n, port in enumerate(self._ports)]
        ending = asyncio.create_task(_all(serving))
        try:
            await asyncio.wait({listening, ending}, return_when=asyncio.FIRST_COMPLETED)
        finally:
            await tasks.end([listening, ending, *serving])
            await asyncio.gather(listening, ending, *serving, return_exceptions=True)

    async def _listen(self) -> None:
        while (message := await self._wire.read()) is not None:
            number = message[0] if message else 1
            if not number % 2 and number // 2 < len(self._channels):
                await self._channels[number // 2].incoming.put(message[1:])

    async def _serve(self, number: int, port: int) -> None:
        channel = self._channels[number]
        with contextlib.suppress(ConnectionError):
            try:
                await self._forwards.connect(self._pod, port, channel)
            except HyperError as error:
                words = f"error forwarding port {port}: {message_of(error)}".encode()
                await self._wire.write(bytes([2 * number + 1]) + words)
            finally:
                channel.incoming.drop()


async def _all(work: list[asyncio.Task[None]]) -> None:
    await asyncio.wait(work)
