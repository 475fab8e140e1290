# SPDX-License-Identifier: Apache-2.0
"""Egress by name, in parts: what a policy has, what TLS and HTTP name, which addresses are out of bounds."""

from __future__ import annotations

import asyncio
import base64
import contextlib
import socket
import ssl
import struct
from collections.abc import Awaitable, Callable
from functools import partial
from ipaddress import ip_network
from pathlib import Path
from typing import Any

import h11
import msgspec
import pytest

from hypercontainer.engine import egress_secrets
from hypercontainer.engine.paths import Paths
from hypercontainer.engine.plan import check_plan
from hypercontainer.engine.secrets import Secrets
from hypercontainer.errors import InvalidArgument
from hypercontainer.model.egress import (
    EgressHost,
    EgressPolicy,
    EgressSecret,
    canonical_name,
    parse_host,
    parse_secret,
    policy,
)
from hypercontainer.model.network import NetworkRequest
from hypercontainer.model.pods import PodPlan
from hypercontainer.model.rates import parse_allow
from hypercontainer.model.specs import ContainerSpec
from hypercontainer.network import dns
from hypercontainer.network.egress import authority, hello, http, messages, names, upstream
from hypercontainer.network.egress.channel import Channel, Closed
from hypercontainer.network.egress.injection import Injection, hidden, swapped
from hypercontainer.network.egress.messages import Job, Swap
from hypercontainer.network.egress.refused import Refused
from hypercontainer.network.egress.resolver import Resolver
from hypercontainer.network.egress.worker import Worker
from tests.certificates import Authority

# -- policies ---------------------------------------------------------------------------


@pytest.mark.parametrize(
    ("text", "host", "ports"),
    [
        ("api.example.com", "api.example.com", (80, 443)),
        ("API.Example.COM.:8443", "api.example.com", (8443,)),
        ("*.example.com", "*.example.com", (80, 443)),
        ("localhost:1", "localhost", (1,)),
    ],
)
def test_hosts(text: str, host: str, ports: tuple[int, ...]) -> None:
    found = parse_host(text)
    assert (found.host, found.ports) == (host, ports)


@pytest.mark.parametrize(
    "text",
    ["", "*", "*.", "a..b", "10.0.0.1", "10.0.0.1:443", "::1", "[::1]:443", "0x7f.1", "2130706433", "a.example:0",
     "a.example:65536", "a.example:x", "-a.example", "a b", "münchen.example", "a.*.example", "a/b",
     "x" * 64 + ".example",     "a\n.example", "a.example\n"],
)  # fmt: skip
def test_what_is_no_host(text: str) -> None:
    with pytest.raises(InvalidArgument):
        parse_host(text)


def test_what_a_policy_allows() -> None:
    found = policy("", ["api.example.com:443", "*.cdn.example.com", "plain.example.com:80"])
    assert found
    allowed = [("api.example.com", 443), ("a.b.cdn.example.com", 80), ("plain.example.com", 80)]
    refused = [("api.example.com", 80), ("cdn.example.com", 443), ("xcdn.example.com", 443), (".cdn.example.com", 443),
               ("api.example.com.evil.test", 443), ("evil.test", 443), ("", 443)]  # fmt: skip
    assert [found.allows(*where) for where in allowed + refused] == [True] * 3 + [False] * len(refused)
    assert policy("none", []) == EgressPolicy()
    assert policy("", []) is policy("open", []) is None
    with pytest.raises(InvalidArgument, match="egress is open, and hosts are named"):
        policy("open", ["a.example"])


# -- TLS --------------------------------------------------------------------------------


def client_hello(name: str | None) -> bytes:
    context = ssl.create_default_context()
    context.check_hostname = False
    outgoing = ssl.MemoryBIO()
    tls = context.wrap_bio(ssl.MemoryBIO(), outgoing, server_hostname=name)
    with pytest.raises(ssl.SSLWantReadError):
        tls.do_handshake()
    return outgoing.read()


