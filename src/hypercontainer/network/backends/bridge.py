# SPDX-License-Identifier: Apache-2.0
"""Networks of this host: a tap for each, in the network's bridge, guarded and published by rules of the kernel."""

from __future__ import annotations

import contextlib
import os
from collections.abc import Sequence
from ipaddress import ip_network

import msgspec

from ...errors import InvalidArgument
from ...model.network import Attachment, Network
from ...model.rates import RateBounds
from ...model.specs import PortMapping
from ...model.statistics import EgressStats
from ...model.status import Pod
from ...protocol.messages import Interface
from .. import addresses, tap
from .. import links as links_of_host
from ..backend import ForwardingOf, Link, Nic, NicKind, Records, numbered
from ..egress.gate import EgressSettings
from ..groups import GroupsOf
from ..host import HostNetwork
from ..idle import IdleNic
from ..proxy import LOOPBACK

_SPARES = 1


def own_addresses(network: Network, attachment: Attachment) -> tuple[str, ...]:
    """CIDR, IPv4 first."""
    own = (f"{attachment.ip}/{ip_network(network.subnet).prefixlen}",)
    return own + ((f"{attachment.ip6}/{ip_network(network.subnet6).prefixlen}",) if attachment.ip6 else ())


class Bridge:
    """A pod's attachments, by its record."""

    name = "bridge"
    kind = NicKind.TAP
    released_by_record = False

    def __init__(self, records: Records, egress: EgressSettings, groups: GroupsOf, rates: RateBounds) -> None:
        self._records = records
        self._host = HostNetwork(records, egress, groups, rates)

    def links(self, pod: Pod) -> list[Link]:
        """The first network with a way out has the default route."""
        found: list[Link] = []
        routed = False
        for a in pod.attachments:
            network = self._records.network_of(a)
            gateway = "" if routed or network.internal else network.gateway
            gateway6 = network.gateway6 if gateway and a.ip6 else ""
            routed = routed or bool(gateway)
            gateways = tuple(filter(None, (gateway, gateway6)))
            own = own_addresses(network, a)
            found.append(Link(self.kind, own, gateways, network.mtu, a.mac, a.tap, routers=False, plugs=True))
        return found

    def name_servers(self, pod: Pod) -> list[str]:
        return [self._records.network_of(a).gateway for a in pod.attachments]

    def check(self, pod: Pod, ports: Sequence[PortMapping]) -> None:
        """Whether there is IPv6 where it is asked for; ::1 has a relay."""
        first = next(iter(pod.attachments), None)
        for port in ports:
            if first and ":" in port.host_ip and port.host_ip not in ("::", LOOPBACK) and not first.ip6:
                raise InvalidArgument(
                    f"port {port.container_port} cannot be published on [{port.host_ip}]: "
                    f"network {first.network} has no IPv6",
                    hint="publish on an IPv4 address, or create the network with --ipv6",
                )

    async def prepare(self, pod: Pod) -> None:
        if pod.vm is None and (attachments := numbered(pod.id, pod.attachments)) != pod.attachments:
            pod = msgspec.structs.replace(pod, attachments=attachments)
            self._records.put_pod(pod)
        await self._host.prepare(pod)

    async def open(
        self, pod: Pod, links: Sequence[Link], ports: Sequence[PortMapping], stack: contextlib.ExitStack
    ) -> list[Nic]:
        nics = []
        for link, a in zip(links, pod.attachments, strict=True):
            fd = await tap.open_tap(link.tap, self._records.network_of(a).bridge, link.mtu)
            stack.callback(os.close, fd)
            nics.append(Nic(self.kind, link.mac, fd, link.tap))
        return nics

    async def attach(self, pod: Pod, link: Link, ports: Sequence[PortMapping], idle: IdleNic) -> None:
        attachment = next(a for a in pod.attachments if a.tap == link.tap)
        network = self._records.network_of(attachment)
        await tap.move(idle.tap, link.tap, network.bridge, link.mtu)

    async def publish(self, pod: Pod, ports: Sequence[PortMapping], forwarding: ForwardingOf) -> None:
        await self._host.publish(pod, [*pod.ports, *ports])

    async def unpublish(self, pod: Pod, ports: Sequence[PortMapping], forwarding: ForwardingOf) -> None:
        await self._host.publish(pod, [p for p in pod.ports if p not in ports])

    async def release(self, pod_id: str) -> None:
        await self._host.drop(pod_id)

    async def enforce(self, pod: Pod) -> None:
        await self._host.add(pod)

    def egress(self, pod: Pod) -> EgressStats | None:
        return self._host.egress(pod)

    async def follow(self, pod: Pod) -> None:
        await self._host.follow(pod)

    async def limit(self, link: Link, rate: int) -> None:
        await links_of_host.limit(link.tap, rate)

    # -- while it runs ------------------------------------------------------------------

    def spares(self, pod: Pod, first: int) -> list[Nic]:
        numbers = range(first, first + _SPARES) if pod.attachments else ()
        return [Nic(NicKind.SPARE, addresses.new_mac(), tap=tap.name_of(pod.id, number)) for number in numbers]

    async def join(self, pod: Pod, attachment: Attachment, stack: contextlib.ExitStack) -> Nic | None:
        network = self._records.network_of(attachment)
        await self._host.prepare(pod)
        await self._host.add(pod)
        if links_of_host.exists(attachment.tap):
            await tap.join(attachment.tap, network.bridge, network.mtu)
            return None
        fd = await tap.open_tap(attachment.tap, network.bridge, network.mtu)
        stack.callback(os.close, fd)
        return Nic(self.kind, attachment.mac, fd, attachment.tap)

    def told(self, pod: Pod) -> list[Interface]:
        links = zip(pod.attachments, self.links(pod), strict=True)
        return [Interface(a.interface, n.addresses, n.gateways, n.mtu, mac=n.mac) for a, n in links]

    async def leave(self, attachment: Attachment) -> None:
        await tap.leave(attachment.tap)

    async def refresh(self) -> None:
        await self._host.refresh()

    # -- the daemon's life ----------------------------------------------------------------

    async def start(self) -> None:
        """Keep what the running pods have; remove what belongs to none."""
        await self._host.open()

    async def remove(self, network: Network) -> None:
        """What this host has of a network that no pod is in. Idempotent."""
        await self._host.remove(network)

    async def stop(self) -> None:
        """Leave what running pods need; with none, leave nothing."""
        await self._host.close()
