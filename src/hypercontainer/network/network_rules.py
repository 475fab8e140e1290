# SPDX-License-Identifier: Apache-2.0
"""What of the host's nftables depends on its networks only, in nft's language: chains, and sets that pods fill."""

from __future__ import annotations

from dataclasses import dataclass
from ipaddress import ip_network

from ..model.addresses import canonical, check_link

_DNS_RATE = "500/second burst 100 packets"  # questions of one NIC, by UDP or TCP
INET_TABLE, BRIDGE_TABLE = "inet hyper", "bridge hyper"
# Packets of NICs with an egress policy that are dropped: how many of each address, and of what kind they were.
REFUSING, REFUSED = f"{INET_TABLE} refusing", f"{INET_TABLE} refused"
_REFUSED_RATE = "5/second burst 20 packets"  # kinds that an address adds
# What no frame of a NIC may be sent to: this host's loopback, and addresses that mean
# something on one link only, where clouds answer with their machines' credentials.
_NOT_FROM_NICS_4 = "127.0.0.0/8, 169.254.0.0/16, 0.0.0.0/8"
_NOT_FROM_NICS_6 = "::1, ::ffff:0:0/96, fd00:ec2::254"


@dataclass(frozen=True)
class Bridge:
    """A network's bridge, subnets, and this host's addresses in them."""

    name: str
    subnets: tuple[str, ...] = ()
    internal: bool = False
    gateways: tuple[str, ...] = ()
    gate: int = 0  # the port of the first gateway to which connections of NICs with an egress policy come; 0: none


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
  map floating_in_four { type ipv4_addr : ipv4_addr; }
  map floating_in_six { type ipv6_addr : ipv6_addr; }
  map floating_out_four { type ipv4_addr : ipv4_addr; }
  map floating_out_six { type ipv6_addr : ipv6_addr; }
  set floating_four { type ipv4_addr . ipv4_addr; }
  set floating_six { type ipv6_addr . ipv6_addr; }
  set floats_four { type ipv4_addr; flags interval; auto-merge; }
  set floats_six { type ipv6_addr; flags interval; auto-merge; }
  map egress_four { type ipv4_addr : verdict; }
  map redirect_four { type ipv4_addr : verdict; }
  set restricted { type ipv4_addr; }
  map egress_six { type ipv6_addr : verdict; }
  map group_in_four { type ipv4_addr : verdict; }
  map group_in_six { type ipv6_addr : verdict; }
  map group_out_four { type ipv4_addr : verdict; }
  map group_out_six { type ipv6_addr : verdict; }
  set refusing { type ipv4_addr; flags dynamic; size 65535; timeout 10m; }
  set refused { type ipv4_addr . ipv4_addr . inet_proto . inet_service; flags dynamic; size 4096; timeout 10s; }
  set refused_flood { type ipv4_addr; flags dynamic; size 65535; timeout 10s; }
  map balanced { type ifname . ipv4_addr . inet_proto . inet_service : verdict; }
  map balanced_own { type ipv4_addr . inet_proto . inet_service : verdict; }
  map balanced_any { type inet_proto . inet_service : verdict; }
  set dns_flood { type ether_addr; flags dynamic; size 65535; timeout 10s; }"""


def inet(bridges: tuple[Bridge, ...]) -> str:
    """The table `inet hyper`, without what pods have in it."""
    names = ", ".join(map(_quoted, bridges))
    return f"""