def fragments(data: bytes, size: int) -> bytes:
    """The same message in records of so many bytes."""
    body = data[5:]
    pieces = [body[i : i + size] for i in range(0, len(body), size)]
    return b"".join(data[:3] + struct.pack("!H", len(piece)) + piece for piece in pieces)


def with_extension(data: bytes, kind: int, body: bytes) -> bytes:
    """The same hello with one more extension, at its end."""
    message = data[9:]
    at = 34
    at += 1 + message[at]
    at += 2 + struct.unpack_from("!H", message, at)[0]
    at += 1 + message[at]
    extensions = message[at + 2 :] + struct.pack("!HH", kind, len(body)) + body
    message = message[:at] + struct.pack("!H", len(extensions)) + extensions
    handshake = b"\x01" + len(message).to_bytes(3, "big") + message
    return data[:3] + struct.pack("!H", len(handshake)) + handshake


@pytest.mark.parametrize("size", [1, 3, 4, 100, 1 << 14])
def test_a_hello_comes_in_any_pieces(size: int) -> None:
    data = fragments(client_hello("API.example.com"), size)
    assert [hello.server_name(data[:i]) for i in range(len(data))] == [None] * len(data)
    assert hello.server_name(data) == "api.example.com"
    assert hello.server_name(data + b"\x17\x03\x03\x00\x01x") == "api.example.com"  # data that come early


@pytest.mark.parametrize(
    ("data", "why"),
    [
        (client_hello(None), "names no server"),
        (with_extension(client_hello("a.example"), 0xFE0D, b"x"), "encrypted"),
        (with_extension(client_hello("a.example"), 0, b"\0\x0c\0\0\x09b.example"), "malformed"),
        (with_extension(client_hello(None), 0, b"\0\x08\0\0\x0510.1"), "malformed"),
        (with_extension(client_hello(None), 0, b"\0\x07\0\0\x0410.1"), "names no server"),
        (with_extension(client_hello(None), 0, b"\0\x0a\0\0\x0310.\0\0\x0110"), "malformed"),
        (b"\x16\x03\x01\x00\x00", "no TLS hello"),
        (b"\x16\x03\x01\x00\x04\x02\0\0\0", "no TLS hello"),
        (b"\x16\x03\x01\x00\x04\x01\x01\0\0", "too long"),
        (b"\x16\x03\x01\x00\x05\x01\0\0\0x", "malformed"),
        (b"\x16\x03\x01\x00\x04\x01\0\0\0", "malformed"),
        (client_hello("a.example")[:50] + b"\xff" * 500, "malformed|no TLS hello"),
    ],
)
def test_a_hello_that_is_refused(data: bytes, why: str) -> None:
    with pytest.raises(Refused, match=why):
        hello.server_name(data)


def test_a_damaged_hello_is_refused_or_names_a_name() -> None:
    data = bytearray(client_hello("api.example.com"))
    for at in range(len(data)):
        damaged = bytes(data[:at]) + bytes([data[at] ^ 0xFF]) + bytes(data[at + 1 :])
        try:
            found = hello.server_name(damaged)
        except Refused:
            continue
        assert found is None or found == canonical_name(found)


# -- HTTP -------------------------------------------------------------------------------


