# SPDX-License-Identifier: Apache-2.0
"""The host's nftables in nft's language: two tables of our own.

    inet hyper    published ports, the way out, and what may reach what
    bridge hyper  a NIC speaks with its own addresses only

The rules depend on the networks only. What belongs to a pod are elements of
their sets and maps, and short chains that those lead to; so a pod comes and
goes by a few elements, however many there are. The whole replaces both tables
in one transaction. Rules of others are never read or changed. Connections
stay: the kernel tracks those elsewhere.
"""

from __future__ import annotations

import functools
from collections.abc import Iterable
from dataclasses import dataclass, field
from ipaddress import ip_network

from ..model.addresses import canonical, check_link, check_mac, ip_version
from ..model.network import Egress
from ..model.specs import PortMapping
from .rule_watch import BRIDGE, INET

_BURST = 128 << 10  # bytes that a NIC with a rate may send at once
_DNS_RATE = "500/second burst 100 packets"  # questions of one NIC, by UDP or TCP
_INET, _BRIDGE = "inet hyper", "bridge hyper"
TABLES = {(INET, "hyper"), (BRIDGE, "hyper")}
# Packets of NICs with an egress policy that are dropped: how many of each address, and of what kind they were.
REFUSING, REFUSED = f"{_INET} refusing", f"{_INET} refused"
_REFUSED_RATE = "5/second burst 20 packets"  # kinds that an address adds
# What no frame of a NIC may be sent to: this host's loopback, and addresses that mean
# something on one link only, where clouds answer with their machines' credentials.
_NOT_FROM_NICS_4 = "127.0.0.0/8, 169.254.0.0/16, 0.0.0.0/8"
_NOT_FROM_NICS_6 = "::1, ::ffff:0:0/96, fd00:ec2::254"


@dataclass(frozen=True)
class Redirect:
    """Where a NIC's TCP connections are redirected, and its name server."""

    gateway: str
    port: int  # 0: they lead nowhere


@dataclass(frozen=True)
class Nic:
    """A pod's tap, with the only addresses that it may use."""

    tap: str
    mac: str
    ip: str
    ip6: str = ""
    link_local: str = ""
    allow: tuple[Egress, ...] = ()  # empty: everything
    rate: int = 0  # bits per second that it may send
    redirect: Redirect | None = None  # nothing goes out but what `allow` names, and by this


@dataclass(frozen=True)
class Bridge:
    """A network's bridge, subnets, and this host's addresses in them."""

    name: str
    subnets: tuple[str, ...] = ()
    internal: bool = False
    gateways: tuple[str, ...] = ()
    gate: int = 0  # the port of the first gateway to which connections of NICs with an egress policy come; 0: none


@dataclass(frozen=True)
class Published:
    """A port of the host that leads to a pod."""

    port: PortMapping
    ip: str
    ip6: str = ""


@dataclass
class _Contents:
    """What pods have: rules of chains by table and name; values of elements by table, set and key."""

    chains: dict[tuple[str, str], tuple[str, ...]] = field(default_factory=dict)
    elements: dict[tuple[str, str, str], str] = field(default_factory=dict)

    def additions(self, known: _Contents | None = None) -> list[str]:
        """Commands for what `known` has not: chains before what leads to them."""
        chains = {k: rules for k, rules in self.chains.items() if not known or known.chains.get(k) != rules}
        lines = [f"add chain {table} {name}" for table, name in chains]
        lines += [f"add rule {table} {name} {rule}" for (table, name), rules in chains.items() for rule in rules]
        new = (k for k, value in self.elements.items() if not known or known.elements.get(k) != value)
        return lines + _element_lines("add", new, self.elements)

    def removals(self, following: _Contents) -> list[str]:
        """Commands that take away what `following` does not have, or has otherwise."""
        old = (k for k, value in self.elements.items() if following.elements.get(k) != value)
        chains = [k for k, rules in self.chains.items() if following.chains.get(k) != rules]
        lines = _element_lines("delete", old, {})
        return lines + [f"{verb} chain {table} {name}" for table, name in chains for verb in ("flush", "delete")]


def _element_lines(
    verb: str, keys: Iterable[tuple[str, str, str]], values: dict[tuple[str, str, str], str]
) -> list[str]:
    """One command for each set."""
    by_set: dict[str, list[str]] = {}
    for table, name, key in keys:
        value = values.get((table, name, key), "")
        by_set.setdefault(f"{table} {name}", []).append(f"{key} : {value}" if value else key)
    return [f"{verb} element {where} {{ {', '.join(elements)} }}" for where, elements in by_set.items()]


