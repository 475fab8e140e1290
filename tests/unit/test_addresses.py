# SPDX-License-Identifier: Apache-2.0
"""Addresses in requests: what is none is refused when it is read, with its field."""

from __future__ import annotations

from collections.abc import Callable
from typing import Any

import msgspec
import pytest
from hypothesis import given
from hypothesis import strategies as st

from hypercontainer.errors import InvalidArgument
from hypercontainer.model.addresses import canonical, check_cidr, check_ip, check_link, check_mac, ip_version
from hypercontainer.model.network import Attachment, Egress, NetworkRequest, NetworkSpec
from hypercontainer.model.pods import InterfaceSpec, PodSpec, Service, WhiteLists
from hypercontainer.model.specs import ContainerSpec, HostEntry, PortMapping
from hypercontainer.network.network_rules import Bridge
from hypercontainer.network.ruleset import Nic, Published, Ruleset

# Each would be more than an address in a rule, in a file or on a command line.
EVIL = (
    "127.0.0.1 }\n}\ntable inet stolen { chain c { type filter hook input priority 0",
    "fe80::1%0 } ; flush ruleset #",  # Python's ipaddress takes any scope
    "fe80::1%eth0",
    "10.0.0.1\nnameserver 6.6.6.6",
    "10.0.0.1,hostfwd=tcp::1-:1",
    "010.0.0.1",
    "1",
    "١.1.1.1",
    "\0",
    "x" * 100_000,
    " 10.0.0.1",
)
FIELDS: tuple[tuple[type[msgspec.Struct], Any], ...] = (
    (PortMapping, lambda v: {"containerPort": 80, "hostIp": v}),
    (ContainerSpec, lambda v: {"image": "i", "ports": [{"containerPort": 80, "hostIp": v}]}),
    (ContainerSpec, lambda v: {"image": "i", "dns": [v]}),
    (ContainerSpec, lambda v: {"image": "i", "dnsSearch": [f"a {v} b"]}),
    (ContainerSpec, lambda v: {"image": "i", "dnsOptions": [f"a {v} b"]}),
    (ContainerSpec, lambda v: {"image": "i", "networks": [{"name": "n", "ip": v}]}),
    (ContainerSpec, lambda v: {"image": "i", "allow": [{"cidr": v}]}),
    (PodSpec, lambda v: {"dns": [v]}),
    (PodSpec, lambda v: {"interfaces": [{"mac": v}]}),
    (NetworkRequest, lambda v: {"name": "n", "ip6": v}),
    (NetworkRequest, lambda v: {"name": "n", "mac": v}),
    (NetworkRequest, lambda v: {"name": "n", "aliases": [f"a {v} b"]}),
    (NetworkSpec, lambda v: {"name": "n", "subnets": [v + "/x"]}),
    (NetworkSpec, lambda v: {"name": "n", "ipRange": v + "/x"}),
    (NetworkSpec, lambda v: {"name": "n", "gateways": [v]}),
    (Egress, lambda v: {"cidr": v}),
    (Egress, lambda v: {"cidr": f"{v}/8"}),
    (InterfaceSpec, lambda v: {"addresses": [v]}),
    (InterfaceSpec, lambda v: {"gateway": v}),
    (InterfaceSpec, lambda v: {"gateway6": v}),
    (InterfaceSpec, lambda v: {"mac": v}),
    (InterfaceSpec, lambda v: {"bridge": f"/{v}"}),
    (InterfaceSpec, lambda v: {"ifname": f" {v}"}),
    (InterfaceSpec, lambda v: {"namespace": f"../{v}"}),
    (WhiteLists, lambda v: {"internalNetworks": [v]}),
    (WhiteLists, lambda v: {"externalNetworks": [f"{v}/8"]}),
    (Service, lambda v: {"serviceIp": v, "servicePort": 1}),
    (Service, lambda v: {"serviceIp": "10.0.0.1", "servicePort": 1, "hosts": [{"hostIp": v, "hostPort": 1}]}),
    (HostEntry, lambda v: {"ip": v, "names": ["a"]}),
    (HostEntry, lambda v: {"ip": "10.0.0.1", "names": [f"a {v}"]}),
    (Attachment, lambda v: {"network": "n", "interface": "eth0", "tap": "ht0", "mac": "0a:00:00:00:00:01", "ip": v}),
    (Attachment, lambda v: {"network": "n", "interface": "eth0", "tap": "ht0", "mac": v, "ip": "10.0.0.1"}),
)


