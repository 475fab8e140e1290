# SPDX-License-Identifier: Apache-2.0
"""What stands outside, as a program in a network namespace: name server, TLS, HTTP, and ears for whatever else comes.

Usage: python outside.py ADDRESS CERT KEY. It prints "ready", and then a line for each thing that arrives: what was
asked of the name server, each TCP connection with its first bytes, each datagram on any port, each ICMP message.
"""

import contextlib
import http.server
import json
import os
import socket
import socketserver
import ssl
import struct
import sys
import threading

ADDRESS, CERT, KEY = sys.argv[1:4]
# Names that the name server has; what it does not have is at ADDRESS, too, so that only hyperd's refusal counts.
NAMES = {
    "rebind.test": "127.0.0.1", "private.test": "10.9.9.9", "metadata.test": "169.254.169.254",
    "gateway.test": "192.168.123.1", "host.test": "203.0.113.1", "mapped.test": "127.0.0.1",
}  # fmt: skip
_PRINTING = threading.Lock()


def tell(kind: str, **what: object) -> None:
    """One line for the test."""
    with _PRINTING:
        print(json.dumps({"kind": kind, **what}), flush=True)


class Handler(http.server.BaseHTTPRequestHandler):
    """Says what it got; a websocket's handshake is answered, and then each byte sent back."""

    protocol_version = "HTTP/1.1"

    def do_GET(self) -> None:
        body = self.rfile.read(int(self.headers.get("Content-Length", 0)))
        name = getattr(self.connection, "asked", "")
        tell("http", host=self.headers.get("Host", ""), path=self.path, tls=name, body=body.decode(errors="replace"),
             headers=dict(self.headers.items()))  # fmt: skip
        if self.headers.get("Upgrade"):
            self.send_response(101)
            self.send_header("Upgrade", "websocket")
            self.send_header("Connection", "Upgrade")
            self.end_headers()
            while data := self.rfile.read1(1000):
                self.wfile.write(data)
            return
        text = json.dumps({"host": self.headers.get("Host", "")}).encode()
        self.send_response(200)
        self.send_header("Content-Length", str(len(text)))
        if number := self.headers.get("X-Request-Id"):
            self.send_header("X-Request-Id", number)
        self.end_headers()
        self.wfile.write(text)

    do_POST = do_PUT = do_OPTIONS = do_GET

    def log_message(self, *_: object) -> None: ...


class Server(http.server.ThreadingHTTPServer):
    daemon_threads = True

    def __init__(self, port: int, context: ssl.SSLContext | None = None) -> None:
        self._context = context
        super().__init__((ADDRESS, port), Handler)

    def get_request(self) -> tuple[socket.socket, object]:
        sock, who = super().get_request()
        tell("tcp", port=self.server_address[1], source=who[0])
        return sock, who

    def finish_request(self, request: socket.socket, who: object) -> None:
        with contextlib.suppress(OSError):
            if self._context:
                request = self._context.wrap_socket(request, server_side=True)
            super().finish_request(request, who)
            request.close()

    def handle_error(self, *_: object) -> None: ...


class Names(socketserver.BaseRequestHandler):
    """A name server that knows every name."""

    def handle(self) -> None:
        data, sock = self.request
        labels, at = [], 12
        while data[at]:
            labels.append(data[at + 1 : at + 1 + data[at]].decode())
            at += 1 + data[at]
        name, kind = ".".join(labels).lower(), struct.unpack_from("!H", data, at + 1)[0]
        tell("dns", name=name, type=kind)
        question = data[12 : at + 5]
        answer = b""
        if kind == 1:
            address = socket.inet_aton(NAMES.get(name, ADDRESS))
            answer = b"\xc0\x0c" + struct.pack("!HHIH", 1, 1, 1, 4) + address
        head = data[:2] + struct.pack("!HHHHH", 0x8180, 1, bool(answer), 0, 0)
        sock.sendto(head + question + answer, self.client_address)


def ears() -> None:
    """Everything that comes by IP and is not of this host's own making, whatever its protocol."""
    sock = socket.socket(socket.AF_PACKET, socket.SOCK_DGRAM, socket.htons(3))
    while True:
        data, (_, protocol, kind, *_) = sock.recvfrom(2048)
        if kind == socket.PACKET_OUTGOING:
            continue
        if protocol == 0x0800:
            number, source = data[9], socket.inet_ntoa(data[12:16])
            at = (data[0] & 15) * 4
            port = struct.unpack_from("!H", data, at + 2)[0] if number in (6, 17) else 0
            if number != 6:
                tell("packet", protocol=number, port=port, source=source)
        elif protocol == 0x86DD and data[6] != 58:
            tell("packet6", protocol=data[6])


def main() -> None:
    context = ssl.SSLContext(ssl.PROTOCOL_TLS_SERVER)
    context.load_cert_chain(CERT, KEY)

    def asked(sock: ssl.SSLSocket, name: str | None, _: ssl.SSLContext) -> None:
        sock.asked = name or ""  # type: ignore[attr-defined]
        tell("tls", name=name or "")

    context.sni_callback = asked  # type: ignore[assignment]
    servers = [Server(80), Server(443, context), Server(8443, context), Server(22), Server(853, context)]
    servers.append(socketserver.ThreadingUDPServer((ADDRESS, 53), Names))
    for server in servers:
        threading.Thread(target=server.serve_forever, daemon=True).start()
    threading.Thread(target=ears, daemon=True).start()
    tell("ready")
    sys.stdin.read()
    os._exit(0)


if __name__ == "__main__":
    main()
