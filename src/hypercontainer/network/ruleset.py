# SPDX-License-Identifier: Apache-2.0
"""The host's nftables, as one text for `nft -f`: two tables of our own, replaced as a whole.

    inet hyper    published ports, the way out, and what may reach what
    bridge hyper  a card speaks with its own addresses only

Rules of others are never read or changed. Replacing leaves connections alone:
the kernel tracks those elsewhere.
"""

from __future__ import annotations

from dataclasses import dataclass
from ipaddress import ip_address, ip_network

from ..model.network import Egress
from ..model.specs import PortMapping

_BURST = 128 << 10  # bytes that a card with a rate may send at once
_DNS_RATE = "500/second burst 1000 packets"  # queries that one pod may ask


@dataclass(frozen=True)
class Card:
    """A pod's tap, with the only addresses that it may use."""

    tap: str
    mac: str
    ip: str
    ip6: str = ""
    link_local: str = ""
    allow: tuple[Egress, ...] = ()  # empty: everything
    rate: int = 0  # bits per second that it may send


@dataclass(frozen=True)
class Bridge:
    """A network's bridge and subnets."""

    name: str
    subnets: tuple[str, ...] = ()
    internal: bool = False


@dataclass(frozen=True)
class Published:
    """A port of the host that leads to a pod."""

    port: PortMapping
    ip: str
    ip6: str = ""


@dataclass(frozen=True)
class Ruleset:
    """All that the rules are made from."""

    bridges: tuple[Bridge, ...] = ()
    cards: tuple[Card, ...] = ()
    published: tuple[Published, ...] = ()

    def text(self) -> str:
        """Both tables; without bridges, their removal."""
        drop = "table inet hyper\ndelete table inet hyper\ntable bridge hyper\ndelete table bridge hyper\n"
        return drop + (self._inet() + self._bridge() if self.bridges else "")

    # -- inet -----------------------------------------------------------------------

    def _inet(self) -> str:
        names = ", ".join(f'"{b.name}"' for b in self.bridges)
        within = "\n".join(f'    iifname "{b.name}" oifname "{b.name}" accept' for b in self.bridges)
        internal = "\n".join(f'    iifname "{b.name}" drop\n    oifname "{b.name}" drop' for b in self.bridges if b.internal)
        # By subnet, not by the interface it came from: with br_netfilter, frames between
        # two cards of a bridge pass here too, and have none.
        masquerade = "\n".join(
            f"    {'ip6' if ':' in s else 'ip'} saddr {s} {what} masquerade"
            for b in self.bridges for s in b.subnets for what in (f'oifname "{b.name}" ct status dnat', f"oifname != {{ {names} }}")
        )  # fmt: skip
        egress = "\n".join(line for c in self.cards if c.allow for line in _egress(c))
        return f"""
table inet hyper {{
{self._maps()}
  set dns_flood {{
    type ipv4_addr; flags dynamic; size 65535; timeout 10s
  }}
  chain publish {{
    meta nfproto ipv4 dnat ip to ip daddr . meta l4proto . th dport map @addr_four
    meta nfproto ipv4 fib daddr type local dnat ip to meta l4proto . th dport map @any_four
    meta nfproto ipv6 dnat ip6 to ip6 daddr . meta l4proto . th dport map @addr_six
    meta nfproto ipv6 fib daddr type local dnat ip6 to meta l4proto . th dport map @any_six
  }}
  chain prerouting {{
    type nat hook prerouting priority dstnat; policy accept
    meta l4proto {{ tcp, udp }} jump publish
  }}
  chain output {{
    type nat hook output priority -100; policy accept
    ip6 daddr ::1 accept
    meta l4proto {{ tcp, udp }} jump publish
  }}
  chain postrouting {{
    type nat hook postrouting priority srcnat; policy accept
    oifname {{ {names} }} ct status dnat fib saddr type local masquerade
{masquerade}
  }}
{_input(names)}
  chain forward {{
    type filter hook forward priority filter; policy accept
    iifname != {{ {names} }} oifname != {{ {names} }} accept
    ct state established,related accept
{within}
    ct status dnat accept
{internal}
    iifname {{ {names} }} oifname {{ {names} }} drop
{egress}
    iifname {{ {names} }} accept
    drop
  }}
}}
"""

    def _maps(self) -> str:
        def element(key: str, p: Published, address: str) -> str:
            return f"{key}{p.port.protocol} . {p.port.host_port} : {address} . {p.port.container_port}"

        def of(p: Published) -> str:
            return p.port.host_ip

        found = {
            "any_four": [element("", p, p.ip) for p in self.published if not of(p) or of(p) == "0.0.0.0"],
            "any_six": [element("", p, p.ip6) for p in self.published if p.ip6 and (not of(p) or of(p) == "::")],
            "addr_four": [element(f"{of(p)} . ", p, p.ip) for p in self.published if of(p) and ":" not in of(p) and of(p) != "0.0.0.0"],
            "addr_six": [element(f"{of(p)} . ", p, p.ip6) for p in self.published if ":" in of(p) and of(p) != "::" and p.ip6],
        }
        types = {
            "any_four": "inet_proto . inet_service : ipv4_addr . inet_service",
            "any_six": "inet_proto . inet_service : ipv6_addr . inet_service",
            "addr_four": "ipv4_addr . inet_proto . inet_service : ipv4_addr . inet_service",
            "addr_six": "ipv6_addr . inet_proto . inet_service : ipv6_addr . inet_service",
        }
        return "\n".join(
            f"  map {name} {{\n    type {types[name]}\n" + (f"    elements = {{ {', '.join(elements)} }}\n" if elements else "") + "  }"
            for name, elements in found.items()
        )

    # -- bridge ---------------------------------------------------------------------

    def _bridge(self) -> str:
        jumps = ", ".join(f'"{c.tap}" : jump card_{i}' for i, c in enumerate(self.cards))
        chains = "\n".join(_guard(i, c) for i, c in enumerate(self.cards))
        verdicts = f"    iifname vmap {{ {jumps} }}\n" if jumps else ""
        return f"""
table bridge hyper {{
{chains}
  chain prerouting {{
    type filter hook prerouting priority -300; policy accept
{verdicts}  }}
}}
"""


