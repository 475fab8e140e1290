# SPDX-License-Identifier: Apache-2.0
"""Exec and attach over SPDY: a stream for each of stdin, stdout, stderr, for errors, and for the terminal's size.

https://github.com/kubernetes/kubernetes/blob/master/staging/src/k8s.io/client-go/tools/remotecommand/v4.go
"""

from __future__ import annotations

import asyncio
import contextlib
from collections import deque

import msgspec

from ...engine.attach.peer import End, Input, InputEnd, Resize, Said
from ...errors import InvalidArgument
from ...sys.documents import UNREADABLE
from .spdy import Connection
from .spdy_frames import Data, Opened, Reset
from .status import encoded
from .tickets import CommandTicket

# What a client may offer in X-Stream-Protocol-Version, best first; one that offers none speaks the last.
PROTOCOLS = ("v4.channel.k8s.io", "v3.channel.k8s.io", "v2.channel.k8s.io", "channel.k8s.io")
_RESIZES = PROTOCOLS[:2]
CREATION = 30.0  # seconds in which a client has made its streams, as kubelets have it
_EARLY_MAX = 1 << 20  # bytes of input before the last stream is made
_SIZE_MAX = 4096  # bytes of a size


class Size(msgspec.Struct, rename="pascal"):
    """Of a terminal, in characters; as a struct winsize has it, 16 bits each."""

    width: int = 0
    height: int = 0


def read_size(data: bytes) -> Resize:
    """:raise InvalidArgument: it is none."""
    try:
        size = msgspec.json.decode(data, type=Size)
    except UNREADABLE as error:
        raise InvalidArgument(f"a terminal's size is not understood: {error}") from None
    if not (0 <= size.width < 1 << 16 and 0 <= size.height < 1 << 16):
        raise InvalidArgument(f"a terminal of {size.width} columns and {size.height} rows: each has 16 bits")
    return Resize(size.height, size.width)


class SpdyPeer:
    """An attached client."""

    def __init__(self, connection: Connection, wanted: CommandTicket, protocol: str) -> None:
        self._connection, self._wanted, self._protocol = connection, wanted, protocol
        self._kinds = {"error"}
        self._kinds |= {kind for kind in ("stdin", "stdout", "stderr") if getattr(wanted, kind)}
        self._kinds |= {"resize"} if wanted.tty and protocol in _RESIZES else set()
        self._streams: dict[str, int] = {}
        self._early: deque[Data] = deque()
        self._size = b""  # what of one has come

    async def gather(self) -> None:
        """Its streams; nothing is begun before.

        :raise ConnectionError: it has gone. :raise TimeoutError: it makes too few.
        :raise InvalidArgument: what it makes is not what it asked for.
        """
        early = 0
        async with asyncio.timeout(CREATION):
            while self._kinds - self._streams.keys():
                came = await self._connection.next()
                if came is None:
                    raise ConnectionResetError("the client has gone")
                if isinstance(came, Opened):
                    await self._open(came)
                elif isinstance(came, Data):
                    self._early.append(came)
                    early += len(came.data) + 1
                    if early > _EARLY_MAX:
                        raise InvalidArgument("input comes, and not all streams are made")

    async def _open(self, came: Opened) -> None:
        kind = came.headers.get("streamtype", "")
        if kind not in self._kinds or kind in self._streams:
            await self._connection.refuse(came.stream)
            return
        self._streams[kind] = came.stream
        await self._connection.reply(came.stream)

    # -- Peer -------------------------------------------------------------------

    async def open(self) -> None:
        """It stands since its streams do."""

    async def receive(self) -> Said | None:
        while True:
            came = self._early.popleft() if self._early else await self._connection.next()
            if came is None:
                return None
            if isinstance(came, Opened):
                await self._connection.refuse(came.stream)
            elif came.stream == self._streams.get("stdin"):
                if isinstance(came, Reset) or (came.fin and not came.data):
                    return InputEnd()
                if came.fin:
                    self._early.appendleft(Data(came.stream, b"", True))
                return Input(came.data)
            elif isinstance(came, Data) and (size := self._resized(came)) is not None:
                return size

    def _resized(self, came: Data) -> Resize | None:
        """The last whole one; each is a JSON object, and they follow each other."""
        if came.stream != self._streams.get("resize"):
            return None
        self._size += came.data
        if len(self._size) > _SIZE_MAX:
            raise InvalidArgument("a terminal's size is not understood: it is too long")
        whole, end, rest = self._size.rpartition(b"}")
        self._size = rest
        if not end:
            return None
        return read_size(whole[whole.rfind(b"{") :] + end)

    async def send(self, stream: int, data: bytes) -> None:
        kind = "stdout" if stream == 1 else "stderr"
        if kind in self._streams:
            await self._connection.send(self._streams[kind], data)

    async def finish(self, end: End) -> None:
        with contextlib.suppress(ConnectionError):
            words = encoded(end, self._wanted, as_json=self._protocol == PROTOCOLS[0])
            await self._connection.send(self._streams["error"], words, fin=True)
            for kind in ("stdout", "stderr", "stdin", "resize"):
                if kind in self._streams:
                    await self._connection.send(self._streams[kind], b"", fin=True)
            await self._connection.close()
