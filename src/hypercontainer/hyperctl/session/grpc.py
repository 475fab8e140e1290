# SPDX-License-Identifier: Apache-2.0
"""A server of gRPC on one connection that exists already.

HTTP/2 is the library h2's, which does no input and output; grpcio's server takes no connection, only addresses. The
framing is https://github.com/grpc/grpc/blob/master/doc/PROTOCOL-HTTP2.md. One thread reads; each call has one of its
own, which may wait for more of what is sent to it, or for room for what it sends.
"""

from __future__ import annotations

import contextlib
import queue
import socket
import struct
import threading
from collections.abc import Callable, Iterator, Mapping
from urllib.parse import quote

import h2.config
import h2.connection
import h2.errors
import h2.events
import h2.exceptions
import h2.settings

from ...errors import HyperError

OK, UNKNOWN, INVALID, NOT_FOUND, UNIMPLEMENTED = 0, 2, 3, 5, 12  # of https://grpc.io/docs/guides/status-codes/
_CHUNK = 64 << 10  # bytes
_MESSAGE_MAX = 16 << 20  # bytes; BuildKit's own limit
_WINDOW = 1 << 20  # bytes that may come before they are taken
_HEAD = [(":status", "200"), ("content-type", "application/grpc")]
_PREFIX = struct.Struct(">BI")  # compressed or not, length


class CallError(Exception):
    """How a call fails: a status code, and what is said of it."""

    def __init__(self, code: int, message: str) -> None:
        super().__init__(message)
        self.code = code


class CallGone(Exception):
    """The caller has given the call up, or the connection has ended."""


class Call:
    """One call: what is sent to it, and what it sends."""

    def __init__(self, server: Server, stream: int, metadata: list[tuple[str, str]]) -> None:
        self.metadata = metadata
        self.stream = stream
        self.begun = False  # the head of the answer has been sent
        self.gone = False
        self._server = server
        self.pieces: queue.SimpleQueue[tuple[bytes, int] | None] = queue.SimpleQueue()
        self._data = b""

    def messages(self) -> Iterator[bytes]:
        """What is sent to it, until the caller has ended its half. :raise CallGone: it has gone."""
        while (head := self._take(_PREFIX.size)) is not None:
            compressed, length = _PREFIX.unpack(head)
            if compressed or length > _MESSAGE_MAX:
                raise CallError(UNIMPLEMENTED, "messages are neither compressed nor larger than 16 MiB here")
            message = self._take(length)
            if message is None:
                raise CallGone("a message has no end")
            yield message

    def _take(self, size: int) -> bytes | None:
        while len(self._data) < size:
            piece = self.pieces.get()
            if self.gone:
                raise CallGone("the caller has gone")
            if piece is None:
                self.pieces.put(None)
                return None
            self._data += piece[0]
            self._server.took(self.stream, piece[1])
        taken, self._data = self._data[:size], self._data[size:]
        return taken

    def send(self, message: bytes) -> None:
        """:raise CallGone: nobody waits for it."""
        self._server.send(self, _PREFIX.pack(0, len(message)) + message)


Handler = Callable[[Call], None]


