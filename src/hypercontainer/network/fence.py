# SPDX-License-Identifier: Apache-2.0
"""Keeps the processes of the user-mode network from the host's loopback.

A guest may send what it likes, a packet for 127.0.0.1 too, and slirp and older
versions of passt connect to what it says. As root they run as users of their
own (sys/users.py), whose connections the host's firewall can tell.
"""

from __future__ import annotations

import hashlib
from pathlib import Path

from ..model.addresses import ip_version
from ..sys import users
from .dns import host_servers


def table(run: Path) -> str:
    """Of one daemon: it goes with the last of its pods, whatever others run."""
    return f"inet hyper_user_{hashlib.sha256(str(run).encode()).hexdigest()[:8]}"


def raised(name: str) -> str:
    """In nft's language; before NAT, by which a published port of 127.0.0.1 would be somewhere else."""
    fenced = users.ranges().fenced
    servers = [s for s in host_servers() if ip_version(s) == 4]
    ask = f"    ip daddr {{ {', '.join(servers)} }} meta l4proto {{ tcp, udp }} th dport 53 accept\n" if servers else ""
    return f"""table {name}
delete table {name}
table {name} {{
  chain output {{
    type filter hook output priority -150; policy accept
    meta skuid != {fenced.start}-{fenced.stop - 1} accept
    ct direction reply accept
{ask}    ip daddr {{ 127.0.0.0/8, 169.254.0.0/16 }} reject
    ip6 daddr ::1 reject
  }}
}}
"""


def lowered(name: str) -> str:
    return f"table {name}\ndelete table {name}\n"
