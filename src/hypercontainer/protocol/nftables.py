# SPDX-License-Identifier: Apache-2.0
"""A ruleset of nftables as one transaction of nfnetlink messages.

Formats and numbers are those of include/uapi/linux/netfilter/nf_tables.h and
nfnetlink.h. The guest hands the bytes to its kernel, which takes all or nothing;
so no program for it need be in the guest.
"""

from __future__ import annotations

import struct
from dataclasses import dataclass, field
from ipaddress import IPv4Address, IPv4Network, IPv6Address, IPv6Network, ip_network

_SUBSYS, _INET = 10, 1
_BATCH_BEGIN, _BATCH_END = 0x10, 0x11
_NEWTABLE, _DELTABLE, _NEWCHAIN, _NEWRULE = 0, 2, 3, 6
_REQUEST, _ACK, _CREATE, _APPEND = 0x1, 0x4, 0x400, 0x800
_NESTED = 0x8000
HOOKS = {"prerouting": 0, "input": 1, "forward": 2, "output": 3, "postrouting": 4}
DROP, ACCEPT = 0, 1
TCP, UDP, ICMP, ICMPV6 = 6, 17, 1, 58
ESTABLISHED_RELATED = 2 | 4  # NF_CT_STATE_BIT
STATUS_DNAT = 1 << 5  # IPS_DST_NAT
_META_IIFNAME, _META_NFPROTO, _META_L4PROTO = 6, 15, 16
_CT_STATE, _CT_STATUS = 0, 2
_FAMILY = {4: 2, 6: 10}  # AF_INET, AF_INET6
# Offsets of source and destination in the network header.
_ADDRESS_AT = {
    ("source", 4): (12, 4),
    ("destination", 4): (16, 4),
    ("source", 6): (8, 16),
    ("destination", 6): (24, 16),
}

Address = IPv4Address | IPv6Address
Network = IPv4Network | IPv6Network


def _attr(kind: int, payload: bytes) -> bytes:
    size = 4 + len(payload)
    return struct.pack("<HH", size, kind) + payload + bytes(-size % 4)


def _nest(kind: int, *attrs: bytes) -> bytes:
    return _attr(kind | _NESTED, b"".join(attrs))


def _u32(kind: int, value: int) -> bytes:
    return _attr(kind, struct.pack(">I", value & 0xFFFFFFFF))


def _text(kind: int, value: str) -> bytes:
    return _attr(kind, value.encode() + b"\0")


def _expression(name: str, *attrs: bytes) -> bytes:
    return _nest(1, _text(1, name), _nest(2, *attrs))


def _native(value: int) -> bytes:
    return struct.pack("<I", value)


# -- expressions: each is a part of a rule; all must match, the last may be a verdict ------


def equal(register: int, value: bytes, *, negate: bool = False) -> bytes:
    return _expression("cmp", _u32(1, register), _u32(2, int(negate)), _nest(3, _attr(1, value)))


def _meta(key: int, register: int = 1) -> bytes:
    return _expression("meta", _u32(1, register), _u32(2, key))


def _payload(base: int, offset: int, size: int, register: int = 1) -> bytes:
    return _expression("payload", _u32(1, register), _u32(2, base), _u32(3, offset), _u32(4, size))


def _masked(mask: bytes, register: int = 1) -> bytes:
    zero = bytes(len(mask))
    return _expression(
        "bitwise",
        _u32(1, register),
        _u32(2, register),
        _u32(3, len(mask)),
        _nest(4, _attr(1, mask)),
        _nest(5, _attr(1, zero)),
    )


def protocol_is(number: int) -> bytes:
    return _meta(_META_L4PROTO) + equal(1, bytes([number]))


def from_interface(name: str) -> bytes:
    return _meta(_META_IIFNAME) + equal(1, name.encode().ljust(16, b"\0"))


def _family_is(version: int) -> bytes:
    return _meta(_META_NFPROTO) + equal(1, bytes([_FAMILY[version]]))


def in_network(side: str, network: str) -> bytes:
    """`side` is source or destination; CIDR, or an address."""
    net: Network = ip_network(network, strict=False)
    offset, size = _ADDRESS_AT[side, net.version]
    mask = b"" if net.prefixlen == net.max_prefixlen else _masked(net.netmask.packed)
    return _family_is(net.version) + _payload(1, offset, size) + mask + equal(1, net.network_address.packed)


def port_is(number: int) -> bytes:
    """The destination's."""
    return _payload(2, 2, 2) + equal(1, struct.pack(">H", number))


def every_nth(n: int) -> bytes:
    """Matches the first of every n evaluations."""
    return _expression("numgen", _u32(1, 1), _u32(2, n), _u32(3, 0)) + equal(1, _native(0)) if n > 1 else b""


def _ct(key: int, bits: int) -> bytes:
    return _expression("ct", _u32(1, 1), _u32(2, key)) + _masked(_native(bits)) + equal(1, _native(0), negate=True)


def established() -> bytes:
    return _ct(_CT_STATE, ESTABLISHED_RELATED)


def was_dnat() -> bytes:
    return _ct(_CT_STATUS, STATUS_DNAT)


def dnat(address: Address, port: int) -> bytes:
    def load(register: int, value: bytes) -> bytes:
        return _expression("immediate", _u32(1, register), _nest(2, _attr(1, value)))

    nat = _expression("nat", _u32(1, 1), _u32(2, _FAMILY[address.version]), _u32(3, 1), _u32(5, 2))
    return load(1, address.packed) + load(2, struct.pack(">H", port)) + nat


def redirect(port: int) -> bytes:
    value = _expression("immediate", _u32(1, 1), _nest(2, _attr(1, struct.pack(">H", port))))
    return value + _expression("redir", _u32(1, 1))


def masquerade() -> bytes:
    return _expression("masq")


def accept() -> bytes:
    return _expression("immediate", _u32(1, 0), _nest(2, _nest(2, _u32(1, ACCEPT))))


# -- the transaction -----------------------------------------------------------------------


@dataclass
class Chain:
    """A base chain; `kind` is filter or nat."""

    name: str
    kind: str
    priority: int
    policy: int = ACCEPT
    rules: list[bytes] = field(default_factory=list)


def _message(kind: int, flags: int, family: int, body: bytes, resource: int = 0) -> bytes:
    general = struct.pack(">BBH", family, 0, resource)
    return struct.pack("<IHHII", 16 + len(general) + len(body), kind, _REQUEST | flags, 0, 0) + general + body


def replace_table(table: str, chains: list[Chain]) -> bytes:
    """Replace one table of family inet, whether it exists or not; no chains remove it."""

    def nft(kind: int, flags: int, body: bytes) -> bytes:
        return _message(_SUBSYS << 8 | kind, flags | _ACK, _INET, body)

    name = _text(1, table)
    parts = [_message(_BATCH_BEGIN, 0, 0, b"", _SUBSYS), nft(_NEWTABLE, _CREATE, name), nft(_DELTABLE, 0, name)]
    if chains:
        parts.append(nft(_NEWTABLE, _CREATE, name))
    for chain in chains:
        hook = _nest(4, _u32(1, HOOKS[chain.name]), _u32(2, chain.priority))
        parts.append(
            nft(_NEWCHAIN, _CREATE, name + _text(3, chain.name) + hook + _u32(5, chain.policy) + _text(7, chain.kind))
        )
        parts += [
            nft(_NEWRULE, _CREATE | _APPEND, name + _text(2, chain.name) + _nest(4, rule)) for rule in chain.rules
        ]
    parts.append(_message(_BATCH_END, 0, 0, b"", _SUBSYS))
    return b"".join(parts)