class Server:
    """Answers calls on a socket until the other side closes it."""

    def __init__(self, sock: socket.socket, handlers: Mapping[str, Handler], begun: bytes = b"") -> None:
        """`handlers` by path, such as /grpc.health.v1.Health/Check; `begun` is what was read of the socket already."""
        self._sock = sock
        self._handlers = handlers
        self._begun = begun
        self._calls: dict[int, Call] = {}
        self._room = threading.Condition()  # also guards `_http`
        config = h2.config.H2Configuration(client_side=False, header_encoding="utf-8")
        self._http = h2.connection.H2Connection(config)
        self._over = False
        self.failed: HyperError | None = None  # what went wrong here, and not with the caller

    def run(self) -> None:
        """Until the connection ends."""
        with self._room:
            self._http.initiate_connection()
            self._http.update_settings({h2.settings.SettingCodes.INITIAL_WINDOW_SIZE: _WINDOW})
            self._http.increment_flow_control_window(_WINDOW)
            self._flush()
        data = self._begun
        try:
            while data or (data := self._sock.recv(_CHUNK)):
                with self._room:
                    for event in self._http.receive_data(data):
                        self._on(event)
                    self._flush()
                    self._room.notify_all()
                data = b""
        except (OSError, h2.exceptions.ProtocolError):
            pass  # the build tells what became of it
        finally:
            with self._room:
                self._over = True
                for call in self._calls.values():
                    self._drop(call)
                self._room.notify_all()

    def close(self) -> None:
        """End the connection, from another thread than the one that runs."""
        with contextlib.suppress(OSError):
            self._sock.shutdown(socket.SHUT_RDWR)

    def _on(self, event: h2.events.Event) -> None:
        if isinstance(event, h2.events.RequestReceived):
            metadata = [(str(name), str(value)) for name, value in event.headers]
            call = self._calls[event.stream_id] = Call(self, event.stream_id, metadata)
            threading.Thread(target=self._answer, args=(call,), daemon=True).start()
        elif isinstance(event, h2.events.DataReceived):
            if call_ := self._calls.get(event.stream_id):
                call_.pieces.put((event.data, event.flow_controlled_length))
            else:
                self._http.acknowledge_received_data(event.flow_controlled_length, event.stream_id)
        elif isinstance(event, h2.events.StreamEnded):
            if call_ := self._calls.get(event.stream_id):
                call_.pieces.put(None)
        elif isinstance(event, h2.events.StreamReset) and (call_ := self._calls.pop(event.stream_id, None)):
            self._drop(call_)

    @staticmethod
    def _drop(call: Call) -> None:
        call.gone = True
        call.pieces.put(None)

    def _answer(self, call: Call) -> None:
        code, message = OK, ""
        try:
            path = dict(call.metadata).get(":path", "")
            handler = self._handlers.get(path)
            if handler is None:
                raise CallError(UNIMPLEMENTED, f"{path} is not answered here")
            self._begin(call)
            handler(call)
        except CallError as error:
            code, message = error.code, str(error)
        except (CallGone, BrokenPipeError):
            return
        except (HyperError, OSError) as error:
            self.failed = error if isinstance(error, HyperError) else HyperError(str(error))
            code, message = UNKNOWN, str(error)
        self._end(call, code, message)

    def _begin(self, call: Call) -> None:
        with self._room:
            self._check(call)
            self._http.send_headers(call.stream, _HEAD)
            call.begun = True
            self._flush()

    def _end(self, call: Call, code: int, message: str) -> None:
        trailers = [("grpc-status", str(code)), ("grpc-message", quote(message, safe=" !#$&'()*+,/:;=?@[]"))]
        with self._room:
            if call.gone or self._over:
                return
            self._calls.pop(call.stream, None)
            try:
                head = [] if call.begun else _HEAD
                self._http.send_headers(call.stream, [*head, *trailers], end_stream=True)
                self._flush()
            except (h2.exceptions.ProtocolError, OSError):
                return  # it has gone in this moment

    # -- for calls -------------------------------------------------------------------------

    def took(self, stream: int, size: int) -> None:
        """A call has taken so many bytes: as many may come."""
        with self._room:
            if size and not self._over and stream in self._calls:
                self._http.acknowledge_received_data(size, stream)
                self._flush()

    def send(self, call: Call, data: bytes) -> None:
        """As the other side has room. :raise CallGone: nobody waits for it."""
        view = memoryview(data)
        with self._room:
            while view:
                self._check(call)
                room = min(self._http.local_flow_control_window(call.stream), self._http.max_outbound_frame_size)
                if room <= 0:
                    self._room.wait()
                    continue
                self._http.send_data(call.stream, bytes(view[:room]))
                self._flush()
                view = view[room:]

    def _check(self, call: Call) -> None:
        if call.gone or self._over:
            raise CallGone("the caller has gone")

    def _flush(self) -> None:
        if data := self._http.data_to_send():
            self._sock.sendall(data)
