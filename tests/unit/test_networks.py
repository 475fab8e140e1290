# SPDX-License-Identifier: Apache-2.0
"""Addresses, names, rules and rates, without a network."""

from __future__ import annotations

import os
import shutil
import socket
import subprocess
import time
from collections.abc import Callable
from ipaddress import IPv6Network

import pytest
from dnslib import RCODE, DNSRecord

from hypercontainer.errors import Conflict, HyperError, InvalidArgument
from hypercontainer.model.network import Egress, Network, NetworkSpec
from hypercontainer.model.rates import parse_allow, parse_rate
from hypercontainer.model.specs import PortMapping
from hypercontainer.network import addresses
from hypercontainer.network.dns import NameServer, _address_of
from hypercontainer.network.network_rules import Bridge
from hypercontainer.network.owner import port_owner
from hypercontainer.network.ruleset import Nic, Published, Ruleset

PREFIX6 = IPv6Network("fd00:1:2::/48")


def network(**fields: object) -> Network:
    spec = NetworkSpec(**{"name": "n", **fields})  # type: ignore[arg-type]
    return addresses.plan(spec, "a" * 32, "", [], [], PREFIX6)


def test_a_plan_has_free_subnets() -> None:
    first = network(ipv6=True)
    assert (first.subnet, first.gateway, first.subnet6, first.gateway6) == (
        "10.210.0.0/24",
        "10.210.0.1",
        "fd00:1:2:1::/64",
        "fd00:1:2:1::1",
    )
    second = addresses.plan(
        NetworkSpec(name="m"),
        "b" * 32,
        "",
        [first],
        [("interface x", addresses.parse_subnet("10.210.1.0/24"))],
        PREFIX6,
    )
    assert (second.subnet, second.subnet6, second.bridge) == ("10.210.2.0/24", "", "hy-bbbbbbbbbb")
    assert len(second.bridge) <= 15


@pytest.mark.parametrize(
    ("fields", "says"),
    [
        ({"subnets": ["10.0.0.0/24", "10.1.0.0/24"]}, "more than one subnet of the same IP version"),
        ({"subnets": ["10.0.0.0/31"]}, "too small"),
        ({"subnets": ["x"]}, "invalid subnet 'x'"),
        ({"subnets": ["10.0.0.0/24"], "gateways": ["10.0.1.1"]}, "gateway 10.0.1.1 is not in subnet"),
        ({"subnets": ["10.0.0.0/24"], "gateways": ["x"]}, "invalid gateway 'x'"),
        ({"subnets": ["10.0.0.0/24"], "ip_range": "10.0.1.0/26"}, "address range 10.0.1.0/26 is not in subnet"),
    ],
)
def test_bad_networks(fields: dict[str, object], says: str) -> None:
    with pytest.raises(InvalidArgument, match=says):
        network(**fields)


def test_overlaps_are_refused() -> None:
    for others, routes in (
        ([network(subnets=["10.0.0.0/16"])], []),
        ([], [("interface eth0", addresses.parse_subnet("10.0.0.0/8"))]),
    ):
        with pytest.raises(
            Conflict, match=r"subnet 10\.0\.3\.0/24 overlaps with 10\.0\.0\.0/(16|8) of (network n|interface eth0)"
        ):
            spec = NetworkSpec(name="m", subnets=["10.0.3.0/24"])
            addresses.plan(spec, "c" * 32, "", others, routes, PREFIX6)  # type: ignore[arg-type]


def test_an_address_costs_little_among_many() -> None:
    n = network(subnets=["10.0.0.0/16", "fd00::/64"])
    used = {f"10.0.{i >> 8}.{i & 255}" for i in range(5000)} | {f"fd00::{i:x}" for i in range(5000)}
    began = time.process_time()
    for _ in range(20):
        assert addresses.allocate(n, used, "", "") == ("10.0.19.136", "fd00::1388")
    assert time.process_time() - began < 0.8  # seconds; it was 1.4