class Far:
    """A host: it keeps what it got, and answers each request with what it is told to."""

    def __init__(self, answer: bytes) -> None:
        self.got = b""
        self.opened: list[tuple[str, int]] = []
        self._answer = answer

    async def serve(self, reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        while data := await reader.read(1000):
            self.got += data
            if self.got.endswith((b"\r\n\r\n", b"!")):
                writer.write(self._answer)
        writer.close()


def relayed(
    sent: bytes, far: Far, *, port: int = 80, allowed: tuple[str, ...] = ("a.example",), **how: Any
) -> tuple[bytes, str]:
    """What a client gets that sends this and no more, and why it was refused."""

    async def run() -> tuple[bytes, str]:
        server = await asyncio.start_server(far.serve, "127.0.0.1", 0)
        where = server.sockets[0].getsockname()
        why: list[str] = []

        async def open_(host: str, port: int) -> Channel:
            far.opened.append((host, port))
            if host not in allowed:
                raise Refused("not allowed", host, port)
            return Channel(*await asyncio.open_connection(*where))

        async def relay(reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
            client = Channel(reader, writer)
            try:
                await http.Relay(client, port, open_, **how).run()
            except Refused as refused:
                why.append(str(refused))
            except Closed:
                why.append("closed")
            client.close()

        front = await asyncio.start_server(relay, "127.0.0.1", 0)
        async with server, front, asyncio.timeout(30):
            reader, writer = await asyncio.open_connection(*front.sockets[0].getsockname())
            writer.write(sent)
            writer.write_eof()
            found = await reader.read()
            writer.close()
        return found, "".join(why)

    return asyncio.run(run())


OK = b"HTTP/1.1 200 OK\r\nContent-Length: 2\r\n\r\nhi"


def test_requests_one_after_the_other() -> None:
    far = Far(OK)
    found, why = relayed(
        b"GET /1 HTTP/1.1\r\nHost: a.example\r\n\r\nGET /2 HTTP/1.1\r\nHost: A.Example.:80\r\n\r\n", far
    )
    assert (found.count(b"200 OK"), why, far.opened) == (2, "", [("a.example", 80)])
    assert b"GET /1 HTTP/1.1" in far.got
    assert b"GET /2 HTTP/1.1" in far.got


def test_a_second_request_for_another_host_goes_nowhere() -> None:
    far = Far(OK)
    found, why = relayed(b"GET /1 HTTP/1.1\r\nHost: a.example\r\n\r\nGET /2 HTTP/1.1\r\nHost: evil.test\r\n\r\n", far)
    assert (found.count(b"200 OK"), found.count(b"403 Forbidden"), why) == (1, 1, "not allowed")
    assert b"/2" not in far.got


def test_a_body_and_no_more_is_sent_on() -> None:
    """What a length and chunks say differently, which two readers may take for one or two requests, is refused."""
    far = Far(OK)
    body = b"POST / HTTP/1.1\r\nHost: a.example\r\nContent-Length: 5\r\n\r\nbody!"
    found, why = relayed(body, far)
    assert (found.count(b"200 OK"), why, far.got.endswith(b"body!")) == (1, "", True)
    both = b"POST / HTTP/1.1\r\nHost: a.example\r\nContent-Length: 4\r\nTransfer-Encoding: chunked\r\n\r\n"
    far = Far(OK)
    found, why = relayed(both + b"0\r\n\r\nGET / HTTP/1.1\r\nHost: evil.test\r\n\r\n", far)
    assert (why, far.got, found.count(b"403 Forbidden")) == ("its request has two lengths", b"", 1)


@pytest.mark.parametrize(
    ("head", "why"),
    [
        ("GET / HTTP/1.1\r\n", "malformed"),
        ("GET / HTTP/1.0\r\n", "names no host"),
        ("GET / HTTP/1.1\r\nHost: a.example\r\nHost: evil.test\r\n", "malformed"),
        ("GET / HTTP/1.1\r\nHost: a.example:22\r\n", "another port"),
        ("GET / HTTP/1.1\r\nHost: 203.0.113.2\r\n", "names no host"),
        ("GET / HTTP/1.1\r\nHost: user@a.example\r\n", "names no host"),
        ("GET http://evil.test/ HTTP/1.1\r\nHost: a.example\r\n", "another host than it names"),
        ("GET https://a.example/ HTTP/1.1\r\nHost: a.example\r\n", "another host than it names"),
        ("GET evil.test HTTP/1.1\r\nHost: a.example\r\n", "another host than it names"),
        ("CONNECT evil.test:443 HTTP/1.1\r\nHost: a.example\r\n", "not allowed"),
        ("CONNECT 10.0.0.1:443 HTTP/1.1\r\nHost: a.example\r\n", "CONNECT names no host"),
        ("CONNECT a.example:0000443 HTTP/1.1\r\nHost: a.example\r\n", "CONNECT names no host"),
        ("PRI * HTTP/2.0\r\n", "names no host"),
    ],
)
def test_a_request_that_is_refused(head: str, why: str) -> None:
    far = Far(OK)
    found, said = relayed(head.encode() + b"\r\n", far)
    assert why in said
    assert (far.got, b"403 Forbidden" in found) == (b"", True)


def test_absolute_form() -> None:
    far = Far(OK)
    found, why = relayed(b"GET http://a.example/x?y HTTP/1.1\r\nHost: a.example\r\n\r\n", far)
    assert (found.count(b"200 OK"), why, far.got[:16]) == (1, "", b"GET /x?y HTTP/1.")


def test_what_may_begin_a_request() -> None:
    assert [http.is_http(x) for x in (b"GET / HT", b"G", b"SSH-2.0-x", b"\x16\x03", b"", b"get /")] == [
        True, True, False, False, False, False,
    ]  # fmt: skip
    assert http.destination(h11.Request(method="OPTIONS", target="*", headers=[("host", "a.example")]), 80) == (
        "a.example", b"*",
    )  # fmt: skip


# -- addresses and names ----------------------------------------------------------------

BAD = ("127.0.0.1", "10.1.2.3", "192.168.1.1", "172.16.0.1", "169.254.169.254", "100.64.0.1", "0.0.0.0", "224.0.0.1",
       "255.255.255.255", "::1", "::", "fe80::1", "fd00:ec2::254", "ff02::1", "::ffff:10.0.0.1", "64:ff9b::a00:1",
       "2002:7f00:1::", "203.0.113.9", "fec0::1", "::7f00:1", "64:ff9b:1::a00:1", "::ffff:0:7f00:1", "5f00::1",
       "192.0.0.192", "168.63.129.16", "::ffff:168.63.129.16", "64:ff9b::a83f:8110")  # fmt: skip


@pytest.mark.parametrize("address", BAD)
def test_addresses_out_of_bounds(address: str) -> None:
    assert upstream.trouble(address, [], [])


def test_what_an_operator_opens() -> None:
    nets = [ip_network("10.0.0.0/8"), ip_network("127.0.0.0/8")]
    assert upstream.trouble("10.1.2.3", nets, []) == ""
    assert "of a network of pods" in upstream.trouble("10.1.2.3", nets, [ip_network("10.1.0.0/16")])
    assert "this host's own" in upstream.trouble("127.0.0.1", nets, [])
    assert upstream.trouble("127.0.0.1", [ip_network("127.0.0.1/32")], []) == ""
    assert upstream.trouble("8.8.8.8", [], []) == upstream.trouble("2606:4700::1111", [], []) == ""


def asked(name: str, kind: str, addresses: Callable[[str], Awaitable[list[str]]]) -> tuple[int, list[str], list[str]]:
    from dnslib import DNSRecord

    refused: list[str] = []
    question = bytes(DNSRecord.question(name, kind).pack())
    known = EgressPolicy(hosts=[EgressHost(host="a.example")])
    told = DNSRecord.parse(asyncio.run(names.answer(question, known, addresses, refused.append)))
    return told.header.rcode, [str(rr.rdata) for rr in told.rr], refused


def test_names_that_a_pod_may_know() -> None:
    async def addresses(name: str) -> list[str]:
        assert name == "a.example"
        return ["192.0.2.1"]

    async def silent(_: str) -> list[str]:
        raise TimeoutError

    assert asked("A.EXAMPLE", "A", addresses) == (0, ["192.0.2.1"], [])
    assert asked("a.example", "AAAA", addresses) == asked("a.example", "HTTPS", addresses) == (0, [], [])
    assert asked("secret.evil.test", "TXT", addresses) == (3, [], ["secret.evil.test"])
    assert asked("1.2.0.192.in-addr.arpa", "PTR", addresses) == (3, [], ["1.2.0.192.in-addr.arpa"])
    assert asked("a.example", "A", silent) == (2, [], [])


def test_an_answer_that_was_cut_short_is_asked_for_as_a_larger_one(monkeypatch: pytest.MonkeyPatch) -> None:
    sizes: list[int] = []

    async def ask(server: str, question: bytes) -> bytes:
        from dnslib import RR, A, DNSRecord

        asked = DNSRecord.parse(question)
        sizes.append(asked.ar[0].edns_len if asked.ar else 512)
        reply = asked.reply()
        reply.header.tc = int(not asked.ar)
        if asked.ar:
            reply.add_answer(RR(asked.q.qname, rdata=A("192.0.2.1")))
        return bytes(reply.pack())

    monkeypatch.setattr(dns, "ask", ask)
    found = asyncio.run(Resolver(lambda: ["192.0.2.9"]).addresses("a.example", 4))
    assert (found, sizes) == (["192.0.2.1"], [512, 4096])


# -- secrets ----------------------------------------------------------------------------


@pytest.mark.parametrize(
    ("text", "found"),
    [
        ("T@api.example.com", ("T", "api.example.com", 443, "")),
        ("T@API.example.com:8443", ("T", "api.example.com", 8443, "")),
        ("T@api.example.com:X-Key", ("T", "api.example.com", 443, "X-Key")),
        ("T@api.example.com:8443:X-Key", ("T", "api.example.com", 8443, "X-Key")),
    ],
)
def test_secrets(text: str, found: tuple[str, str, int, str]) -> None:
    secret = parse_secret(text, lambda name: b"value of " + name.encode())
    assert (secret.name, secret.host, secret.port, secret.header) == found
    assert secret.value == b"value of T"


@pytest.mark.parametrize(
    "text", ["", "T", "T@", "@a.example", "T@*.example.com", "T@10.0.0.1", "1T@a.example", "T@a.example:0",
             "T@a.example:443:X:Y", "T@a.example:X Y", "T=x@a.example"],
)  # fmt: skip
def test_what_is_no_secret(text: str) -> None:
    with pytest.raises(InvalidArgument):
        parse_secret(text, lambda _: b"value")


@pytest.mark.parametrize("value", [b"two\r\nlines", b" a", b"a ", "\u00e4".encode(), b"x" * 8193])
def test_what_cannot_be_in_a_header_is_no_value_of_a_secret(value: bytes) -> None:
    with pytest.raises(InvalidArgument, match="cannot be in a header"):
        parse_secret("T@a.example", lambda _: value)


def test_a_policy_with_secrets() -> None:
    secrets = [parse_secret("T@a.example:8443", lambda _: b"value")]
    found = policy("", [], secrets)
    assert found
    assert (found.allows("a.example", 8443), found.allows("a.example", 443), found.names("a.example")) == (
        True,
        False,
        True,
    )
    with pytest.raises(InvalidArgument, match="a secret is named twice"):
        policy("", [], secrets * 2)
    other = {"name": "T", "host": "b.example"}
    with pytest.raises(msgspec.ValidationError, match="a secret is named twice"):  # who speaks REST, too
        msgspec.convert({"secrets": [{"name": "T", "host": "a.example"}, other]}, EgressPolicy)


def test_a_secret_of_any_name_leaves_the_key_of_the_authority(tmp_path: Path) -> None:
    secrets = Secrets(Paths(tmp_path, tmp_path / "run"))
    asked = [EgressSecret(name=name, host="a.example", value=b"value") for name in ("authority", "T")]
    known = egress_secrets.kept(secrets, "pod", EgressPolicy(secrets=asked))
    assert known
    (mine,) = authority.intercepted(known, partial(secrets.get, "pod"))
    assert [swap.value for swap in mine.swaps] == ["value", "value"]


def test_a_secret_without_a_value_is_refused(tmp_path: Path) -> None:
    secrets = Secrets(Paths(tmp_path, tmp_path / "run"))
    asked = EgressPolicy(secrets=[EgressSecret(name="T", host="a.example")])
    with pytest.raises(InvalidArgument, match="the secret 'T' is empty"):
        egress_secrets.kept(secrets, "pod", asked)
    assert list(tmp_path.iterdir()) == []


def test_what_a_pod_with_secrets_has_in_its_environment_is_in_no_image(tmp_path: Path) -> None:
    """An image of it would look for certificates where there are none."""
    asked = EgressPolicy(secrets=[EgressSecret(name="T", host="a.example", value=b"value")])
    known = egress_secrets.kept(Secrets(Paths(tmp_path, tmp_path / "run")), "pod", asked)
    assert known
    spec = ContainerSpec(image="busybox", env=["A=b", "CURL_CA_BUNDLE=/mine"])
    own = egress_secrets.with_variables(spec, known)
    assert f"SSL_CERT_FILE={authority.BUNDLE}" in own.env
    assert f"T={known.secrets[0].placeholder}" in own.env
    assert egress_secrets.without_variables(own.env, known) == spec.env
    assert egress_secrets.without_variables(own.env, None) == own.env


def test_a_policy_of_a_container_in_a_pod_is_refused() -> None:
    """It would be in force nowhere, and its secrets in the container's record."""
    secret = EgressSecret(name="T", host="a.example", value=b"value")
    spec = ContainerSpec(image="busybox", egress=EgressPolicy(secrets=[secret]))
    with pytest.raises(InvalidArgument, match="an egress policy is the pod's"):
        check_plan(PodPlan(containers=[spec]))


@pytest.mark.parametrize(
    ("field", "value", "called"),
    [("allow", [parse_allow("10.0.0.0/8")], "what may be reached"), ("egress_rate", 8000, "a limit of what is sent"),
     ("ingress_rate", 8000, "a limit of what is received"), ("network", "none", "the network"),
     ("networks", [NetworkRequest(name="n")], "the network"), ("ttl", 9, "a time to live"),
     ("idle_timeout", 9, "an idle timeout")],
)  # fmt: skip
def test_what_is_the_pods_is_refused_of_a_container_in_it(field: str, value: Any, called: str) -> None:
    with pytest.raises(InvalidArgument, match=f"^{called} is the pod's, not a container's in it"):
        check_plan(PodPlan(containers=[ContainerSpec(image="busybox", **{field: value})]))


def test_placeholders_are_swapped_in_headers() -> None:
    swaps = [Swap("PH1", "first", ""), Swap("PH2", "second", "x-key")]
    basic = b"Basic " + base64.b64encode(b"me:PH1")
    headers = [(b"authorization", basic), (b"x-key", b"PH1 PH2"), (b"other", b"PH2"), (b"a", b"Basic PH1")]
    assert swapped(headers, swaps) == [
        (b"authorization", b"Basic " + base64.b64encode(b"me:first")), (b"x-key", b"first second"), (b"other", b"PH2"),
        (b"a", b"Basic first"),
    ]  # fmt: skip
    assert swapped([(b"authorization", b"Basic PH1")], swaps) == [(b"authorization", b"Basic PH1")]


@pytest.mark.parametrize(("trusted", "served"), [(True, True), (False, False)])
def test_who_answers_for_a_host_verifies_it(tmp_path: Path, trusted: bool, served: bool) -> None:
    outside = Authority(tmp_path)
    pair = outside.sign("far", server=True, further=["a.example"])
    certificate, key = authority.make()
    known = EgressPolicy(secrets=[EgressSecret(name="T", host="a.example", placeholder="PH")], authority=certificate)
    mine = authority.intercepted(known, {authority.KEY: key, authority.PREFIX + "T": b"value"}.__getitem__)
    other = Authority(tmp_path / "other")
    injection = Injection(Job(0, mine, (outside if trusted else other).cert.read_text()))
    assert [injection.has("a.example", port) for port in (443, 80)] == [True, False]
    got: list[bytes] = []

    async def far(reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        with contextlib.suppress(OSError, asyncio.IncompleteReadError):
            got.append(await reader.readuntil(b"\r\n\r\n"))
            writer.write(OK)
            await writer.drain()
        writer.close()

    async def run() -> bytes:
        over = asyncio.Event()
        context = ssl.SSLContext(ssl.PROTOCOL_TLS_SERVER)
        context.load_cert_chain(pair.cert, pair.key)
        server = await asyncio.start_server(far, "127.0.0.1", 0, ssl=context)

        async def open_(host: str, port: int) -> Channel:
            return Channel(*await asyncio.open_connection(*server.sockets[0].getsockname()))

        async def near(reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
            with contextlib.suppress(Refused, Closed):
                await injection.serve(Channel(reader, writer), "a.example", 443, open_)
            writer.close()
            over.set()

        front = await asyncio.start_server(near, "127.0.0.1", 0)
        async with server, front, asyncio.timeout(30):
            trusts = ssl.create_default_context(cadata=certificate)
            where = front.sockets[0].getsockname()
            reader, writer = await asyncio.open_connection(*where, ssl=trusts, server_hostname="a.example")
            writer.write(b"GET / HTTP/1.1\r\nHost: a.example\r\nX: PH\r\nConnection: close\r\n\r\n")
            found = await reader.readuntil(b"\r\n\r\n")
            writer.close()
            await over.wait()
        return found

    found = asyncio.run(run())
    assert (b"200 OK" in found, b"403 Forbidden" in found) == (served, not served)
    assert [b"x: value" in x for x in got] == [True] * served


def test_a_secret_that_a_host_sends_back_in_a_header_is_the_placeholder_again() -> None:
    swaps = [Swap("PH1", "first-of-them", "authorization"), Swap("PH2", "2", "")]
    how: dict[str, Any] = {"inside": "a.example", "back": partial(hidden, swaps=swaps)}
    body = b"HTTP/1.1 200 OK\r\nTransfer-Encoding: chunked\r\nX-Id: <first-of-them>\r\nX-Two: 2\r\n\r\n2\r\nhi\r\n0\r\n"
    far = Far(b"HTTP/1.1 103 Early\r\nX: first-of-them\r\n\r\n" + body + b"Last: first-of-them\r\n\r\n")
    found, why = relayed(b"GET /1 HTTP/1.1\r\nHost: a.example\r\n\r\n", far, **how)
    assert (why, found.count(b"PH1"), b"first" in found) == ("", 3, False)
    assert b"x-two: 2\r\n" in found
    far = Far(OK)
    found, why = relayed(b"TRACE / HTTP/1.1\r\nHost: a.example\r\n\r\n", far, **how)
    assert ("TRACE would give" in why, far.got, b"403 Forbidden" in found) == (True, b"", True)


def test_a_mistake_of_the_proxy_tells_no_secret(monkeypatch: pytest.MonkeyPatch) -> None:
    """h11 quotes a header that it refuses, and what is told of it ends as an event."""

    async def lead(*_: object) -> None:
        h11.Request(method="GET", target="/", headers=[("host", "a.example"), ("x", "value ")])

    async def run() -> str:
        ours, theirs = socket.socketpair(socket.AF_UNIX, socket.SOCK_SEQPACKET)
        one, other = socket.socketpair()
        with ours, theirs, one:
            worker = Worker(theirs, Injection(Job(0)))
            monkeypatch.setattr(worker, "_lead", lead)
            await worker._serve(1, 443, other.detach())
            told, _ = messages.receive(ours)
        assert told
        return told.why

    why = asyncio.run(run())
    assert "LocalProtocolError in" in why
    assert "value" not in why
