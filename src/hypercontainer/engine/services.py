# SPDX-License-Identifier: Apache-2.0
"""Services of a pod, and who may reach its ports: nftables inside the guest.

A connection to a service's address goes to its hosts in turn. A service is
replaced as a whole, and all of them in one transaction.
"""

from __future__ import annotations

from collections.abc import Callable
from ipaddress import ip_address

import msgspec

from ..errors import Conflict, InvalidArgument, NotFound
from ..model.addresses import ip_version
from ..model.pods import PodSpec, Service
from ..model.status import Pod
from ..protocol import nftables as nft
from ..protocol.constants import Builtin
from .builtins import run_builtin
from .registry import Registry
from .runtime import Runtime

_TABLE = "hyper"
_PROTOCOLS = {"tcp": nft.TCP, "udp": nft.UDP}
_DSTNAT, _SRCNAT, _FILTER = -100, 100, 0  # netfilter's usual priorities


def check_services(services: list[Service]) -> None:
    """:raise InvalidArgument: addresses that do not go together. :raise Conflict: one named twice."""
    seen = set()
    for s in services:
        for host in s.hosts:
            if ip_version(host.host_ip) != ip_version(s.service_ip):
                raise InvalidArgument(
                    f"service {s.service_ip} and its host {host.host_ip} are of different IP versions"
                )
        if _key(s) in seen:
            raise Conflict(
                f"service {s.service_ip}:{s.service_port}/{s.protocol} is defined twice", hint="put all hosts into one"
            )
        seen.add(_key(s))


def _key(s: Service) -> tuple[str, int, str]:
    return str(ip_address(s.service_ip)), s.service_port, s.protocol


def _service_rules(services: list[Service]) -> list[bytes]:
    rules = []
    for s in services:
        head = (
            nft.in_network("destination", s.service_ip)
            + nft.protocol_is(_PROTOCOLS[s.protocol])
            + nft.port_is(s.service_port)
        )
        for left in range(len(s.hosts), 0, -1):
            host = s.hosts[len(s.hosts) - left]
            rules.append(head + nft.every_nth(left) + nft.dnat(ip_address(host.host_ip), host.host_port))
    return rules


def _white_list_chains(pod: Pod) -> list[nft.Chain]:
    lists = pod.spec.white_lists
    internal, external = lists.internal_networks, lists.external_networks
    if not internal and not external:
        return []
    guard = nft.Chain("input", "filter", _FILTER, policy=nft.DROP)
    guard.rules = [nft.from_interface("lo") + nft.accept(), nft.established() + nft.accept()]
    guard.rules += [nft.protocol_is(p) + nft.accept() for p in (nft.ICMP, nft.ICMPV6)]
    for port in pod.ports:
        protocol = nft.protocol_is(_PROTOCOLS[port.protocol])
        guard.rules += [
            nft.in_network("source", n) + protocol + nft.port_is(port.container_port) + nft.accept()
            for n in internal + external
        ]
    return [guard]


def _redirects(pod: Pod) -> list[bytes]:
    return [
        nft.in_network("source", n)
        + nft.protocol_is(_PROTOCOLS[p.protocol])
        + nft.port_is(p.host_port)
        + nft.redirect(p.container_port)
        for n in pod.spec.white_lists.external_networks
        for p in pod.ports
        if p.host_port and p.host_port != p.container_port
    ]


def firewall_batch(pod: Pod) -> bytes:
    """The pod's rules; b"" when it needs none."""
    services = _service_rules(pod.spec.services)
    chains = _white_list_chains(pod)
    before = _redirects(pod) + services
    if before:
        chains.append(nft.Chain("prerouting", "nat", _DSTNAT, rules=before))
    if services:
        chains.append(nft.Chain("output", "nat", _DSTNAT, rules=services))
        chains.append(nft.Chain("postrouting", "nat", _SRCNAT, rules=[nft.was_dnat() + nft.masquerade()]))
    return nft.replace_table(_TABLE, chains) if chains else b""


class Services:
    """Listed and changed at run time."""

    def __init__(self, registry: Registry, runtime: Callable[[Pod], Runtime | None]) -> None:
        self._registry = registry
        self._runtime = runtime

    def of(self, key: str) -> list[Service]:
        return self._registry.pod(key).spec.services

    async def replace(self, key: str, services: list[Service]) -> list[Service]:
        """The whole set."""
        check_services(services)
        pod = self._registry.pod(key)
        spec: PodSpec = msgspec.structs.replace(pod.spec, services=services)
        changed = msgspec.structs.replace(pod, spec=spec)
        if runtime := self._runtime(pod):
            addresses = [f"{s.service_ip}/{128 if ':' in s.service_ip else 32}" for s in services]
            batch = firewall_batch(changed) or nft.replace_table(_TABLE, [])
            await run_builtin(runtime.agent, Builtin.FIREWALL, *addresses, stdin=batch, what="the pod's services")
        self._registry.put_pod(changed)
        return services

    async def add(self, key: str, services: list[Service]) -> list[Service]:
        """:raise Conflict: when one exists already."""
        have = self.of(key)
        for s in services:
            if any(_key(s) == _key(h) for h in have):
                raise Conflict(
                    f"service {s.service_ip}:{s.service_port}/{s.protocol} exists already", hint="replace or remove it"
                )
        return await self.replace(key, [*have, *services])

    async def remove(self, key: str, address: str, port: int, protocol: str) -> list[Service]:
        """:raise NotFound: no such service."""
        have = self.of(key)
        left = [s for s in have if (s.service_ip, s.service_port, s.protocol) != (address, port, protocol)]
        if len(left) == len(have):
            raise NotFound(f"the pod has no service {address}:{port}/{protocol}", hint="see `hyperctl service ls`")
        return await self.replace(key, left)
