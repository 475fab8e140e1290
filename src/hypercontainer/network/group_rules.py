# SPDX-License-Identifier: Apache-2.0
"""Security groups in nft's language: chains of a NIC, and a set of each group's members.

Frames between NICs of a bridge do not pass the rules of IP, and not every kernel tracks connections there. So what a
NIC in a group sends to neighbours, or is sent by them, is handed to the host's own address, which routes it: back over
the same bridge, through `inet hyper`. What would go round that is dropped at the bridge.

The rules are asked of each packet in a connection's first direction, not only of its first one: what they do not allow
any more is cut at once, and answers to what is allowed always pass.
"""

from __future__ import annotations

import hashlib
from dataclasses import dataclass
from ipaddress import ip_network

from ..model.addresses import canonical, check_mac
from ..model.security_groups import GroupRule
from .network_rules import BRIDGE_TABLE, INET_TABLE

# Neighbours are found whatever the rules say: the host asks for them, and answers.
_ALWAYS = (
    "icmpv6 type { nd-neighbor-solicit, nd-neighbor-advert } return",
    "ct state related return",
    "ct state established ct direction reply return",
)
_FAMILIES = ((4, "ip", "four"), (6, "ip6", "six"))


@dataclass(frozen=True)
class Grouped:
    """What the groups of a NIC let through; `rules` name other groups by their ids."""

    gateway_mac: str  # of its bridge
    rules: tuple[GroupRule, ...] = ()


@dataclass(frozen=True)
class Members:
    """A group that rules name, and the addresses of those in it."""

    group: str  # id
    addresses: tuple[str, ...] = ()


Chains = dict[tuple[str, str], tuple[str, ...]]
Elements = dict[tuple[str, str, str], str]


def set_name(group: str, family: str) -> str:
    """:raise ValueError: it is no id."""
    int(group, 16)
    return f"group_{group[:32]}_{family}"


def of_members(members: Members) -> tuple[dict[tuple[str, str], str], Elements]:
    """Sets, and what is in them."""
    sets = {(INET_TABLE, set_name(members.group, f)): f"type ipv{v}_addr" for v, _, f in _FAMILIES}
    found: Elements = {}
    for address in members.addresses:
        family = "six" if ":" in address else "four"
        found[INET_TABLE, set_name(members.group, family), canonical(address)] = ""
    return sets, found


def of_nic(tap: str, addresses: tuple[str, ...], grouped: Grouped) -> tuple[Chains, Elements]:
    """Its chains, and what leads to them. Names of chains tell what is in them: a changed one is another one."""
    check_mac(grouped.gateway_mac)
    chains: Chains = {}
    elements: Elements = {(BRIDGE_TABLE, "grouped", f'"{tap}"'): ""}
    routed = f"routed_{tap}"
    chains[BRIDGE_TABLE, routed] = (f"ether daddr set {grouped.gateway_mac}", "meta pkttype set host")
    elements[BRIDGE_TABLE, "grouped_from", f'"{tap}"'] = f"goto {routed}"
    for direction in ("in", "out"):
        rules = _rules(direction, grouped.rules)
        name = f"{direction}_{tap}_{hashlib.sha256(repr(rules).encode()).hexdigest()[:16]}"
        chains[INET_TABLE, name] = rules
        for address in addresses:
            family = "six" if ":" in address else "four"
            elements[INET_TABLE, f"group_{direction}_{family}", canonical(address)] = f"jump {name}"
    for address in addresses:
        family = "six" if ":" in address else "four"
        elements[BRIDGE_TABLE, f"grouped_to_{family}", canonical(address)] = f"goto {routed}"
    return chains, elements


def _rules(direction: str, rules: tuple[GroupRule, ...]) -> tuple[str, ...]:
    """What none of them allows is dropped; but who says nothing of what goes out may send everything."""
    mine = [r for r in rules if r.direction == direction]
    if direction == "out" and not mine:
        return ("return",)
    allowed = dict.fromkeys(text for r in mine for text in _texts(r, "saddr" if direction == "in" else "daddr"))
    return (*_ALWAYS, *allowed, "drop")


def _texts(rule: GroupRule, side: str) -> list[str]:
    """One for each family that it is for."""
    guard = _guard(rule)
    if rule.cidr:
        net = ip_network(rule.cidr, strict=False)
        return [f"{'ip' if net.version == 4 else 'ip6'} {side} {net}{guard} return"]
    if rule.group:
        return [f"{ip} {side} @{set_name(rule.group, family)}{guard} return" for _, ip, family in _FAMILIES]
    return [f"{guard} return".strip()]


def _guard(rule: GroupRule) -> str:
    if rule.protocol == "any":
        return ""
    if rule.protocol == "icmp":
        return " meta l4proto { icmp, ipv6-icmp }"
    first, last = int(rule.first_port), int(rule.last_port or rule.first_port)
    ports = f" th dport {first}-{last}" if first else ""
    return f" meta l4proto {rule.protocol}{ports}"