@dataclass(frozen=True)
class Ruleset:
    """All that the rules are made from."""

    bridges: tuple[Bridge, ...] = ()
    nics: tuple[Nic, ...] = ()
    published: tuple[Published, ...] = ()

    def text(self) -> str:
        """Both tables, instead of those that there are; without bridges, their removal."""
        drop = [f"table {table}\ndelete table {table}" for table in (_INET, _BRIDGE)]
        made = [_inet(self.bridges), _BRIDGE_TABLE, *self._contents.additions()] if self.bridges else []
        return "\n".join(drop + made) + "\n"

    def change(self, before: Ruleset) -> str:
        """What makes these rules of those; all of them where the networks differ."""
        if self.bridges != before.bridges or not self.bridges:
            return self.text()
        lines = before._contents.removals(self._contents) + self._contents.additions(before._contents)
        return "\n".join(lines) + "\n" if lines else ""

    @functools.cached_property
    def _contents(self) -> _Contents:
        found = _Contents()
        for item in (*self.nics, *self.published):
            part = _of_nic(item) if isinstance(item, Nic) else _of_port(item)
            found.chains.update(part.chains)
            found.elements.update(part.elements)
        return found


# -- of pods --------------------------------------------------------------------------


@functools.lru_cache(maxsize=4096)
def _of_nic(nic: Nic) -> _Contents:
    check_link(nic.tap)
    check_mac(nic.mac)
    tap, four = f'"{nic.tap}"', canonical(nic.ip)
    sixes = [canonical(a) for a in (nic.ip6, nic.link_local) if a]
    made = _Contents(elements={(_BRIDGE, "nics", tap): "", (_BRIDGE, "macs", f"{tap} . {nic.mac}"): "",
                               (_BRIDGE, "fours", f"{tap} . {four}"): ""})  # fmt: skip
    for six in sixes:
        made.elements[_BRIDGE, "sixes", f"{tap} . {six}"] = ""
        # Neighbour advertisements name the address that they are for: 16 bytes from byte 8.
        made.elements[_BRIDGE, "targets", f"{tap} . 0x{int(ip_network(six).network_address):032x}"] = ""
    if nic.rate:
        chain = f"rate_{nic.tap}"
        made.chains[_BRIDGE, chain] = (
            f"limit rate over {max(1, nic.rate // 8)} bytes/second burst {_BURST} bytes drop",
        )
        made.elements[_BRIDGE, "rates", tap] = f"jump {chain}"
    if nic.redirect:
        made.chains[_INET, f"redirect_{nic.tap}"] = _redirections(nic.redirect, nic.allow)
        made.elements |= {(_BRIDGE, "restricted", tap): "", (_INET, "restricted", four): ""}
        made.elements[_INET, "redirect_four", four] = f"goto redirect_{nic.tap}"
    if nic.allow:
        chain = f"egress_{nic.tap}"
        made.chains[_INET, chain] = (*map(_egress, nic.allow), "goto refuse" if nic.redirect else "drop")
        made.elements[_INET, "egress_four", four] = f"goto {chain}"
        if nic.ip6:
            made.elements[_INET, "egress_six", canonical(nic.ip6)] = f"goto {chain}"
    return made


def _redirections(redirect: Redirect, allow: tuple[Egress, ...]) -> tuple[str, ...]:
    """The verdicts end the hook, so that no published port of this host comes after them."""
    gateway = canonical(redirect.gateway)
    direct = [_egress(rule) for rule in allow if ip_version(rule.cidr.partition("/")[0]) == 4]
    names = f"ip daddr {gateway} meta l4proto {{ tcp, udp }} th dport 53 accept"
    redirected = [f"ip protocol tcp dnat ip to {gateway}:{int(redirect.port)}"] if redirect.port else []
    return (names, *direct, *redirected, "accept")


def _egress(rule: Egress) -> str:
    """A destination that a NIC may reach."""
    net = ip_network(rule.cidr, strict=False)
    guard = f" meta l4proto {{ tcp, udp }} th dport {int(rule.port)}" if rule.port else ""
    return f"{'ip' if net.version == 4 else 'ip6'} daddr {net}{guard} accept"


