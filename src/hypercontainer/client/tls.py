# SPDX-License-Identifier: Apache-2.0
"""hyperd by TCP: TLS 1.3, and who we are. hyperctl imports it only where the daemon is named as
tcp://ADDRESS:PORT, or a token is shown.

What is shown and trusted is named in the environment, which the options of hyperctl go before:

    HYPER_CERT_PATH                          a directory with ca.pem, cert.pem, key.pem; what is missing is left out
    HYPER_TLSCACERT, HYPER_TLSCERT, HYPER_TLSKEY    the files one by one; without a CA the host's own are trusted
    HYPER_TOKEN, HYPER_TOKEN_FILE            a token, or a file that has it
"""

from __future__ import annotations

import os
import select
import socket
import ssl
import threading
from pathlib import Path
from urllib.parse import urlsplit

from ..errors import HyperError, InvalidArgument, Unauthorized, Unavailable

_PIECE = 64 << 10
_WAITING = 256 << 10  # bytes in each direction, beyond which no more is read


def connect(url: str, timeout: float | None) -> ssl.SSLSocket:
    """:raise InvalidArgument: no such address, or a file that is none. :raise Unavailable: nobody answers.
    :raise Unauthorized: it is not who it should be.
    """
    host, port = address(url)
    trusted = context()
    try:
        plain = socket.create_connection((host, port), timeout)
    except OSError as error:
        raise Unavailable(f"cannot connect to hyperd at {url}: {error.strerror or error}",
                          hint="check the address, and that hyperd has it among `listen`") from None  # fmt: skip
    try:
        return trusted.wrap_socket(plain, server_hostname=host)
    except ssl.SSLCertVerificationError as error:
        plain.close()
        raise Unauthorized(
            f"{url} is not trusted: {error.verify_message}", hint="give its CA with --tlscacert"
        ) from None
    except OSError as error:
        plain.close()
        raise Unavailable(f"{url} does not speak TLS 1.3: {error}", hint="is it hyperd that listens there?") from None


def address(url: str) -> tuple[str, int]:
    """:raise InvalidArgument: it is none."""
    try:
        parts = urlsplit(url)
        if parts.hostname and parts.port and parts.path in ("", "/") and "@" not in url:
            return parts.hostname, parts.port
    except ValueError:
        pass
    raise InvalidArgument(f"invalid host {url!r}", hint="write tcp://ADDRESS:PORT, or a socket's path")


def _file(name: str, in_directory: str) -> str:
    """The file that is named, or the directory's, if that is there."""
    if given := os.environ.get(name):
        return given
    if directory := os.environ.get("HYPER_CERT_PATH"):
        path = Path(directory) / in_directory
        return str(path) if path.exists() else ""
    return ""


def context() -> ssl.SSLContext:
    """What the environment says is trusted, and shown. :raise InvalidArgument: a file that is none."""
    ca, cert, key = (
        _file("HYPER_TLSCACERT", "ca.pem"),
        _file("HYPER_TLSCERT", "cert.pem"),
        _file("HYPER_TLSKEY", "key.pem"),
    )
    try:
        made = ssl.create_default_context(cafile=ca or None)
        made.minimum_version = ssl.TLSVersion.TLSv1_3
        if cert:
            made.load_cert_chain(cert, key or None)
    except OSError as error:  # ssl.SSLError is one
        files = ", ".join(filter(None, (ca, cert, key)))
        raise InvalidArgument(f"TLS cannot be used with {files}: {error}", hint="they must be PEM files") from None
    return made


def token() -> str:
    """ "" for none.

    :raise InvalidArgument: its file cannot be read, or has none.
    """
    if given := os.environ.get("HYPER_TOKEN"):
        return _checked(given, "HYPER_TOKEN")
    path = os.environ.get("HYPER_TOKEN_FILE")
    if not path:
        return ""
    try:
        return _checked(Path(path).read_text(), path)
    except (OSError, UnicodeDecodeError) as error:
        raise InvalidArgument(f"the token in {path} cannot be read: {error}") from None


def _checked(text: str, where: str) -> str:
    found = text.strip()
    if not found.isascii() or not found.isprintable() or " " in found or not found:
        raise InvalidArgument(f"{where} has no token", hint="it is one word, as `hyperctl token create` prints it")
    return found


def relay(tls: ssl.SSLSocket) -> socket.socket:
    """A plain socket with the same bytes: for code that waits for descriptors, which with TLS say little."""
    ours, theirs = socket.socketpair()
    threading.Thread(target=_Relay(tls, ours).run, daemon=True).start()
    return theirs


class _Relay:
    """Both directions, in a thread of its own, since one TLS connection must not be used by two."""

    def __init__(self, tls: ssl.SSLSocket, plain: socket.socket) -> None:
        self._tls, self._plain = tls, plain
        self._out, self._in = bytearray(), bytearray()  # to the daemon, and from it
        self._open = True  # the daemon may send more

    def run(self) -> None:
        with self._tls, self._plain:
            for sock in (self._tls, self._plain):
                sock.setblocking(False)
            try:
                while self._open or self._in:
                    self._wait()
                    if not self._turn():
                        return
            except (OSError, HyperError):
                return  # the reader sees the end

    def _wait(self) -> None:
        poll, more, room = select.poll(), self._open and len(self._in) < _WAITING, len(self._out) < _WAITING
        for sock, reads, writes in ((self._tls, more, self._out), (self._plain, room, self._in)):
            # What nothing is wanted of is left out: its hangup would be told without end.
            if wanted := (select.POLLIN if reads else 0) | (select.POLLOUT if writes else 0):
                poll.register(sock, wanted)
        poll.poll(0 if more and self._tls.pending() else None)

    def _turn(self) -> bool:
        """What can be done now; False when our side has ended."""
        if self._open and len(self._in) < _WAITING:
            try:
                data = self._tls.recv(_PIECE)
                self._in += data
                self._open = bool(data)
            except (ssl.SSLWantReadError, ssl.SSLWantWriteError):
                pass
        try:
            if self._in:
                del self._in[: self._plain.send(self._in)]
        except BlockingIOError:
            pass
        try:
            if len(self._out) < _WAITING:
                data = self._plain.recv(_PIECE)
                self._out += data
                if not data:
                    return False
        except BlockingIOError:
            pass
        try:
            if self._out:
                del self._out[: self._tls.send(self._out)]
        except (ssl.SSLWantReadError, ssl.SSLWantWriteError):
            pass
        return True