def _input(names: str) -> str:
    """Pods reach nothing of the host's own but its name server."""
    return f"""  chain input {{
    type filter hook input priority filter; policy accept
    iifname != {{ {names} }} accept
    ct state established,related accept
    ip protocol icmp accept
    meta l4proto ipv6-icmp accept
    udp dport 53 add @dns_flood {{ ip saddr limit rate over {_DNS_RATE} }} drop
    udp dport 53 accept
    tcp dport 53 accept
    drop
  }}"""


def _egress(card: Card) -> list[str]:
    """The destinations that a card may reach, then nothing."""
    lines = []
    for rule in card.allow:
        version = ip_network(rule.cidr, strict=False).version
        family, source = ("ip", card.ip) if version == 4 else ("ip6", card.ip6)
        port = f" th dport {rule.port}" if rule.port else ""
        guard = " meta l4proto { tcp, udp }" if rule.port else ""
        if source:
            lines.append(f"    {family} saddr {source} {family} daddr {rule.cidr}{guard}{port} accept")
    lines.append(f"    ip saddr {card.ip} drop")
    return lines + ([f"    ip6 saddr {card.ip6} drop"] if card.ip6 else [])


def _guard(index: int, c: Card) -> str:
    six = ", ".join(filter(None, [c.ip6, c.link_local]))
    # Neighbour advertisements name the address that they are for: 16 bytes from byte 8.
    mine = "\n".join(
        f"    ether type ip6 icmpv6 type nd-neighbor-advert @th,64,128 0x{int(ip_address(a)):032x} accept" for a in six.split(", ")
    )
    rate = f"    limit rate over {c.rate // 8} bytes/second burst {_BURST} bytes drop\n" if c.rate else ""
    return f"""  chain card_{index} {{
{rate}    ether saddr != {c.mac} drop
    ether type arp arp saddr ether != {c.mac} drop
    ether type arp arp saddr ip != {c.ip} drop
    ether type arp accept
    ether type ip ip saddr != {c.ip} drop
    ether type ip udp sport 67 drop
    ether type ip accept
    ether type ip6 icmpv6 type {{ nd-router-advert, nd-redirect, nd-router-solicit }} drop
    ether type ip6 udp sport 547 drop
    ether type ip6 ip6 saddr != {{ {six}, :: }} drop
{mine}
    ether type ip6 icmpv6 type nd-neighbor-advert drop
    ether type ip6 accept
    drop
  }}"""
