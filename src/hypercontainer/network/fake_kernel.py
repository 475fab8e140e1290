# SPDX-License-Identifier: Apache-2.0
"""The part of a host's kernel that networks need, as an object: bridges, taps, rules, sockets.

`installed` puts it in the place of what speaks with the real one, for all of this process.
"""

from __future__ import annotations

import asyncio
import contextlib
import os
import re
from collections.abc import Iterator
from dataclasses import dataclass, field
from typing import Any

from ..errors import Conflict, NotFound, Unavailable
from ..model.network import Network
from . import answers, dns, docker_user, links, nftables, proxy, rule_watch, tap
from .egress import gate
from .fake_taps import FakeTaps

_ELEMENT = re.compile(r"(add|delete) element (\S+ \S+ \S+) \{ (.*) \}")
_TABLE = re.compile(r"(delete )?table (\S+ \S+)( \{)?")


@dataclass
class FakeKernel(FakeTaps):
    """What `ip link` and `nft list ruleset` would show."""

    bridges: dict[str, Network] = field(default_factory=dict)
    tables: dict[str, dict[str, set[str]]] = field(default_factory=dict)  # table -> set -> elements
    forwarded: list[str] = field(default_factory=list)  # bridges that Docker's firewall knows of
    servers: set[int] = field(default_factory=set)  # name servers that listen
    gates: set[int] = field(default_factory=set)  # where connections of pods with an egress policy come
    silent: set[str] = field(default_factory=set)  # addresses at which nobody answers
    further: dict[str, set[str]] = field(default_factory=dict)  # addresses of bridges beside their own
    relays: set[int] = field(default_factory=set)  # published ports of ::1

    def elements(self, table: str, name: str) -> set[str]:
        """Of a set; none where there is no such."""
        return set(self.tables.get(table, {}).get(name, ()))

    def named(self) -> set[str]:
        """Taps that rules name."""
        return {
            n for sets in self.tables.values() for of in sets.values() for e in of for n in re.findall(r'"(ht\w+)"', e)
        }

    @contextlib.contextmanager
    def installed(self) -> Iterator[None]:
        """Instead of the real one."""
        ours: list[tuple[Any, str, Any]] = [
            (links, "exists", self.exists), (links, "own_bridges", self._bridges),
            (links, "is_bridge", self._is_bridge),
            (links, "make_bridge", self._make_bridge), (links, "remove_bridge", self._remove_bridge),
            (answers, "answers", self._answers), (links, "set_further_addresses", self._set_further),
            (links, "limit", self._limit), (links, "routed_subnets", self._routed), (links, "has_ipv6", lambda: True),
            (links, "way_out", lambda: ""), (tap, "open_tap", self._open_tap), (tap, "create_tap", self._create_tap),
            (tap, "move", self._move), (tap, "join", self._join), (tap, "leave", self._leave),
            (tap, "is_joined", self._is_joined),
            (nftables, "apply", self.apply), (docker_user, "sync", self._sync),
            (rule_watch.RuleWatch, "open", lambda _: None),
            (dns.NameServer, "open", _opens(self.servers)), (dns.NameServer, "close", _closes(self.servers)),
            (gate.Gate, "open", _listens(self.gates)), (gate.Gate, "close", _closes(self.gates)),
            (proxy.Relay, "open", _opens(self.relays)), (proxy.Relay, "close", _closes(self.relays)),
        ]  # fmt: skip
        before = [(where, name, getattr(where, name)) for where, name, _ in ours]
        try:
            for where, name, value in ours:
                setattr(where, name, value)
            yield
        finally:
            for where, name, value in before:
                setattr(where, name, value)

    # -- links ------------------------------------------------------------------------

    def exists(self, name: str) -> bool:
        return name in self.bridges or self.is_there(name)

    async def _bridges(self) -> list[str]:
        await asyncio.sleep(0)
        return sorted(b for b in self.bridges if b.startswith(links.PREFIX))

    async def _is_bridge(self, name: str) -> bool:
        await asyncio.sleep(0)
        return name in self.bridges

    async def _make_bridge(self, network: Network) -> None:
        await asyncio.sleep(0)
        self.bridges.setdefault(network.bridge, network)

    async def _remove_bridge(self, name: str) -> None:
        await asyncio.sleep(0)
        self.bridges.pop(name, None)
        self.further.pop(name, None)

    async def _answers(self, address: str, port: int) -> bool:
        await asyncio.sleep(0)
        return address not in self.silent

    async def _set_further(self, bridge: str, addresses: set[str], own: set[str]) -> None:
        await asyncio.sleep(0)
        self.further[bridge] = set(addresses)

    def _is_joined(self, name: str, bridge: str) -> bool:
        return self.is_there(name) and self.tap(name).bridge == bridge

    async def _limit(self, name: str, rate: int) -> None:
        await asyncio.sleep(0)
        self.tap(name).rate = rate

    async def _routed(self) -> list[tuple[str, Any]]:
        await asyncio.sleep(0)
        return []

    async def _open_tap(self, name: str, bridge: str, mtu: int = 0) -> int:
        await asyncio.sleep(0)
        if bridge not in self.bridges:
            raise NotFound(f"there is no bridge {bridge!r} on this host")
        if self.exists(name):
            raise Conflict(f"the interface name {name!r} is taken on this host")
        fd = self._create_tap(name)
        try:
            await self._join(name, bridge, mtu)
        except BaseException:
            os.close(fd)
            raise
        return fd

    def _create_tap(self, name: str) -> int:
        if self.exists(name):
            raise Conflict(f"the interface name {name!r} is taken on this host")
        return self.create_tap(name)

    async def _move(self, old: str, name: str, bridge: str, mtu: int) -> None:
        await asyncio.sleep(0)
        if self.exists(name):
            raise Conflict(f"the interface name {name!r} is taken on this host")
        self.taps[name] = self.tap(old)
        del self.taps[old]
        await self._join(name, bridge, mtu)

    async def _join(self, name: str, bridge: str, mtu: int) -> None:
        await asyncio.sleep(0)
        self.tap(name).bridge = bridge

    async def _leave(self, name: str) -> None:
        await asyncio.sleep(0)
        if self.is_there(name):
            self.taps[name].bridge = ""

    # -- rules ------------------------------------------------------------------------

    async def apply(self, text: str) -> str:
        """One transaction of nft's language: of tables and elements; chains and rules are not looked at.

        :raise Unavailable: when an element that is to go is not there.
        """
        await asyncio.sleep(0)
        tables = {t: {s: set(e) for s, e in sets.items()} for t, sets in self.tables.items()}
        for line in text.splitlines():
            if found := _TABLE.match(line):
                if found[1]:
                    tables.pop(found[2], None)
                else:
                    tables.setdefault(found[2], {})
            elif found := _ELEMENT.match(line):
                _change(tables, found[1], found[2], {e.partition(" : ")[0] for e in found[3].split(", ")})
        self.tables = tables
        return ""

    async def _sync(self, bridges: list[str]) -> None:
        await asyncio.sleep(0)
        self.forwarded = list(bridges)


def _change(tables: dict[str, dict[str, set[str]]], verb: str, where: str, elements: set[str]) -> None:
    table, _, name = where.rpartition(" ")
    if table not in tables:
        raise Unavailable(f"nftables refused the rules: no table {table}")
    present = tables[table].setdefault(name, set())
    if verb == "add":
        present |= elements
    elif elements - present:
        raise Unavailable(f"nftables refused the rules: no such element in {where}")
    else:
        present -= elements


def _opens(those: set[int]) -> Any:
    async def opened(self: object, *_: object) -> None:
        await asyncio.sleep(0)
        those.add(id(self))

    return opened


def _closes(those: set[int]) -> Any:
    return lambda self: those.discard(id(self))


def _listens(those: set[int]) -> Any:
    def opened(self: gate.Gate, _: str) -> None:
        those.add(id(self))
        self.port = 40000

    return opened
