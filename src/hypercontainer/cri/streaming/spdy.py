# SPDX-License-Identifier: Apache-2.0
"""A connection of SPDY/3.1 as Kubernetes' clients speak it: they open streams, we answer.

Their library (https://github.com/moby/spdystream) sends no WINDOW_UPDATE and hears none: flow control is TCP's alone,
so neither do we. Who does not take a stream's data holds up all of its connection's.
"""

from __future__ import annotations

from collections import deque

from ...errors import InvalidArgument
from .spdy_frames import DATA_MAX, Data, Decoder, Encoder, Frame, Opened, Ping, Reset, Why
from .wires import Wire

STREAMS_MAX = 512  # open at a time; more are refused


class Connection:
    """Ours is the server's side. Only one task calls `next`; any may send."""

    def __init__(self, wire: Wire) -> None:
        self._wire = wire
        self._decoder, self._encoder = Decoder(), Encoder()
        self._frames: deque[Frame] = deque()
        self._receiving: set[int] = set()  # streams whose other side has not said all
        self._sending: set[int] = set()  # those of which we have not
        self._last = 0

    async def next(self) -> Opened | Data | Reset | None:
        """What comes next on streams that are open; None when the other side has gone.

        :raise InvalidArgument: what comes is no SPDY/3.1.
        """
        while True:
            while self._frames:
                if (found := await self._taken(self._frames.popleft())) is not None:
                    return found
            data = await self._wire.read()
            if data is None:
                return None
            self._frames.extend(self._decoder.feed(data))

    async def _taken(self, frame: Frame) -> Opened | Data | Reset | None:
        """None: whoever listens to streams has nothing of it."""
        if isinstance(frame, Opened):
            return await self._open(frame)
        if isinstance(frame, Ping):
            if frame.id % 2:  # else it is an answer
                await self._wire.write(self._encoder.ping(frame.id))
        elif isinstance(frame, Reset) and frame.stream in self._receiving | self._sending:
            self._receiving.discard(frame.stream)
            self._sending.discard(frame.stream)
            return frame
        elif isinstance(frame, Data) and frame.stream in self._receiving:
            if frame.fin:
                self._receiving.discard(frame.stream)
            return frame
        return None

    async def _open(self, frame: Opened) -> Opened | None:
        if not frame.stream % 2 or frame.stream <= self._last:
            raise InvalidArgument(f"SPDY stream {frame.stream} is not a client's next one")
        self._last = frame.stream
        if len(self._receiving | self._sending) >= STREAMS_MAX:
            await self.refuse(frame.stream, Why.REFUSED_STREAM)
            return None
        self._sending.add(frame.stream)
        if not frame.fin:
            self._receiving.add(frame.stream)
        return frame

    async def reply(self, stream: int) -> None:
        """It is taken. :raise ConnectionError: the other side has gone."""
        await self._wire.write(self._encoder.replied(stream))

    async def refuse(self, stream: int, why: Why = Why.PROTOCOL_ERROR) -> None:
        """It is over. :raise ConnectionError: the other side has gone."""
        self._receiving.discard(stream)
        self._sending.discard(stream)
        await self._wire.write(self._encoder.reset(stream, why))

    async def send(self, stream: int, data: bytes, *, fin: bool = False) -> None:
        """Returns when there is room for more; nothing is sent on a stream that was reset.

        :raise ConnectionError: the other side has gone.
        """
        pieces = [data[at : at + DATA_MAX] for at in range(0, len(data), DATA_MAX)] or [b""]
        for n, piece in enumerate(pieces, 1):
            if stream not in self._sending:
                return
            last = fin and n == len(pieces)
            if last:
                self._sending.discard(stream)
            if piece or last:
                await self._wire.write(self._encoder.data(stream, piece, fin=last))

    async def close(self) -> None:
        """All that was sent arrives first. :raise ConnectionError: the other side has gone."""
        await self._wire.write(self._encoder.go_away(self._last))
        await self._wire.end()