def test_addresses_are_given_once() -> None:
    n = network(subnets=["10.0.0.0/29", "fd00::/64"], gateways=["10.0.0.3"])
    used = {""}  # of a pod without an address of one version
    for expected in ("10.0.0.1", "10.0.0.2", "10.0.0.4", "10.0.0.5", "10.0.0.6"):
        four, six = addresses.allocate(n, used, "", "")
        assert four == expected and six.startswith("fd00::")
        used |= {four, six}
    with pytest.raises(Conflict, match="network n has no free address left"):
        addresses.allocate(n, used, "", "")
    with pytest.raises(Conflict, match=r"address 10\.0\.0\.2 of network n is taken"):
        addresses.allocate(n, used, "10.0.0.2", "")
    for wrong in ("10.0.0.0", "10.0.0.7", "10.0.1.1"):
        with pytest.raises(InvalidArgument, match="is not in subnet"):
            addresses.allocate(n, set(), wrong, "")
    with pytest.raises(InvalidArgument, match="has no IPv6"):
        addresses.allocate(network(), set(), "", "fd00::1")
    assert (
        addresses.allocate(network(subnets=["10.0.0.0/24"], ip_range="10.0.0.128/25"), set(), "", "")[0] == "10.0.0.128"
    )


def test_hardware_addresses() -> None:
    assert addresses.link_local("0a:00:00:00:00:01") == "fe80::800:ff:fe00:1"
    made = addresses.new_mac()
    assert made.startswith("0a:") and len(made) == 17 and made != addresses.new_mac()
    assert addresses.mac_of("10.88.0.77") == "02:42:0a:58:00:4d"


# -- names -------------------------------------------------------------------------------


def server(*, forward: bool = False) -> NameServer:
    names = {"a": ["10.0.0.2", "fd00::2"], "both": ["10.0.0.2", "10.0.0.3"]}
    return NameServer(
        lambda n, _: names.get(n, []), lambda ip: {"10.0.0.2": "a"}.get(ip, ""), forward=forward, servers=list
    )


def asked(s: NameServer, name: str, kind: str) -> DNSRecord:
    answer = s.answer(bytes(DNSRecord.question(name, kind).pack()))
    assert answer is not None
    return DNSRecord.parse(answer)


def test_names_are_answered() -> None:
    s = server()
    assert (asked(s, "a", "A").short(), asked(s, "A.", "AAAA").short()) == ("10.0.0.2", "fd00::2")
    assert asked(s, "2.0.0.10.in-addr.arpa", "PTR").short() == "a."
    nothing = asked(s, "both", "AAAA")
    assert nothing.header.rcode == RCODE.NOERROR and nothing.rr == []
    assert asked(s, "nosuch", "A").header.rcode == asked(s, "no.such", "A").header.rcode == RCODE.NXDOMAIN
    assert {asked(s, "both", "A").short().split()[0] for _ in range(4)} == {"10.0.0.2", "10.0.0.3"}


async def test_other_names_are_handed_on() -> None:
    s = server(forward=True)
    question = bytes(DNSRecord.question("www.example.org", "A").pack())
    assert s.answer(question) is None
    failed = await s.resolve(question)  # there is no server to ask
    assert failed is not None and DNSRecord.parse(failed).header.rcode == RCODE.SERVFAIL


async def test_garbage_is_not_answered() -> None:
    for garbage in (b"", b"\0" * 5, os.urandom(40), bytes(DNSRecord.question("a").reply().pack())):
        await server().resolve(garbage)  # raises nothing
    assert await server().resolve(bytes(DNSRecord.question("a").reply().pack())) is None


def test_reverse_names() -> None:
    assert _address_of("4.3.2.1.in-addr.arpa") == "1.2.3.4" and _address_of("x.in-addr.arpa") == ""
    six = ".".join(reversed("fd000000000000000000000000000002")) + ".ip6.arpa"
    assert _address_of(six) == "fd00::2"


