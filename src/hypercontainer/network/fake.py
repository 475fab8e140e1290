# SPDX-License-Identifier: Apache-2.0
"""Networks that are objects: the fake of the port (`backend.py`).

`FakeNet` is what outlives a daemon: taps as long as somebody has their descriptors, bridges, rules, published ports.
Each daemon has a `FakeChoice` of its own on it. Pods in networks of this host have a backend that can all that only
some can; pods of the user-mode network one that has the core alone, and whose NICs are streams.
"""

from __future__ import annotations

import asyncio
import contextlib
import os
import socket
from collections.abc import Iterator, Sequence
from dataclasses import dataclass, field

import msgspec

from ..model.network import USER_MODES, Attachment, Network
from ..model.specs import PortMapping
from ..model.statistics import EgressStats
from ..model.status import Pod
from ..protocol.messages import Interface
from . import addresses, tap
from .backend import Backend, ForwardingOf, Link, Nic, NicKind, Records, numbered
from .fake_taps import FakeTaps
from .idle import IdleNic
from .usermode import ADDRESS, GATEWAY, mac_of


@dataclass
class FakeNet(FakeTaps):
    """One host."""

    bridges: dict[str, Network] = field(default_factory=dict)
    rules: dict[str, set[str]] = field(default_factory=dict)  # pods -> the taps that their rules name
    published: dict[str, list[PortMapping]] = field(default_factory=dict)  # by the pods' ids
    prepared: set[str] = field(default_factory=set)  # pods of the user-mode network

    def named(self) -> set[str]:
        """Taps that rules name."""
        return set().union(*self.rules.values())

    @contextlib.contextmanager
    def installed(self) -> Iterator[None]:
        """Nothing real is reached through it."""
        yield


class FakeBackend:
    """The core: a NIC that is a stream; a machine publishes its ports itself."""

    name = "fake"
    kind = NicKind.STREAM
    released_by_record = False

    def __init__(self, net: FakeNet) -> None:
        self.net = net

    def links(self, pod: Pod) -> list[Link]:
        return [Link(self.kind, (ADDRESS,), (GATEWAY,), walled=True, plugs=True)]

    def check(self, pod: Pod, ports: Sequence[PortMapping]) -> None: ...

    async def prepare(self, pod: Pod) -> None:
        self.net.prepared.add(pod.id)
        await asyncio.sleep(0)

    async def open(
        self, pod: Pod, links: Sequence[Link], ports: Sequence[PortMapping], stack: contextlib.ExitStack
    ) -> list[Nic]:
        nics = []
        for link in links:
            ours, theirs = socket.socketpair()
            stack.callback(ours.close)
            stack.callback(theirs.close)
            await asyncio.sleep(0)
            nics.append(Nic(self.kind, mac_of(link), ours.fileno()))
        self.net.published[pod.id] = list(ports)
        return nics

    async def attach(self, pod: Pod, link: Link, ports: Sequence[PortMapping], idle: IdleNic) -> None:
        await asyncio.sleep(0)
        self.net.published[pod.id] = list(ports)

    async def publish(self, pod: Pod, ports: Sequence[PortMapping], forwarding: ForwardingOf) -> None:
        await asyncio.sleep(0)
        self.net.published.setdefault(pod.id, []).extend(ports)

    async def unpublish(self, pod: Pod, ports: Sequence[PortMapping], forwarding: ForwardingOf) -> None:
        await asyncio.sleep(0)
        self.net.published[pod.id] = [p for p in self.net.published.get(pod.id, []) if p not in ports]

    async def release(self, pod_id: str) -> None:
        self.net.prepared.discard(pod_id)
        self.net.published.pop(pod_id, None)
        await asyncio.sleep(0)