table {INET_TABLE} {{{_SETS}
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
    ip daddr != 169.254.0.0/16 fib daddr type local meta l4proto . th dport vmap @balanced_any
    meta nfproto ipv4 dnat ip to ip daddr . meta l4proto . th dport map @addr_four
    meta nfproto ipv4 ip daddr != 169.254.0.0/16 fib daddr type local dnat ip to meta l4proto . th dport map @any_four
    meta nfproto ipv6 dnat ip6 to ip6 daddr . meta l4proto . th dport map @addr_six
    meta nfproto ipv6 fib daddr type local dnat ip6 to meta l4proto . th dport map @any_six
  }}
  chain float {{
    dnat ip to ip daddr map @floating_in_four
    dnat ip6 to ip6 daddr map @floating_in_six
  }}
  chain prerouting {{
    type nat hook prerouting priority dstnat; policy accept
    ip saddr vmap @redirect_four
    jump float
    meta nfproto ipv4 meta l4proto {{ tcp, udp }} iifname . ip daddr . meta l4proto . th dport vmap @balanced
    meta l4proto {{ tcp, udp }} jump publish
  }}
  chain output {{
    type nat hook output priority -100; policy accept
    ip6 daddr ::1 accept
    jump float
    meta nfproto ipv4 meta l4proto {{ tcp, udp }} ip daddr . meta l4proto . th dport vmap @balanced_own
    meta l4proto {{ tcp, udp }} jump publish
  }}
{_homes(bridges)}
{_postrouting(bridges, names)}
{_input(bridges, names)}
{_forward(bridges, names)}
  chain output_filter {{
    type filter hook output priority filter; policy accept
    ip daddr vmap @group_in_four
    ip6 daddr vmap @group_in_six
  }}
}}
"""


def _homes(bridges: tuple[Bridge, ...]) -> str:
    """Nothing from a network is meant for an address of another one, not even this host's there: who asks would learn
    which there are. A port that is published on such an address is for that network and the host.
    """
    subnets = [s for b in bridges for s in b.subnets]
    abroad = "\n".join(
        f"    {family} daddr {{ {', '.join(own)} }} goto foreign"
        for family in ("ip", "ip6")
        if (own := [str(ip_network(s)) for s in subnets if _family(s) == family])
    )
    homes = "\n".join(
        f"  chain home_{n} {{\n"
        + "".join(f"    {_family(s)} daddr {ip_network(s)} accept\n" for s in b.subnets)
        + "    goto abroad\n  }"
        for n, b in enumerate(bridges)
    )
    ways = ", ".join(f"{_quoted(b)} : goto home_{n}" for n, b in enumerate(bridges))
    return f"""  chain foreign {{
    ip saddr @restricted jump refusal
    drop
  }}
  chain abroad {{
{abroad}
  }}
{homes}
  chain from_networks {{
    type filter hook prerouting priority mangle; policy accept
    ct direction reply accept
    iifname vmap {{ {ways} }}
  }}"""


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
    oifname != {{ {names} }} snat ip to ip saddr map @floating_out_four
    oifname != {{ {names} }} snat ip6 to ip6 saddr map @floating_out_six
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


# Connections by a floating address which the pod does not have any more: the kernel tracks them on.
_STALE = """  chain stale {
    ct direction original ct original ip daddr @floats_four ct original ip daddr . ip daddr != @floating_four drop
    ct direction reply ct original ip daddr @floats_four ct original ip daddr . ip saddr != @floating_four drop
    ct direction original ct reply ip daddr @floats_four ct reply ip daddr . ip saddr != @floating_four drop
    ct direction reply ct reply ip daddr @floats_four ct reply ip daddr . ip daddr != @floating_four drop
    ct direction original ct original ip6 daddr @floats_six ct original ip6 daddr . ip6 daddr != @floating_six drop
    ct direction reply ct original ip6 daddr @floats_six ct original ip6 daddr . ip6 saddr != @floating_six drop
    ct direction original ct reply ip6 daddr @floats_six ct reply ip6 daddr . ip6 saddr != @floating_six drop
    ct direction reply ct reply ip6 daddr @floats_six ct reply ip6 daddr . ip6 daddr != @floating_six drop
  }"""


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
{_STALE}
  chain forward {{
    type filter hook forward priority filter; policy accept
    iifname != {{ {names} }} oifname != {{ {names} }} accept
    jump stale
    ip daddr vmap @group_in_four
    ip6 daddr vmap @group_in_six
    ip saddr vmap @group_out_four
    ip6 saddr vmap @group_out_six
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


BRIDGE_RULES = f"""
table {BRIDGE_TABLE} {{
  set nics {{ type ifname; }}
  set restricted {{ type ifname; }}
  set macs {{ type ifname . ether_addr; }}
  set fours {{ type ifname . ipv4_addr; }}
  set sixes {{ type ifname . ipv6_addr; }}
  set targets {{ typeof iifname . @th,64,128; }}
  map rates {{ type ifname : verdict; }}
  set grouped {{ type ifname; }}
  map grouped_from {{ type ifname : verdict; }}
  map grouped_to_four {{ type ipv4_addr : verdict; }}
  map grouped_to_six {{ type ipv6_addr : verdict; }}
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
  chain to_the_host {{
    type filter hook prerouting priority -290; policy accept
    iifname != @nics accept
    ether daddr & 01:00:00:00:00:00 != 00:00:00:00:00:00 accept
    icmpv6 type {{ nd-neighbor-solicit, nd-neighbor-advert }} accept
    ether type {{ ip, ip6 }} iifname vmap @grouped_from
    ip daddr vmap @grouped_to_four
    ip6 daddr vmap @grouped_to_six
  }}
  chain forward {{
    type filter hook forward priority filter; policy accept
    iifname @restricted drop
    oifname @restricted drop
    ether type arp accept
    icmpv6 type {{ nd-neighbor-solicit, nd-neighbor-advert }} accept
    iifname @grouped drop
    oifname @grouped drop
  }}
}}
"""
