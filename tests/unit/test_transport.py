# SPDX-License-Identifier: Apache-2.0
"""The client's HTTP, against answers as a daemon may send them, cut anywhere."""

from __future__ import annotations

import socket
import threading
from collections.abc import Iterator
from pathlib import Path

import pytest

from hypercontainer.client.api import Client
from hypercontainer.client.transport import Connection
from hypercontainer.errors import Unavailable

CHUNKED = (
    b"HTTP/1.1 200 OK\r\nTransfer-Encoding: chunked\r\n\r\n"
    b"5\r\nhello\r\n1;x=y\r\n\n\r\n7\r\nworld\nx\r\n0\r\nTrailer: 1\r\n\r\n"
)
PLAIN = b"HTTP/1.1 404 Not Found\r\nContent-Length: 4\r\nX-Odd:  a : b \r\n\r\nnope"


class Peer:
    """Takes one request, sends what it is told in pieces, and closes."""

    def __init__(self, path: Path, pieces: list[bytes]) -> None:
        self.path, self.got = path, b""
        self._listener = socket.socket(socket.AF_UNIX)
        self._listener.bind(str(path))
        self._listener.listen(1)
        self._thread = threading.Thread(target=self._serve, args=(pieces,))
        self._thread.start()

    def _serve(self, pieces: list[bytes]) -> None:
        conn, _ = self._listener.accept()
        with conn:
            while b"\r\n\r\n" not in self.got:
                self.got += conn.recv(4096)
            for piece in pieces:
                conn.sendall(piece)
            conn.shutdown(socket.SHUT_WR)
            while data := conn.recv(4096):
                self.got += data

    def end(self) -> None:
        self._thread.join(10)
        self._listener.close()


@pytest.fixture
def peers(tmp_path_factory: pytest.TempPathFactory) -> Iterator[list[Peer]]:
    made: list[Peer] = []
    yield made
    for peer in made:
        peer.end()


@pytest.fixture
def talk(tmp_path_factory: pytest.TempPathFactory, peers: list[Peer]):  # type: ignore[no-untyped-def]
    def begin(*pieces: bytes) -> tuple[Peer, Connection]:
        peer = Peer(tmp_path_factory.mktemp("t") / "s", list(pieces))
        peers.append(peer)
        return peer, Connection(str(peer.path))

    return begin


def in_pieces(data: bytes, size: int) -> list[bytes]:
    return [data[i : i + size] for i in range(0, len(data), size)]


@pytest.mark.parametrize("size", [1, 2, 3, 7, 1000])
def test_bodies_in_any_pieces(talk, size: int) -> None:  # type: ignore[no-untyped-def]
    _, c = talk(*in_pieces(CHUNKED, size))
    response = c.request("GET", "/x", {})
    assert response.status == 200 and list(response.lines()) == [b"hello", b"world", b"x"]
    _, c = talk(*in_pieces(PLAIN, size))
    response = c.request("GET", "/x", {})
    assert (response.status, response.headers["x-odd"], response.read()) == (404, "a : b", b"nope")


def test_a_request_with_a_body(talk) -> None:  # type: ignore[no-untyped-def]
    peer, c = talk(b"HTTP/1.1 100 Continue\r\n\r\nHTTP/1.1 204 No Content\r\n\r\n")
    assert c.request("POST", "/v1/x?a=b", {"X-Y": "z"}, b"body").read() == b""
    peer.end()
    assert peer.got == b"POST /v1/x?a=b HTTP/1.1\r\nHost: hyperd\r\nX-Y: z\r\nContent-Length: 4\r\n\r\nbody"


def test_a_body_in_chunks(talk) -> None:  # type: ignore[no-untyped-def]
    peer, c = talk(b"HTTP/1.1 204 No Content\r\n\r\n")
    c.request("PUT", "/", {}, iter([b"ab", b"", b"c" * 20])).read()
    peer.end()
    assert peer.got.endswith(b"\r\n\r\n2\r\nab\r\n14\r\n" + b"c" * 20 + b"\r\n0\r\n\r\n")


def test_an_upgraded_connection(talk) -> None:  # type: ignore[no-untyped-def]
    _, c = talk(b"HTTP/1.1 101 Switching Protocols\r\nUpgrade: tcp\r\n\r\nearly", b" and late")
    assert c.request("POST", "/", {"Upgrade": "tcp"}).status == 101
    sock, early = c.raw()
    with sock:
        while data := sock.recv(100):
            early += data
    assert early == b"early and late"


@pytest.mark.parametrize(
    ("sent", "says"),
    [
        (b"", "closed the connection without an answer"),
        (b"HTTP/1.1 200 OK\r\nContent-", "closed the connection without an answer"),
        (b"SSH-2.0-OpenSSH\r\n\r\n", "is not understood"),
        (b"x" * 70000, "is not understood"),
        (b"HTTP/1.1 200 OK\r\nContent-Length: 10\r\n\r\nhalf", "went away before it had answered"),
        (CHUNKED[:-30], "went away before it had answered"),
    ],
)
def test_what_is_no_whole_answer(talk, sent: bytes, says: str) -> None:  # type: ignore[no-untyped-def]
    _, c = talk(sent)
    with pytest.raises(Unavailable, match=says), c:
        c.request("GET", "/", {}).read()


def test_what_is_asked_for_is_sent_though_it_is_0(tmp_path: Path, peers: list[Peer]) -> None:
    """`stop -t 0` had the container's own grace of 10 s, as Python's 0 equals False."""
    peers.append(Peer(tmp_path / "s", [b"HTTP/1.1 204 No Content\r\n\r\n"]))
    Client(str(tmp_path / "s")).do("POST", "/x", {"timeout": 0, "none": None, "empty": "", "off": False, "on": True})
    assert peers[0].got.startswith(b"POST /v1/x?timeout=0&on=1 HTTP/1.1\r\n")
