# SPDX-License-Identifier: Apache-2.0
"""One byte stream with one guest: its token, frames, and requests with their answers.

    IDLE ──► CONNECTING ──HELLO answered──► RUNNING ──► CLOSED

It ends when the stream does, when the peer breaks the protocol, or by `close`;
whatever waits then gets `Unavailable`. What the frames mean is `GuestSession`'s.
"""

from __future__ import annotations

import asyncio
from abc import ABC, abstractmethod
from collections.abc import Callable
from enum import Enum
from typing import TypeVar

from ..errors import DeadlineExceeded, InvalidArgument, InvalidState, Unavailable
from ..protocol.constants import FRAME_HEADER, FRAME_MAX, Type
from ..protocol.wire import Attrs, Frame, FrameReader, ProtocolError, encode_attrs, encode_frame
from ..sys import deadlines, tasks
from .replies import error_of, record_spans

_ID_MAX = 2**32 - 1
_UNREAD_MAX = 16 << 20  # bytes that may wait for a guest; one that keeps to its credits never comes near
# Bytes that are taken at once: what a guest has filled with the smallest frames takes some milliseconds, between which
# others have their turn. asyncio's own is eight times that.
_AT_ONCE = 32 << 10

T = TypeVar("T")


class State(Enum):
    """Where a connection is in its life."""

    IDLE = "idle"
    CONNECTING = "connecting"
    RUNNING = "running"
    CLOSED = "closed"


class Connection(asyncio.Protocol, ABC):
    """Frames both ways; the answer to each request goes to who asked."""

    def __init__(self, token: bytes) -> None:
        self.state = State.IDLE
        self.closed = asyncio.Event()
        self.renewable = False  # whoever owns it opens another when the stream ends by itself
        self.lost = False  # it has, and what runs in the guest does not know yet
        self.fault = ""  # how the guest has broken the protocol, which ended it
        self._token = token
        self._reader = FrameReader(token)
        self._transport: asyncio.Transport | None = None
        self._requests: dict[int, asyncio.Future[Frame]] = {}
        self._next_id = 0
        self._why: Unavailable | None = None  # it has ended

    @abstractmethod
    def _heard(self, frame: Frame) -> None:
        """A frame that is no answer. :raise ProtocolError: it is malformed, which ends the connection."""

    @abstractmethod
    def _has_ended(self) -> None:
        """Once, after whoever waits for an answer was told."""

    def _set_state(self, state: State) -> None:
        self.state = state
        if state is State.CLOSED:
            self.closed.set()

    @property
    def alive(self) -> bool:
        """Whether the guest can be asked."""
        return self.state is State.RUNNING

    # -- requests ---------------------------------------------------------------

    async def request(self, type_: Type, attrs: Attrs, timeout: float = deadlines.ANSWER) -> bytes:
        """Send a request, return the reply's body.

        :raise InvalidState: when there is no connection.
        :raise GuestError: when the guest refuses.
        """
        self._check_running()
        body = (await self._request(type_, attrs, timeout)).body
        record_spans(body)
        return body

    def _check_running(self) -> None:
        if not self.alive:
            raise InvalidState("the guest is not connected")

    async def _request(self, type_: Type, attrs: Attrs, timeout: float, id_: int = 0) -> Frame:
        id_ = id_ or self._new_id()
        body = encode_attrs(attrs)
        if len(body) > FRAME_MAX - FRAME_HEADER:
            raise InvalidArgument(
                f"{type_.name} would take a message of {len(body)} bytes, and a guest reads no more than {FRAME_MAX}",
                hint="use fewer or shorter arguments, variables, files and mounts",
            )
        future: asyncio.Future[Frame] = asyncio.get_running_loop().create_future()
        self._requests[id_] = future
        try:
            self.send_frame(type_, id_, body)
            return await tasks.within(future, timeout)
        except TimeoutError:
            raise DeadlineExceeded(
                f"the guest did not answer {type_.name} within {timeout:g} s",
                hint="wait, or end it with `hyperctl kill -s KILL` or `rm -f`",
            ) from None
        finally:
            self._requests.pop(id_, None)

    def post(self, type_: Type, attrs: Attrs) -> None:
        """A request whose answer nobody waits for."""
        self.send_frame(type_, self._new_id(), encode_attrs(attrs))

    def _new_id(self) -> int:
        """One that nothing has; a guest that names 2^32 - 1 takes none away."""
        while True:
            self._next_id = self._next_id % _ID_MAX + 1
            if not self._is_taken(self._next_id):
                return self._next_id

    def _is_taken(self, id_: int) -> bool:
        return id_ in self._requests

    def _decoded(self, decode: Callable[[bytes], T], body: bytes) -> T:
        """:raise Unavailable: when a reply is malformed; the connection has ended then."""
        try:
            return decode(body)
        except ProtocolError as error:
            self._break(error)
            raise Unavailable(f"the guest's channel failed: {error}") from error

    # -- the stream -------------------------------------------------------------

    def send_frame(self, type_: int, id_: int, body: bytes) -> None:
        """Queue one frame; without a connection it is dropped, as in a crash."""
        if self._transport and not self._transport.is_closing():
            self._transport.write(encode_frame(type_, id_, body))
            if self._transport.get_write_buffer_size() > _UNREAD_MAX:
                self._break(ProtocolError("the guest asks and does not read"))

    def _send_token(self) -> None:
        assert self._transport is not None
        self._transport.write(self._token)

    def connection_made(self, transport: asyncio.BaseTransport) -> None:
        """asyncio's: bytes can be sent."""
        assert isinstance(transport, asyncio.Transport)
        if hasattr(transport, "max_size"):  # of asyncio's selector loop
            transport.max_size = _AT_ONCE
        self._transport = transport

    def connection_lost(self, exc: Exception | None) -> None:
        """asyncio's: whoever waits for an answer hears that none will come."""
        self.lost = self.renewable and self.alive
        self._end(exc or Unavailable("the virtual machine closed its channel"))

    def data_received(self, data: bytes) -> None:
        """asyncio's: bytes of the guest, cut into frames; one that breaks the protocol loses its connection."""
        try:
            for frame in self._reader.feed(data):
                self._dispatch(frame)
        except ProtocolError as error:
            self._break(error)

    def _dispatch(self, frame: Frame) -> None:
        if frame.type not in (Type.REPLY, Type.ERROR):
            self._heard(frame)
            return
        future = self._requests.get(frame.id)
        if future and not future.done():
            if frame.type == Type.REPLY:
                future.set_result(frame)
            else:
                future.set_exception(error_of(frame.body))

    def _break(self, error: ProtocolError) -> None:
        self.fault = self.fault or str(error)
        self._end(error)
        if self._transport:
            self._transport.abort()

    def drop(self) -> None:
        """End it as if the stream had ended by itself. Idempotent."""
        if self._transport:
            self._transport.abort()

    def close(self) -> None:
        """Idempotent."""
        if self._transport:
            self._transport.close()
        self._end(Unavailable("the connection to the guest was closed"))

    def _end(self, why: Exception) -> None:
        if self.state is State.CLOSED:
            return
        self._set_state(State.CLOSED)
        self._why = why if isinstance(why, Unavailable) else Unavailable(f"the guest's channel failed: {why}")
        for future in self._requests.values():
            if not future.done():
                future.set_exception(self._why)
        self._has_ended()