class FakeShared(FakeBackend):
    """Networks of this host, with all facets."""

    name = "fake networks"
    kind = NicKind.TAP

    def __init__(self, net: FakeNet, records: Records) -> None:
        super().__init__(net)
        self._records = records

    def links(self, pod: Pod) -> list[Link]:
        """The first network has the default route."""
        gateways = [(self._records.network_of(a).gateway,) for a in pod.attachments[:1]]
        return [
            Link(self.kind, (f"{a.ip}/24",), gateways[i] if i < 1 else (), 0, a.mac, a.tap, plugs=True)
            for i, a in enumerate(pod.attachments)
        ]

    def name_servers(self, pod: Pod) -> list[str]:
        return [self._records.network_of(a).gateway for a in pod.attachments]

    async def prepare(self, pod: Pod) -> None:
        if pod.vm is None:
            pod = msgspec.structs.replace(pod, attachments=numbered(pod.id, pod.attachments))
            self._records.put_pod(pod)
        for a in pod.attachments:
            await asyncio.sleep(0)
            network = self._records.network_of(a)
            self.net.bridges[network.bridge] = network

    async def open(
        self, pod: Pod, links: Sequence[Link], ports: Sequence[PortMapping], stack: contextlib.ExitStack
    ) -> list[Nic]:
        nics = []
        for link, a in zip(links, pod.attachments, strict=True):
            nics.append(self._create(link.tap, link.mac, stack))
            await asyncio.sleep(0)
            self._join(link.tap, a)
        return nics

    def _create(self, name: str, mac: str, stack: contextlib.ExitStack) -> Nic:
        fd = self.net.create_tap(name)
        stack.callback(os.close, fd)
        return Nic(self.kind, mac, fd, name)

    def _join(self, name: str, attachment: Attachment) -> None:
        self.net.tap(name).bridge = self._records.network_of(attachment).bridge

    async def attach(self, pod: Pod, link: Link, ports: Sequence[PortMapping], idle: IdleNic) -> None:
        await asyncio.sleep(0)
        self.net.taps[link.tap] = self.net.taps.pop(idle.tap)
        self._join(link.tap, pod.attachments[0])

    async def release(self, pod_id: str) -> None:
        self.net.rules.pop(pod_id, None)
        await super().release(pod_id)

    def egress(self, pod: Pod) -> EgressStats | None:
        return None

    async def follow(self, pod: Pod) -> None:
        await asyncio.sleep(0)

    async def enforce(self, pod: Pod) -> None:
        await asyncio.sleep(0)
        self.net.rules[pod.id] = {a.tap for a in pod.attachments}
        self.net.published[pod.id] = list(pod.ports)

    async def limit(self, link: Link, rate: int) -> None:
        await asyncio.sleep(0)
        self.net.tap(link.tap).rate = rate

    def spares(self, pod: Pod, first: int) -> list[Nic]:
        spare = Nic(NicKind.SPARE, addresses.new_mac(), tap=tap.name_of(pod.id, first))
        return [spare] if pod.attachments else []

    async def join(self, pod: Pod, attachment: Attachment, stack: contextlib.ExitStack) -> Nic | None:
        await self.prepare(pod)
        await self.enforce(pod)
        there = attachment.tap in self.net.present()
        nic = None if there else self._create(attachment.tap, attachment.mac, stack)
        self._join(attachment.tap, attachment)
        return nic

    def told(self, pod: Pod) -> list[Interface]:
        links = zip(pod.attachments, self.links(pod), strict=True)
        return [Interface(a.interface, n.addresses, n.gateways, mac=n.mac) for a, n in links]

    async def leave(self, attachment: Attachment) -> None:
        await asyncio.sleep(0)
        if attachment.tap in self.net.present():
            self.net.taps[attachment.tap].bridge = ""

    async def refresh(self) -> None:
        for pod in self._records.pods():
            if pod.id in self.net.rules:
                self.net.rules[pod.id] = {a.tap for a in pod.attachments}
        await asyncio.sleep(0)


class FakeChoice:
    """One daemon's backends."""

    def __init__(self, net: FakeNet, records: Records) -> None:
        self.net = net
        self._records = records
        self.core, self.shared = FakeBackend(net), FakeShared(net, records)

    def of(self, pod: Pod) -> tuple[Backend, ...]:
        if pod.attachments or (pod.vm and pod.vm.nics):
            return (self.shared,)
        return (self.core,) if pod.spec.network in USER_MODES else ()

    def named(self, network: str) -> Backend | None:
        if network in ("", "none"):
            return None
        return self.core if network in USER_MODES else self.shared

    def pin(self, pod: Pod) -> None: ...

    def user_network(self, pod: Pod) -> str:
        return "fake" if self.core in self.of(pod) else ""

    def forget(self, pod_id: str) -> None: ...

    @property
    def all(self) -> tuple[Backend, ...]:
        return (self.core, self.shared)

    async def start(self) -> None:
        await asyncio.sleep(0)
        running = {p.id: p for p in self._records.pods() if p.vm}
        for kept in (self.net.rules, self.net.published):
            for id_ in set(kept) - set(running):
                del kept[id_]
        self.net.prepared &= set(running)
        known = {n.bridge for n in self._records.networks()}
        self.net.bridges = {name: n for name, n in self.net.bridges.items() if name in known}
        for pod in running.values():
            await self._keep(pod)

    async def _keep(self, pod: Pod) -> None:
        """What a daemon that died in the midst of a change had begun comes to its end."""
        if not pod.attachments:
            return
        await self.shared.prepare(pod)
        await self.shared.enforce(pod)
        for a in pod.attachments:
            if a.tap in self.net.present():
                self.shared._join(a.tap, a)

    def wall(self) -> contextlib.AbstractAsyncContextManager[bool]:
        return contextlib.nullcontext(False)

    async def sweep(self) -> list[str]:
        return []

    async def remove(self, network: Network) -> None:
        await asyncio.sleep(0)
        self.net.bridges.pop(network.bridge, None)

    async def stop(self) -> None:
        await asyncio.sleep(0)
        if not self.net.rules:
            self.net.bridges.clear()
