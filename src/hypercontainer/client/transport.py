# SPDX-License-Identifier: Apache-2.0
"""HTTP/1.1 over a unix socket, by h11."""

from __future__ import annotations

import socket
from collections.abc import Iterable, Iterator

import h11

from ..errors import PermissionDenied, Unavailable

_READ = 256 << 10


class Response:
    """Status and headers, with the body still to be read."""

    def __init__(self, connection: Connection, status: int, headers: dict[str, str]) -> None:
        self.status = status
        self.headers = headers
        self.connection = connection

    def chunks(self) -> Iterator[bytes]:
        """:raise Unavailable: when the daemon goes away."""
        while True:
            event = self.connection.next_event()
            if isinstance(event, h11.Data):
                yield bytes(event.data)
            elif isinstance(event, h11.EndOfMessage):
                return
            else:
                raise Unavailable("hyperd closed the connection", hint="see its log")

    def read(self) -> bytes:
        with self.connection:
            return b"".join(self.chunks())

    def lines(self) -> Iterator[bytes]:
        """Lines as they arrive."""
        rest = b""
        with self.connection:
            for chunk in self.chunks():
                *whole, rest = (rest + chunk).split(b"\n")
                yield from whole
        if rest:
            yield rest


class Connection:
    """One request; then closed, or handed over as a raw stream."""

    def __init__(self, path: str, timeout: float | None = None) -> None:
        """:raise Unavailable: nobody listens. :raise PermissionDenied: the socket is not ours to use."""
        self.sock = socket.socket(socket.AF_UNIX)
        self.sock.settimeout(timeout)
        try:
            self.sock.connect(path)
        except PermissionError:
            self.sock.close()
            raise PermissionDenied(f"{path} may not be opened", hint="run as root, or join the group hyper") from None
        except OSError as error:
            self.sock.close()
            raise Unavailable(f"cannot connect to hyperd at {path}: {error.strerror}",
                              hint="start it with `hyperd`, or name its socket with --host") from None  # fmt: skip
        self._http = h11.Connection(h11.CLIENT)

    def __enter__(self) -> Connection:
        return self

    def __exit__(self, *_: object) -> None:
        self.sock.close()

    def request(self, method: str, target: str, headers: dict[str, str], body: bytes | Iterable[bytes] = b"") -> Response:
        """Send a request; a body of several pieces goes chunked."""
        send = {"Host": "hyperd", **headers}
        pieces: Iterable[bytes] = [body] if isinstance(body, bytes) else body
        if isinstance(body, bytes):
            send["Content-Length"] = str(len(body))
        else:
            send["Transfer-Encoding"] = "chunked"
        try:
            self._send(h11.Request(method=method, target=target, headers=list(send.items())))
            for piece in pieces:
                if piece:
                    self._send(h11.Data(data=piece))
            self._send(h11.EndOfMessage())
        except (BrokenPipeError, ConnectionResetError):
            pass  # an answer may have come before the body was through
        event = self.next_event()
        while isinstance(event, h11.InformationalResponse) and event.status_code != 101:
            event = self.next_event()
        if not isinstance(event, (h11.Response, h11.InformationalResponse)):
            raise Unavailable("hyperd closed the connection without an answer", hint="see its log")
        return Response(self, event.status_code, {k.decode().lower(): v.decode() for k, v in event.headers})

    def raw(self) -> tuple[socket.socket, bytes]:
        """After a 101: the socket, and what was read beyond the answer."""
        return self.sock, bytes(self._http.trailing_data[0])

    def _send(self, event: h11.Event) -> None:
        data = self._http.send(event)
        if data:
            self.sock.sendall(data)

    def next_event(self) -> object:
        while True:
            try:
                event = self._http.next_event()
                if event is not h11.NEED_DATA:
                    return event
                self._http.receive_data(self.sock.recv(_READ))
            except TimeoutError:
                raise Unavailable("hyperd does not answer", hint="see its log, or restart it") from None
            except h11.RemoteProtocolError:
                raise Unavailable("hyperd went away before it had answered", hint="see its log, and try again") from None
            except OSError as error:
                raise Unavailable(f"the connection to hyperd broke: {error}", hint="see its log") from None