@pytest.mark.parametrize(("type_", "document"), FIELDS)
@pytest.mark.parametrize("value", EVIL)
def test_what_is_no_address_is_refused(type_: type[msgspec.Struct], document: Any, value: str) -> None:
    with pytest.raises(msgspec.ValidationError, match="invalid "):
        msgspec.json.decode(msgspec.json.encode(document(value)), type=type_)


def test_the_field_is_named() -> None:
    body = {"image": "i", "ports": [{"containerPort": 1}, {"containerPort": 80, "hostIp": "x"}]}
    with pytest.raises(
        msgspec.ValidationError, match=r"invalid host address 'x': give an IPv4 or IPv6 address - at `\$\.ports\[1\]`"
    ):
        msgspec.json.decode(msgspec.json.encode(body), type=ContainerSpec)
    with pytest.raises(InvalidArgument):  # and what Python code makes
        PortMapping(container_port=1, host_ip="x")


@given(st.text(max_size=40))
def test_what_passes_is_one_word_of_a_rule(text: str) -> None:
    for check in (check_ip, check_cidr, check_mac, check_link):
        try:
            check(text)
        except InvalidArgument:
            continue
        assert text.isascii() and not set(text) & set(" \t\r\n\"'{};,#%$\\\0"), (check, text)


@pytest.mark.parametrize("check", [check_ip, check_cidr, check_mac, check_link])
def test_what_follows_a_good_one_is_seen(check: Callable[[str], None]) -> None:
    good = {check_ip: "10.0.0.1", check_cidr: "10.0.0.0/8", check_mac: "0a:00:00:00:00:01", check_link: "eth0"}[check]
    check(good)
    for evil in ("\n", " ", ";", "\0", "{", '"', "\n}", ":00", "/8/8", "\u0663"):
        with pytest.raises(InvalidArgument):
            check(good + evil)


def test_addresses_have_one_spelling() -> None:
    assert (canonical("FD00:0::1"), canonical("10.0.0.1"), ip_version("::"), ip_version("")) == (
        "fd00::1",
        "10.0.0.1",
        6,
        0,
    )
    for bad in (
        "10.0.0.0/33",
        "fd00::/129",
        "10.0.0.0/",
        "10.0.0.0/-1",
        "10.0.0.0/8/8",
        "10.0.0.0/255.0.0.0",
        "10.0.0.0/\u0663",
    ):
        with pytest.raises(InvalidArgument):
            check_cidr(bad)


def test_rules_are_made_of_addresses_only() -> None:
    """The last wall: whoever makes a NIC or a port of something else gets no text."""
    evil = EVIL[0]
    for rules in (
        Ruleset((Bridge(evil),)),
        Ruleset((Bridge("b", (evil,)),)),
        Ruleset((Bridge("b", gateways=(evil,)),)),
        Ruleset((Bridge("b"),), (Nic(evil, "0a:00:00:00:00:01", "10.0.0.1"),)),
        Ruleset((Bridge("b"),), (Nic("t", evil, "10.0.0.1"),)),
        Ruleset((Bridge("b"),), (Nic("t", "0a:00:00:00:00:01", evil),)),
        Ruleset((Bridge("b"),), (Nic("t", "0a:00:00:00:00:01", "10.0.0.1", EVIL[1]),)),
        Ruleset((Bridge("b"),), (), (Published(PortMapping(container_port=1, host_port=1), evil),)),
    ):
        with pytest.raises(ValueError):
            rules.text()