@functools.lru_cache(maxsize=4096)
def _of_port(p: Published) -> _Contents:
    """A port of one address, or of all of both IP versions."""
    host, key = p.port.host_ip, f"{p.port.protocol} . {int(p.port.host_port)}"
    made = _Contents()
    for version, name, address in ((4, "four", p.ip), (6, "six", p.ip6)):
        if not address or (host and ip_version(host) != version):
            continue
        value = f"{canonical(address)} . {int(p.port.container_port)}"
        if host in ("", "0.0.0.0", "::"):
            made.elements[_INET, f"any_{name}", key] = value
        else:
            made.elements[_INET, f"addr_{name}", f"{canonical(host)} . {key}"] = value
    return made


# -- of networks ----------------------------------------------------------------------


def _quoted(bridge: Bridge) -> str:
    check_link(bridge.name)
    return f'"{bridge.name}"'


def _family(address: str) -> str:
    return "ip6" if ":" in address else "ip"


_SETS = """
  map any_four { type inet_proto . inet_service : ipv4_addr . inet_service; }
  map any_six { type inet_proto . inet_service : ipv6_addr . inet_service; }
  map addr_four { type ipv4_addr . inet_proto . inet_service : ipv4_addr . inet_service; }
  map addr_six { type ipv6_addr . inet_proto . inet_service : ipv6_addr . inet_service; }
  map egress_four { type ipv4_addr : verdict; }
  map redirect_four { type ipv4_addr : verdict; }
  set restricted { type ipv4_addr; }
  map egress_six { type ipv6_addr : verdict; }
  set refusing { type ipv4_addr; flags dynamic; size 65535; timeout 10m; }
  set refused { type ipv4_addr . ipv4_addr . inet_proto . inet_service; flags dynamic; size 4096; timeout 10s; }
  set refused_flood { type ipv4_addr; flags dynamic; size 65535; timeout 10s; }
  set dns_flood { type ether_addr; flags dynamic; size 65535; timeout 10s; }"""


def _inet(bridges: tuple[Bridge, ...]) -> str:
    names = ", ".join(map(_quoted, bridges))
    return f"""
table {_INET} {{{_SETS}
  chain refusal {{
    update @refusing {{ ip saddr counter }}
    update @refused_flood {{ ip saddr limit rate over {_REFUSED_RATE} }} return
    meta l4proto {{ tcp, udp }} update @refused {{ ip saddr . ip daddr . meta l4proto . th dport counter }} return
    update @refused {{ ip saddr . ip daddr . meta l4proto . 0 counter }}
  }}
  chain early {{
    type filter hook prerouting priority -300; policy accept
    iifname "lo" accept
    ip daddr 127.0.0.0/8 drop
    ip saddr 127.0.0.0/8 drop
    iifname {{ {names} }} ip daddr {{ {_NOT_FROM_NICS_4} }} ip saddr @restricted jump refusal
    iifname {{ {names} }} ip daddr {{ {_NOT_FROM_NICS_4} }} drop
    iifname {{ {names} }} ip6 daddr {{ {_NOT_FROM_NICS_6} }} drop
  }}
  chain publish {{
    meta nfproto ipv4 dnat ip to ip daddr . meta l4proto . th dport map @addr_four
    meta nfproto ipv4 ip daddr != 169.254.0.0/16 fib daddr type local dnat ip to meta l4proto . th dport map @any_four
    meta nfproto ipv6 dnat ip6 to ip6 daddr . meta l4proto . th dport map @addr_six
    meta nfproto ipv6 fib daddr type local dnat ip6 to meta l4proto . th dport map @any_six
  }}
  chain prerouting {{
    type nat hook prerouting priority dstnat; policy accept
    ip saddr vmap @redirect_four
    meta l4proto {{ tcp, udp }} jump publish
  }}
  chain output {{
    type nat hook output priority -100; policy accept
    ip6 daddr ::1 accept
    meta l4proto {{ tcp, udp }} jump publish
  }}
{_postrouting(bridges, names)}
{_input(bridges, names)}
{_forward(bridges, names)}
}}
"""


def _postrouting(bridges: tuple[Bridge, ...], names: str) -> str:
    # By subnet, not by the interface it came from: with br_netfilter, frames between
    # two NICs of a bridge pass here too, and have none.
    masquerade = "\n".join(
        f"    {_family(s)} saddr {ip_network(s)} {what} masquerade"
        for b in bridges
        for s in b.subnets
        for what in (f"oifname {_quoted(b)} ct status dnat", f"oifname != {{ {names} }}")
    )
    return f"""  chain postrouting {{
    type nat hook postrouting priority srcnat; policy accept
    oifname {{ {names} }} ct status dnat fib saddr type local masquerade
{masquerade}
  }}"""