# -- rules -------------------------------------------------------------------------------

NICS = (
    Nic(
        "ht1",
        "0a:00:00:00:00:01",
        "10.0.0.2",
        "fd00::2",
        "fe80::1",
        (Egress(cidr="10.9.0.0/16", port=80), Egress(cidr="fd09::/16")),
        8_000_000,
    ),
    Nic("ht2", "0a:00:00:00:00:02", "10.0.0.3", "", "fe80::2"),
)
RULES = Ruleset(
    (
        Bridge("hyper0", ("10.0.0.0/24", "fd00::/64"), gateways=("10.0.0.1", "fd00::1")),
        Bridge("hy-a", ("10.1.0.0/24",), internal=True),
    ),
    NICS,
    (
        Published(PortMapping(container_port=80, host_port=8080), "10.0.0.2", "fd00::2"),
        Published(PortMapping(container_port=53, host_port=5353, protocol="udp", host_ip="127.0.0.1"), "10.0.0.3"),
        Published(PortMapping(container_port=1, host_port=2, host_ip="::1"), "10.0.0.2", "fd00::2"),
    ),
)


def test_the_kernel_takes_the_rules_twice() -> None:
    if os.geteuid() != 0 or not shutil.which("nft"):
        assert RULES.text()
        return
    script = 'cat > "$0" && nft -f "$0" && nft -f "$0" && nft list ruleset'
    done = subprocess.run(
        ["unshare", "--net", "--mount", "sh", "-c", f"mount -t tmpfs none /mnt && sh -c '{script}' /mnt/rules"],
        input=RULES.text(),
        capture_output=True,
        text=True,
        check=False,
    )
    assert done.returncode == 0, done.stderr
    for words in (
        "tcp . 8080 : 10.0.0.2 . 80",
        "tcp . 8080 : fd00::2 . 80",
        "127.0.0.1 . udp . 5353 : 10.0.0.3 . 53",
        "limit rate over 1000000 bytes/second",
        "10.0.0.2 : goto egress_ht1",
        '"ht2" . 10.0.0.3',
    ):
        assert words in done.stdout, words


def test_who_has_a_port() -> None:
    with socket.socket() as listening, socket.socket(socket.AF_INET, socket.SOCK_DGRAM) as datagrams:
        listening.bind(("127.0.0.1", 0))
        listening.listen()
        datagrams.bind(("127.0.0.1", 0))
        for s, protocol in ((listening, "tcp"), (datagrams, "udp")):
            assert f"(pid {os.getpid()})" in port_owner(s.getsockname()[1], protocol)
    assert port_owner(1, "tcp") == ""


@pytest.mark.parametrize(
    ("text", "rate"), [("", 0), ("10m", 10_000_000), ("1.5g", 1_500_000_000), ("800kbit", 800_000), ("9", 9)]
)
def test_rates(text: str, rate: int) -> None:
    assert parse_rate(text) == rate


@pytest.mark.parametrize(
    ("text", "cidr", "port"),
    [
        ("10.0.0.0/8", "10.0.0.0/8", 0),
        ("10.0.0.1:443", "10.0.0.1/32", 443),
        ("[fd00::/8]:53", "fd00::/8", 53),
        ("fd00::/8", "fd00::/8", 0),
    ],
)
def test_destinations(text: str, cidr: str, port: int) -> None:
    assert parse_allow(text) == Egress(cidr=cidr, port=port)


@pytest.mark.parametrize(
    ("parse", "text"),
    [(parse_rate, "fast"), (parse_rate, "10x"), (parse_allow, "nowhere"), (parse_allow, "10.0.0.0/99")],
)
def test_bad_rates_and_destinations(parse: Callable[[str], object], text: str) -> None:
    with pytest.raises(HyperError, match="invalid (rate|destination)"):
        parse(text)
