# SPDX-License-Identifier: Apache-2.0
"""The host's side of networks: bridges, name servers, and one set of rules.

What the rules shall be is made anew from what runs. At the daemon's start, when
networks come and go, and when a change was refused, the kernel gets the whole;
so what a crash left goes. Else it gets the difference to what it has.
"""

from __future__ import annotations

import asyncio
import contextlib
import logging
from collections.abc import Sequence

from ..errors import HyperError, Unavailable
from ..model.network import Network
from ..model.rates import RateBounds
from ..model.specs import PortMapping
from ..model.statistics import EgressStats
from ..model.status import Pod
from ..sys import tasks
from . import docker_user, links, nftables, tap
from .backend import Records
from .dns import NameServer
from .egress.dropped import Dropped
from .egress.gate import EgressSettings, Gates
from .floating import answer, floats_of
from .groups import Groups, GroupsOf
from .names import is_called
from .proxy import LOOPBACK, Relay
from .rule_parts import RuleParts
from .rule_watch import RuleWatch
from .ruleset import TABLES, Float, Published, Ruleset, Spread

log = logging.getLogger(__name__)


class HostNetwork:
    """What the running pods in networks need of the host."""

    def __init__(self, records: Records, egress: EgressSettings, groups: GroupsOf, rates: RateBounds) -> None:
        self._records = records
        self._groups = Groups(records, groups)
        self._gates = Gates(records, lambda pod_id: pod_id in self._up, egress)
        self._made = RuleParts(records, self._gates, self._groups, rates.egress)
        self._dropped = Dropped(self._gates.dropped_from, self._gates.dropped)
        self._lock = asyncio.Lock()
        self._watch = RuleWatch(TABLES, self._restore)
        self._up: set[str] = set()  # pods whose NICs and ports are in the rules
        self._ports: dict[str, tuple[PortMapping, ...]] = {}  # of these: published, and not in the record yet
        self._applied: Ruleset | None = Ruleset()  # what the kernel has; None while that is not known
        self._found: set[str] = set()  # bridges of an earlier daemon
        self._forwarded: list[str] = []  # bridges that Docker's firewall knows of
        self._servers: dict[str, NameServer] = {}
        self._relays: dict[tuple[str, int], Relay] = {}

    async def prepare(self, pod: Pod) -> None:
        """The bridges of its networks, and their name servers. Idempotent."""
        async with self._lock:
            for a in pod.attachments:
                await self._ensure(self._records.network_of(a), gate=pod.spec.egress is not None)

    async def add(self, pod: Pod) -> None:
        """The pod's names and rules; again when its attachments have changed."""
        self._up.add(pod.id)  # before the lock: one change of the rules serves all who wait for it
        async with self._lock:
            await self._apply()

    async def follow(self, pod: Pod) -> None:
        """Its record has another egress policy. Idempotent. :raise Unavailable: the kernel refuses."""
        async with self._lock:
            networks = [self._records.network_of(a) for a in pod.attachments]
            for network in networks if pod.spec.egress else ():  # it may be its network's first policy
                if network.id in self._servers:
                    self._gates.ensure(network)
            await self._apply()
        self._gates.follow(pod.id)

    def egress(self, pod: Pod) -> EgressStats | None:
        """What a pod with a policy has reached and tried; None of one without, or that has no machine."""
        return self._gates.stats(pod.id) if pod.spec.egress and pod.id in self._up else None

    async def drop(self, pod_id: str) -> None:
        """After it. Idempotent."""
        self._ports.pop(pod_id, None)
        try:
            if pod_id in self._up:
                self._up.discard(pod_id)
                async with self._lock:
                    await self._apply()
        finally:
            await self._gates.forget(pod_id)

    async def refresh(self) -> None:
        """After a change of a pod's attachments."""
        async with self._lock:
            await self._apply()

    async def publish(self, pod: Pod, ports: Sequence[PortMapping]) -> None:
        """These are the pod's ports, whatever its record says yet.

        :raise Unavailable: when the kernel refuses; then all is as it was.
        """
        before = self._ports.get(pod.id)
        self._ports[pod.id] = tuple(ports)
        try:
            await self.refresh()
        except BaseException:
            if before is None:
                self._ports.pop(pod.id, None)
            else:
                self._ports[pod.id] = before
            with contextlib.suppress(HyperError):
                await tasks.to_the_end(self.refresh())
            raise

    async def remove(self, network: Network) -> None:
        """Its bridge and name server; no pod is in it. Idempotent."""
        async with self._lock:
            self._close_server(network.id)
            self._gates.remove(network.id)
            await self._apply()
            self._made.forget(network)
            await links.remove_bridge(network.bridge)

    async def open(self) -> None:
        """Keep what the running pods have; remove what belongs to none."""
        self._watch.open()
        self._up = {p.id for p in self._records.pods() if p.vm and p.attachments}
        known = {n.bridge for n in self._records.networks()}
        ours = set(await self._bridges())
        for bridge in ours - known:
            await links.remove_bridge(bridge)
        self._found = {b for b in known if links.exists(b)}  # the daemon's own has another name than `ours`
        up = [(p, self._records.network_of(a)) for p in self._records.pods() if p.id in self._up for a in p.attachments]
        gated = {network.id for p, network in up if p.spec.egress is not None}
        for id_, network in {network.id: network for _, network in up}.items():
            await self._ensure(network, gate=id_ in gated)
        if known:
            await self._apply(force=True)
        await self._join_bridges()

    async def _join_bridges(self) -> None:
        """A daemon that died while it brought a pod into a network left the tap outside; a bridge may be new."""
        for a in [a for p in self._records.pods() if p.id in self._up for a in p.attachments]:
            network = self._records.network_of(a)
            try:
                if not tap.is_joined(a.tap, network.bridge):
                    await tap.join(a.tap, network.bridge, network.mtu)
            except (HyperError, OSError) as error:  # the pod's machine has ended, and its tap with it
                log.info("tap %s is not brought into bridge %s: %s", a.tap, network.bridge, error)

    async def _bridges(self) -> list[str]:
        try:
            return await links.own_bridges()
        except HyperError as error:  # a host that lets us not even look
            log.info("the bridges of this host cannot be listed: %s", error)
            return []

    async def close(self) -> None:
        """Leave what running pods need; with none, leave nothing."""
        await self._watch.close()
        for name in list(self._servers):
            self._close_server(name)
        self._dropped.watch(False)
        await self._gates.close()
        for relay in self._relays.values():
            relay.close()
        self._relays.clear()
        if self._up:
            return
        left = self._found
        if self._applied != Ruleset():
            await self._apply()
            left = {n.bridge for n in self._records.networks()}
        for bridge in left:
            await links.remove_bridge(bridge)

    async def _ensure(self, network: Network, *, gate: bool) -> None:
        await links.make_bridge(network)
        if gate:
            self._gates.ensure(network)
        if network.id in self._servers:
            return
        server = NameServer(
            lambda name, client: self._lookup(network, name, client),
            lambda ip: self._reverse(network, ip),
            forward=not network.internal,
            restricted=lambda client: self._gates.restricted(network, client),
        )
        try:
            await server.open([network.gateway, *([network.gateway6] if network.gateway6 else [])])
        except BaseException as error:
            server.close()
            if not isinstance(error, OSError):
                raise
            raise Unavailable(f"the name server of network {network.name} cannot listen: {error}",
                              hint="another one may listen on all addresses") from error  # fmt: skip
        self._servers[network.id] = server

    def _close_server(self, network: str) -> None:
        if server := self._servers.pop(network, None):
            server.close()

    def _lookup(self, network: Network, name: str, client: str) -> list[str]:
        """A pod in several networks finds the names of all, whichever of their servers it asks."""
        mine = [
            p
            for p in self._records.attached(network)
            if any(a.is_of(network) and client in (a.ip, a.ip6) for a in p.attachments)
        ]
        further = (self._records.network_of(a) for p in mine for a in p.attachments if not a.is_of(network))
        networks = [network, *further]
        found: list[str] = []
        for where in networks:
            spread = [b for b in self._records.balanced() if b.network == where.id]
            if deployed := {b.address for b in spread if b.name.lower() == name}:
                found += sorted(deployed)  # and no replica that has it for its host name
                continue
            for pod in self._records.attached(where):
                for a in pod.attachments if pod.id in self._up else []:
                    if a.is_of(where) and is_called(pod, a, name):
                        found += [x for x in (a.ip, a.ip6) if x]
        return found

    def _reverse(self, network: Network, ip: str) -> str:
        pods = self._records.attached(network)
        return next((p.name for p in pods for a in p.attachments if a.is_of(network) and ip in (a.ip, a.ip6)), "")

    def _ruleset(self) -> Ruleset:
        running = [p for p in self._records.pods() if p.id in self._up]
        self._made.keep({p.id for p in running})
        nics = tuple(nic for p in running for nic in self._made.nics(p))
        used = self._made.used | self._servers.keys()
        networks = [n for n in self._records.networks() if n.id in used]
        bridges = tuple(map(self._made.bridge, networks))
        published = tuple(
            Published(port, p.attachments[0].ip, p.attachments[0].ip6)
            for p in running
            if p.attachments  # it may have left them all
            for port in self._ports.get(p.id, p.ports)
        )
        there = {n.id: n.bridge for n in networks}
        spread = tuple(Spread(there[b.network], b) for b in self._records.balanced() if b.network in there)
        return Ruleset(bridges, nics, published, self._groups.members(running), spread, *self._floats(running))

    def _floats(self, running: Sequence[Pod]) -> tuple[tuple[Float, ...], tuple[str, ...]]:
        return floats_of(running, self._records.floating()) if running else ((), ())

    async def _apply(self, *, force: bool = False) -> None:
        """:raise Unavailable: when the kernel takes not even the whole."""
        rules, before = self._ruleset(), self._applied
        if not force and rules == before:
            return
        self._applied = None  # should this be cancelled
        await self._set_addresses(rules, before)
        with self._watch.changing(keeps=bool(rules.bridges)):
            await self._load_rules(rules, None if force else before)
        self._applied = rules
        self._dropped.watch(any(nic.redirect for nic in rules.nics))
        bridges = [b.name for b in rules.bridges]
        if force or bridges != self._forwarded:
            self._forwarded = bridges
            await docker_user.sync(bridges)
        await self._sync_relays(rules.published)
        await answer(self._records.floating().settings, [f.address for f in rules.floats])

    async def _set_addresses(self, rules: Ruleset, before: Ruleset | None) -> None:
        """The host answers for addresses that are spread over pods."""
        if before is not None and (rules.spread, rules.bridges) == (before.spread, before.bridges):
            return
        for bridge in rules.bridges:
            wanted = {s.balanced.address for s in rules.spread if s.bridge == bridge.name}
            if links.exists(bridge.name):
                await links.set_further_addresses(bridge.name, wanted, set(bridge.gateways))

    async def _restore(self) -> None:
        """Somebody else removed rules; Docker's firewall may have lost ours, too."""
        async with self._lock:
            await self._apply(force=True)

    async def _load_rules(self, rules: Ruleset, before: Ruleset | None) -> None:
        if before is not None:
            try:
                await nftables.apply(rules.change(before))
                return
            except Unavailable as error:  # somebody has flushed them, maybe
                log.info("the rules are replaced as a whole: %s", error.message)
        await nftables.apply(rules.text())

    async def _sync_relays(self, published: tuple[Published, ...]) -> None:
        """Published ports on ::1, which NAT cannot do."""
        wanted = {
            (p.port.protocol, p.port.host_port): (p.ip, p.port.container_port)
            for p in published if p.port.host_ip in ("", "::", LOOPBACK)
        }  # fmt: skip
        for key in [k for k in self._relays if k not in wanted]:
            self._relays.pop(key).close()
        for key, target in wanted.items():
            if key not in self._relays:
                relay = Relay(*key, target)
                try:
                    await relay.open()
                except OSError as error:  # a host without IPv6, or a program of its own there
                    log.info("port %d/%s is not published on ::1: %s", key[1], key[0], error)
                    continue
                self._relays[key] = relay
