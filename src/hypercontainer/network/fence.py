# SPDX-License-Identifier: Apache-2.0
"""Keeps the processes of the user-mode network from the host's loopback.

A guest may send what it likes, a packet for 127.0.0.1 too, and slirp and older
versions of passt connect to what it says. As root they run as users of their
own (sys/users.py), whose connections the host's firewall can tell.
"""

from __future__ import annotations

import asyncio
import contextlib
import hashlib
import logging
import os
from pathlib import Path

from ..errors import Unavailable
from ..model.addresses import ip_version
from ..sys import users
from . import nftables
from .dns import host_servers

log = logging.getLogger(__name__)


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


class Fence:
    """It is there while one of a daemon's pods needs it; only root can have one."""

    def __init__(self, run: Path) -> None:
        self._table = table(run)
        self._pods: set[str] = set()
        self._raised = False
        self._lock = asyncio.Lock()

    async def open(self, pods: set[str]) -> None:
        """As these running pods need it; what a daemon before this one left goes."""
        if os.geteuid() == 0:
            self._pods = set(pods)
            with contextlib.suppress(Unavailable):
                await nftables.apply(raised(self._table) if pods else lowered(self._table))
                self._raised = bool(pods)

    async def add(self, pod_id: str, name: str) -> None:
        """Before a process of the pod's network runs. Idempotent."""
        if os.geteuid() == 0:
            async with self._lock:
                await self._raise(pod_id, name)

    async def _raise(self, pod_id: str, name: str) -> None:
        self._pods.add(pod_id)  # first: whoever is cancelled does not know what the kernel has done
        if self._raised:
            return
        try:
            await nftables.apply(raised(self._table))
        except Unavailable as error:
            self._pods.discard(pod_id)
            log.warning("%s can reach what listens on this host's loopback: %s", name, error)
            return
        self._raised = True

    async def drop(self, pod_id: str) -> None:
        """After it. Idempotent."""
        if pod_id in self._pods:
            async with self._lock:
                self._pods.discard(pod_id)
                if not self._pods:
                    self._raised = False
                    with contextlib.suppress(Unavailable):  # somebody has flushed it
                        await nftables.apply(lowered(self._table))
