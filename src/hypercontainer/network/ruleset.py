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
import zlib
from collections.abc import Iterable
from dataclasses import dataclass, field, replace
from ipaddress import ip_network

from ..model.addresses import canonical, check_link, check_mac, ip_version
from ..model.network import Egress
from ..model.specs import PortMapping
from .balanced import Balanced
from .group_rules import Grouped, Members, of_members, of_nic
from .network_rules import BRIDGE_RULES, BRIDGE_TABLE, INET_TABLE, Bridge, inet
from .rule_watch import BRIDGE, INET

_BURST = 128 << 10  # bytes that a NIC with a rate may send at once
TABLES = {(INET, "hyper"), (BRIDGE, "hyper")}


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
    grouped: Grouped | None = None  # what its security groups say; None: it is in none


@dataclass(frozen=True)
class Published:
    """A port of the host that leads to a pod."""

    port: PortMapping
    ip: str
    ip6: str = ""


@dataclass(frozen=True)
class Float:
    """A floating address, by which a pod's address is reached, and reaches others."""

    address: str
    ip: str


@dataclass(frozen=True)
class Spread:
    """An address of a bridge's network, and a port of the host, whose connections go to several pods in turn."""

    bridge: str
    balanced: Balanced


@dataclass
class _Contents:
    """What pods have: rules of chains by table and name; values of elements by table, set and key; own sets."""

    sets: dict[tuple[str, str], str] = field(default_factory=dict)  # types, by table and name
    chains: dict[tuple[str, str], tuple[str, ...]] = field(default_factory=dict)
    elements: dict[tuple[str, str, str], str] = field(default_factory=dict)

    def additions(self, known: _Contents | None = None) -> list[str]:
        """Commands for what `known` has not: chains before what leads to them."""
        chains = {k: rules for k, rules in self.chains.items() if not known or known.chains.get(k) != rules}
        sets = {k: kind for k, kind in self.sets.items() if not known or k not in known.sets}
        lines = [f"add set {table} {name} {{ {kind}; }}" for (table, name), kind in sets.items()]
        lines += [f"add chain {table} {name}" for table, name in chains]
        lines += [f"add rule {table} {name} {rule}" for (table, name), rules in chains.items() for rule in rules]
        new = (k for k, value in self.elements.items() if not known or known.elements.get(k) != value)
        return lines + _element_lines("add", new, self.elements)

    def removals(self, following: _Contents) -> list[str]:
        """Commands that take away what `following` does not have, or has otherwise."""
        old = (k for k, value in self.elements.items() if following.elements.get(k) != value)
        chains = [k for k, rules in self.chains.items() if following.chains.get(k) != rules]
        lines = _element_lines("delete", old, {})
        lines += [f"{verb} chain {table} {name}" for table, name in chains for verb in ("flush", "delete")]
        return lines + [
            f"delete set {table} {name}" for table, name in self.sets if (table, name) not in following.sets
        ]


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
    members: tuple[Members, ...] = ()  # of the groups that rules name
    spread: tuple[Spread, ...] = ()
    floats: tuple[Float, ...] = ()
    pools: tuple[str, ...] = ()  # CIDR: where floating addresses are of

    def text(self) -> str:
        """Both tables, instead of those that there are; without bridges, their removal."""
        drop = [f"table {table}\ndelete table {table}" for table in (INET_TABLE, BRIDGE_TABLE)]
        made = [inet(self.bridges), BRIDGE_RULES, *self._contents.additions()] if self.bridges else []
        return "\n".join(drop + made) + "\n"

    def change(self, before: Ruleset) -> str:
        """What makes these rules of those; all of them where the networks differ."""
        if self.bridges != before.bridges or not self.bridges:
            return self.text()
        old, new = before._beside(self)._contents, self._beside(before)._contents
        lines = old.removals(new) + new.additions(old)
        return "\n".join(lines) + "\n" if lines else ""

    def _beside(self, other: Ruleset) -> Ruleset:
        """Without NICs that are the same object there, as nearly all of thousands are: each has elements of its own."""
        same = set(map(id, other.nics))
        return replace(self, nics=tuple(nic for nic in self.nics if id(nic) not in same))

    @functools.cached_property
    def _contents(self) -> _Contents:
        found = _Contents()
        parts = (*map(_of_nic, self.nics), *map(_of_port, self.published), *map(_of_spread, self.spread))
        for part in parts:
            found.chains.update(part.chains)
            found.elements.update(part.elements)
        for members in self.members:
            sets, elements = of_members(members)
            found.sets.update(sets)
            found.elements.update(elements)
        for pool in self.pools:
            name = "floats_six" if ":" in pool else "floats_four"
            found.elements[INET_TABLE, name, str(ip_network(pool))] = ""
        for each in self.floats:
            found.elements.update(_of_float(each))
        return found


