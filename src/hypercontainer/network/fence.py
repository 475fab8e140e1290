# SPDX-License-Identifier: Apache-2.0
"""Keeps the processes of the user-mode network from the host's loopback, and those that ask a stranger's registry.

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
import re
import secrets
from collections.abc import AsyncIterator
from pathlib import Path

from ..errors import Unavailable
from ..model.addresses import ip_version
from ..sys import process, tasks, users
from . import nftables
from .dns import host_servers
from .rule_watch import INET, RuleWatch

log = logging.getLogger(__name__)
_OWNER = "daemon_"


def table(run: Path) -> str:
    """Of one daemon: it goes with the last of its pods, whatever others run."""
    return f"inet hyper_user_{hashlib.sha256(str(run).encode()).hexdigest()[:8]}"


def raised(name: str) -> str:
    """In nft's language; before NAT, by which a published port of 127.0.0.1 would be somewhere else."""
    fenced = ", ".join(f"{r.start}-{r.stop - 1}" for r in (users.ranges().fenced, users.ranges().strangers))
    own = f"{_OWNER}{os.getpid()}_{process.start_time(os.getpid())}_{_pid_namespace()}"
    servers = [s for s in host_servers() if ip_version(s) == 4]
    ask = f"    ip daddr {{ {', '.join(servers)} }} meta l4proto {{ tcp, udp }} th dport 53 accept\n" if servers else ""
    return f"""table {name}
delete table {name}
table {name} {{
  chain {own} {{ }}
  chain output {{
    type filter hook output priority -150; policy accept
    meta skuid != {{ {fenced} }} accept
    ct direction reply accept
{ask}    ip daddr {{ 127.0.0.0/8, 169.254.0.0/16 }} reject
    ip6 daddr {{ ::1, fe80::/10, fd00:ec2::/32 }} reject
  }}
}}
"""


def lowered(name: str) -> str:
    """In nft's language; it may be gone already."""
    return f"table {name}\ndelete table {name}\n"


def _pid_namespace() -> int:
    return os.stat("/proc/self/ns/pid").st_ino


async def sweep(own: str) -> list[str]:
    """Remove the tables of daemons that are gone, with all of their machines; gives their names.

    A table has a chain whose name says whose it is: process, its start in clock ticks, and PID namespace. Those of
    another namespace, or without such a chain, stay: nothing is known of their daemons.

    :raise Unavailable: the kernel's rules cannot be read.
    """
    owners, name = {}, ""
    for line in (await nftables.apply("list chains inet")).splitlines():
        if found := re.match(r"table (inet hyper_user_[0-9a-f]{8}) \{", line):
            name = found[1]
        elif found := re.match(rf"\s+chain {_OWNER}(\d+)_(\d+)_(\d+) \{{", line):
            owners[name] = tuple(map(int, found.groups()))
    gone = [
        name for name, (pid, started, namespace) in owners.items()
        if name != own and namespace == _pid_namespace() and process.start_time(pid) != started
    ]  # fmt: skip
    if gone:  # a killed daemon's machines go on, and need theirs
        needed = {table(Path(d).parent.parent) for _, d in process.with_variable(process.MACHINE)}
        gone = [name for name in gone if name not in needed]
    for name in gone:
        await nftables.apply(lowered(name))
        log.warning("removed the table %s, which a hyperd that is gone had left", name)
    return gone


class Fence:
    """It is there while one of a daemon's pods needs it; only root can have one."""

    def __init__(self, run: Path) -> None:
        self._table = table(run)
        self._pods: set[str] = set()
        self._raised = False
        self._lock = asyncio.Lock()
        self._watch = RuleWatch({(INET, self._table.removeprefix("inet "))}, self._restore)

    async def open(self, pods: set[str]) -> None:
        """As these running pods need it; what a daemon before this one left goes."""
        if os.geteuid() == 0:
            self._pods = set(pods)
            self._watch.open()
            with contextlib.suppress(Unavailable):
                await self._apply(up=bool(pods))
                self._raised = bool(pods)
                await self.sweep()

    async def close(self) -> None:
        """What there is stays for the pods that run."""
        await self._watch.close()

    async def _apply(self, *, up: bool) -> None:
        with self._watch.changing(keeps=up):
            await nftables.apply(raised(self._table) if up else lowered(self._table))

    async def _restore(self) -> None:
        async with self._lock:
            if self._raised:
                await self._apply(up=True)

    async def sweep(self) -> list[str]:
        """Remove what daemons that are gone have left of theirs; gives the tables' names."""
        return await sweep(self._table) if os.geteuid() == 0 else []

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
            await self._apply(up=True)
        except Unavailable as error:
            self._pods.discard(pod_id)
            log.warning("%s can reach what listens on this host's loopback: %s", name, error)
            return
        self._raised = True

    @contextlib.asynccontextmanager
    async def around(self, what: str) -> AsyncIterator[bool]:
        """It is there while the block runs; False where it cannot be."""
        key = f"{what} {secrets.token_hex(8)}"
        try:
            await self.add(key, what)
            yield key in self._pods
        finally:
            await tasks.to_the_end(self.drop(key))

    async def drop(self, pod_id: str) -> None:
        """After it. Idempotent."""
        if pod_id in self._pods:
            async with self._lock:
                self._pods.discard(pod_id)
                if not self._pods:
                    self._raised = False
                    with contextlib.suppress(Unavailable):  # somebody has flushed it
                        await self._apply(up=False)