def _input(bridges: tuple[Bridge, ...], names: str) -> str:
    """Pods reach nothing of the host's own but their name server, which nobody else reaches but the host."""
    servers = [(b, canonical(g)) for b in bridges for g in b.gateways]
    strangers = "\n".join(
        f'    iifname != {{ "lo", {_quoted(b)} }} {_family(g)} daddr {g} meta l4proto {{ tcp, udp }} th dport 53 drop'
        for b, g in servers
    )
    own = "\n".join(f"    iifname {_quoted(b)} {_family(g)} daddr {g} goto question" for b, g in servers)
    gates = [f"{_quoted(b)} ip daddr {canonical(b.gateways[0])} tcp dport {int(b.gate)}" for b in bridges if b.gate]
    redirected = "\n".join(f"    iifname {gate} ct status dnat accept" for gate in gates)
    guards = "\n".join(f"    iifname != {gate} drop" for gate in gates)
    # Before what is established: a socket that asks again and again is one connection. The
    # server answers one question of a TCP connection, so each new one counts.
    return f"""  chain question {{
    meta l4proto tcp ct state established accept
    update @dns_flood {{ ether saddr limit rate over {_DNS_RATE} }} drop
    accept
  }}
  chain questions {{
{own}
    drop
  }}
  chain restricted_in {{
{redirected}
    ct direction reply ct state established accept
    jump refusal
    meta l4proto udp reject with icmpx admin-prohibited
    drop
  }}
  chain input {{
    type filter hook input priority filter; policy accept
{strangers}
{guards}
    iifname != {{ {names} }} accept
    ct direction original meta l4proto {{ tcp, udp }} th dport 53 goto questions
    ip saddr @restricted goto restricted_in
    ct state established,related accept
    ip protocol icmp accept
    meta l4proto ipv6-icmp accept
    drop
  }}"""


def _forward(bridges: tuple[Bridge, ...], names: str) -> str:
    within = "\n".join(f"    iifname {n} oifname {n} accept" for n in map(_quoted, bridges))
    internal = "\n".join(f"    iifname {_quoted(b)} drop\n    oifname {_quoted(b)} drop" for b in bridges if b.internal)
    return f"""  chain refuse {{
    jump refusal
    meta l4proto udp reject with icmpx admin-prohibited
    meta l4proto tcp reject with tcp reset
    drop
  }}
  chain restricted_out {{
    ct direction reply ct state established accept
    oifname {{ {names} }} jump refusal
    oifname {{ {names} }} drop
{internal}
    ip saddr vmap @egress_four
    goto refuse
  }}
  chain forward {{
    type filter hook forward priority filter; policy accept
    iifname != {{ {names} }} oifname != {{ {names} }} accept
    ip saddr @restricted goto restricted_out
    ct state established,related accept
{within}
    ct status dnat accept
{internal}
    iifname {{ {names} }} oifname {{ {names} }} drop
    ip saddr vmap @egress_four
    ip6 saddr vmap @egress_six
    iifname {{ {names} }} accept
    drop
  }}"""


_BRIDGE_TABLE = f"""
table {_BRIDGE} {{
  set nics {{ type ifname; }}
  set restricted {{ type ifname; }}
  set macs {{ type ifname . ether_addr; }}
  set fours {{ type ifname . ipv4_addr; }}
  set sixes {{ type ifname . ipv6_addr; }}
  set targets {{ typeof iifname . @th,64,128; }}
  map rates {{ type ifname : verdict; }}
  chain from_arp {{
    iifname . arp saddr ether != @macs drop
    iifname . arp saddr ip != @fours drop
    accept
  }}
  chain from_four {{
    iifname . ip saddr != @fours drop
    udp sport 67 drop
    accept
  }}
  chain from_six {{
    icmpv6 type {{ nd-router-advert, nd-redirect, nd-router-solicit }} drop
    udp sport 547 drop
    ip6 saddr != :: iifname . ip6 saddr != @sixes drop
    icmpv6 type nd-neighbor-advert iifname . @th,64,128 != @targets drop
    accept
  }}
  chain guard {{
    iifname vmap @rates
    iifname . ether saddr != @macs drop
    iifname @restricted ether type ip6 drop
    ether type vmap {{ arp : goto from_arp, ip : goto from_four, ip6 : goto from_six }}
    drop
  }}
  chain prerouting {{
    type filter hook prerouting priority -300; policy accept
    iifname @nics goto guard
  }}
  chain forward {{
    type filter hook forward priority filter; policy accept
    iifname @restricted drop
    oifname @restricted drop
  }}
}}
"""
