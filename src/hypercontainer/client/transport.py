# SPDX-License-Identifier: Apache-2.0
"""HTTP/1.1 over a unix socket or TLS, as much of it as our own daemon speaks (RFC 9112).

Written here because a library's import takes longer than a container's start
from the pool; see docs/adr/0004.
"""

from __future__ import annotations

import _socket  # what `socket` wraps: half of the import time of `hyperctl run` was enums and selectors
import os

from ..errors import PermissionDenied, Unavailable

TYPE_CHECKING = False
if TYPE_CHECKING:
    from collections.abc import Iterable, Iterator
    from socket import socket

_READ = 256 << 10
_HEAD_MAX = 64 << 10  # bytes of an answer's head
_SWITCHING = 101


class Response:
    """Status and headers, with the body still to be read."""

    def __init__(self, connection: Connection, status: int, headers: dict[str, str]) -> None:
        self.status = status
        self.headers = headers
        self.connection = connection

    def chunks(self) -> Iterator[bytes]:
        """:raise Unavailable: when the daemon goes away."""
        if self.headers.get("transfer-encoding", "").lower() == "chunked":
            while size := int(self.connection.line().partition(b";")[0], 16):
                yield from self.connection.exactly(size)
                self.connection.line()
            while self.connection.line():  # trailers
                pass
        elif self.status != 204:
            yield from self.connection.exactly(int(self.headers.get("content-length", "0")))

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


def has_token() -> bool:
    """Whether a token is to be shown, also where the socket would do: its holder may do less, or is in a project."""
    return bool(os.environ.get("HYPER_TOKEN") or os.environ.get("HYPER_TOKEN_FILE"))


class Connection:
    """One request; then closed, or handed over as a raw stream."""

    def __init__(self, path: str, timeout: float | None = None) -> None:
        """`path` is a unix socket's, or tcp://ADDRESS:PORT.

        :raise Unavailable: nobody listens. :raise PermissionDenied: the socket is not ours to use; and what
        `tls.connect` raises.
        """
        self._buffer = b""
        self._token = ""
        self.sock: _socket.socket
        if path.startswith("tcp://") or has_token():
            from . import tls

            self._token = tls.token()
        if path.startswith("tcp://"):
            self.sock = tls.connect(path, timeout)
            return
        self.sock = _socket.socket(_socket.AF_UNIX, _socket.SOCK_STREAM | _socket.SOCK_CLOEXEC)
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

    def __enter__(self) -> Connection:
        return self

    def __exit__(self, *_: object) -> None:
        self.sock.close()

    def request(
        self, method: str, target: str, headers: dict[str, str], body: bytes | Iterable[bytes] = b""
    ) -> Response:
        """Send a request, and read the answer's head."""
        self.send(method, target, headers, body)
        return self.response()

    def send(self, method: str, target: str, headers: dict[str, str], body: bytes | Iterable[bytes] = b"") -> None:
        """A body of several pieces goes chunked."""
        send = {"Host": "hyperd", **headers}
        if project := os.environ.get("HYPER_PROJECT"):
            send["Hyper-Project"] = project
        if self._token:
            send["Authorization"] = f"Bearer {self._token}"
        if isinstance(body, bytes):
            send["Content-Length"] = str(len(body))
        else:
            send["Transfer-Encoding"] = "chunked"
        head = "".join([f"{method} {target} HTTP/1.1\r\n", *(f"{k}: {v}\r\n" for k, v in send.items()), "\r\n"]).encode(
            "ascii"
        )
        try:
            if isinstance(body, bytes):
                self.sock.sendall(head + body)
            else:
                self.sock.sendall(head)
                for piece in body:
                    if piece:
                        self.sock.sendall(b"%x\r\n%b\r\n" % (len(piece), piece))
                self.sock.sendall(b"0\r\n\r\n")
        except OSError as error:
            if not isinstance(error, (BrokenPipeError, ConnectionResetError)) and type(self.sock) is _socket.socket:
                raise
            pass  # an answer may have come before the body was through

    def response(self) -> Response:
        """:raise Unavailable: when there is none."""
        status, found = self._head()
        while 100 <= status < 200 and status != _SWITCHING:
            status, found = self._head()
        return Response(self, status, found)

    def raw(self) -> tuple[socket, bytes]:
        """After a 101: the socket, and what was read beyond the answer."""
        import socket

        if type(self.sock) is not _socket.socket:
            import ssl

            from .tls import relay

            assert isinstance(self.sock, ssl.SSLSocket)
            self.sock = plain = relay(self.sock)  # what closes the connection closes that
            return plain, self._buffer
        return socket.socket(fileno=self.sock.detach()), self._buffer

    def _head(self) -> tuple[int, dict[str, str]]:
        while (end := self._buffer.find(b"\r\n\r\n")) < 0:
            if len(self._buffer) > _HEAD_MAX:
                raise Unavailable("hyperd's answer is not understood", hint="is it hyperd that listens there?")
            if not self._fill():
                raise Unavailable("hyperd closed the connection without an answer", hint="see its log")
        first, *rest = self._buffer[:end].decode("latin-1").split("\r\n")
        self._buffer = self._buffer[end + 4 :]
        version, _, status = first.partition(" ")
        if not version.startswith("HTTP/1.") or not status[:3].isdigit():
            raise Unavailable("hyperd's answer is not understood", hint="is it hyperd that listens there?")
        pairs = (line.partition(":") for line in rest)
        return int(status[:3]), {name.strip().lower(): value.strip() for name, _, value in pairs}

    def _fill(self) -> bool:
        try:
            data = self.sock.recv(_READ)
        except TimeoutError:
            raise Unavailable("hyperd does not answer", hint="see its log, or restart it") from None
        except OSError as error:
            raise Unavailable(f"the connection to hyperd broke: {error}", hint="see its log") from None
        self._buffer += data
        return bool(data)

    def _need(self) -> None:
        if not self._fill():
            raise Unavailable("hyperd went away before it had answered", hint="see its log, and try again")

    def line(self) -> bytes:
        """A line of the body's framing."""
        while (end := self._buffer.find(b"\r\n")) < 0:
            self._need()
        line, self._buffer = self._buffer[:end], self._buffer[end + 2 :]
        return line

    def exactly(self, size: int) -> Iterator[bytes]:
        """So many bytes of the body, in pieces as they arrive."""
        while size:
            if not self._buffer:
                self._need()
            piece, self._buffer = self._buffer[:size], self._buffer[size:]
            size -= len(piece)
            yield piece