# -- of pods --------------------------------------------------------------------------


@functools.lru_cache(maxsize=4096)
def _of_nic(nic: Nic) -> _Contents:
    check_link(nic.tap)
    check_mac(nic.mac)
    tap, four = f'"{nic.tap}"', canonical(nic.ip)
    sixes = [canonical(a) for a in (nic.ip6, nic.link_local) if a]
    made = _Contents(elements={(BRIDGE_TABLE, "nics", tap): "", (BRIDGE_TABLE, "macs", f"{tap} . {nic.mac}"): "",
                               (BRIDGE_TABLE, "fours", f"{tap} . {four}"): ""})  # fmt: skip
    for six in sixes:
        made.elements[BRIDGE_TABLE, "sixes", f"{tap} . {six}"] = ""
        # Neighbour advertisements name the address that they are for: 16 bytes from byte 8.
        made.elements[BRIDGE_TABLE, "targets", f"{tap} . 0x{int(ip_network(six).network_address):032x}"] = ""
    if nic.rate:
        chain = f"rate_{nic.tap}"
        made.chains[BRIDGE_TABLE, chain] = (
            f"limit rate over {max(1, nic.rate // 8)} bytes/second burst {_BURST} bytes drop",
        )
        made.elements[BRIDGE_TABLE, "rates", tap] = f"jump {chain}"
    if nic.redirect:
        made.chains[INET_TABLE, f"redirect_{nic.tap}"] = _redirections(nic.redirect, nic.allow)
        made.elements |= {(BRIDGE_TABLE, "restricted", tap): "", (INET_TABLE, "restricted", four): ""}
        made.elements[INET_TABLE, "redirect_four", four] = f"goto redirect_{nic.tap}"
    if nic.allow:
        chain = f"egress_{nic.tap}"
        made.chains[INET_TABLE, chain] = (*map(_egress, nic.allow), "goto refuse" if nic.redirect else "drop")
        made.elements[INET_TABLE, "egress_four", four] = f"goto {chain}"
        if nic.ip6:
            made.elements[INET_TABLE, "egress_six", canonical(nic.ip6)] = f"goto {chain}"
    if nic.grouped:
        chains, elements = of_nic(nic.tap, tuple(filter(None, (nic.ip, nic.ip6))), nic.grouped)
        made.chains.update(chains)
        made.elements.update(elements)
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
            made.elements[INET_TABLE, f"any_{name}", key] = value
        else:
            made.elements[INET_TABLE, f"addr_{name}", f"{canonical(host)} . {key}"] = value
    return made


def _of_float(each: Float) -> dict[tuple[str, str, str], str]:
    version, floating, own = "six" if ":" in each.ip else "four", canonical(each.address), canonical(each.ip)
    return {
        (INET_TABLE, f"floating_in_{version}", floating): own,
        (INET_TABLE, f"floating_out_{version}", own): floating,
        (INET_TABLE, f"floating_{version}", f"{floating} . {own}"): "",
    }


@functools.lru_cache(maxsize=4096)
def _of_spread(spread: Spread) -> _Contents:
    """Where there are no targets the connection goes nowhere."""
    check_link(spread.bridge)
    b = spread.balanced
    if not b.targets:
        return _Contents()
    address, end = canonical(b.address), f"{check_protocol(b.protocol)} . {int(b.port)}"
    rule = _turns(b)
    # Another rule is another chain: one that elements lead to cannot be replaced.
    chain = f"spread_{address.replace('.', '_')}_{b.protocol}_{int(b.port)}_{zlib.crc32(rule.encode()):08x}"
    made = _Contents(chains={(INET_TABLE, chain): (rule,)})
    made.elements[INET_TABLE, "balanced", f'"{spread.bridge}" . {address} . {end}'] = f"goto {chain}"
    made.elements[INET_TABLE, "balanced_own", f"{address} . {end}"] = f"goto {chain}"
    if b.host_port:
        made.elements[INET_TABLE, "balanced_any", f"{b.protocol} . {int(b.host_port)}"] = f"goto {chain}"
    return made


def check_protocol(name: str) -> str:
    """:raise ValueError: it is none of those that have ports here."""
    if name not in ("tcp", "udp"):
        raise ValueError(f"no protocol: {name!r}")
    return name


def _turns(b: Balanced) -> str:
    """The kernel keeps a connection at its pod; this says where a new one goes."""
    head = f"meta nfproto ipv4 meta l4proto {b.protocol} dnat ip to"
    if len(b.targets) == 1:
        return f"{head} {canonical(b.targets[0])}:{int(b.target)}"
    by = "jhash ip saddr" if b.sticky else "numgen inc"
    targets = ", ".join(f"{n} : {canonical(t)}" for n, t in enumerate(b.targets))
    return f"{head} {by} mod {len(b.targets)} map {{ {targets} }} : {int(b.target)}"
