# SPDX-License-Identifier: Apache-2.0
"""Networks of this host, and the pods in them."""

from __future__ import annotations

import contextlib
from dataclasses import dataclass
from ipaddress import IPv6Network, ip_network
from pathlib import Path
from typing import Any

import msgspec

from ..errors import Conflict, HyperError, InvalidArgument, InvalidState, Unsupported
from ..model import ids
from ..model.network import (
    DEFAULT_NETWORK,
    USER_MODE,
    USER_MODE_OPEN,
    USER_MODES,
    Attachment,
    Network,
    NetworkInfo,
    NetworkRequest,
    NetworkSpec,
)
from ..model.pods import InterfaceSpec, PodSpec
from ..model.specs import HOST_GATEWAY
from ..model.status import Pod, Pruned
from ..network import addresses, cni, links, passt, tap
from ..protocol.messages import Interface
from ..sys import clock, tasks
from .events import Events
from .host_network import HostNetwork
from .host_ports import HostPorts, check_addresses
from .principal import owned
from .registry import Registry
from .runtime import Runtime

CNI = "cni:"  # before the name of a network that CNI plugins make
_TAP = "ht"  # of our taps' names: this, ten digits of the pod's id, and a number
_SPARES = 1
_RESERVED = (*USER_MODES, "none", "host", "default")


@dataclass(frozen=True)
class NetworkSettings:
    """The daemon's own network, and what a pod gets that names none."""

    default: str = "user"
    bridge: str = "hyper0"
    subnet: str = "192.168.123.0/24"
    subnet6: str = "fd7c:9a1e:6b0d::/64"
    user_network: str = "auto"  # passt where it is installed, or slirp


class Networks:
    """Create, list, remove; bring pods in and out."""

    def __init__(self, registry: Registry, settings: NetworkSettings, events: Events, run: Path) -> None:
        self._registry = registry
        self._settings = settings
        self._events = events
        self._host = HostNetwork(registry, run)
        self.ports = HostPorts(registry)

    @property
    def uses_passt(self) -> bool:
        """For pods of the user-mode network; without an interface it would not start, and slirp does."""
        wanted = self._settings.user_network
        return wanted == "passt" or (wanted == "auto" and passt.find_passt() is not None and links.way_out() != "")

    # -- networks -------------------------------------------------------------------

    async def create(self, spec: NetworkSpec) -> Network:
        """:raise Conflict: the name or the subnet is taken. :raise InvalidArgument: malformed."""
        if spec.name in _RESERVED or spec.name.startswith(CNI):
            raise InvalidArgument(f"the network name {spec.name!r} has a meaning of its own", hint="choose another")
        self._registry.check_network_name(spec.name)
        prefix6 = IPv6Network(self._settings.subnet6).supernet(new_prefix=48)
        others = [*self._registry.networks(), self._default_record()]
        network = addresses.plan(spec, ids.new_id(), clock.stamp(), others, await links.routed_subnets(), prefix6)
        network = msgspec.structs.replace(network, **owned())
        self._registry.put_network(network)
        self._events.publish("network", "create", network.id, name=network.name)
        return network

    def _default_record(self) -> Network:
        s = self._settings
        spec = NetworkSpec(
            name=DEFAULT_NETWORK, subnets=[s.subnet, *([s.subnet6] if s.subnet6 and links.has_ipv6() else [])]
        )
        made = addresses.plan(spec, "0" * 32, clock.stamp(), [], [], IPv6Network("fd00::/48"))
        return msgspec.structs.replace(made, bridge=s.bridge)

    def find(self, key: str) -> Network:
        """The daemon's own is made when it is first asked for.

        :raise NotFound: no such network.
        """
        if key == DEFAULT_NETWORK and not any(n.name == key for n in self._registry.networks()):
            self._registry.put_network(self._default_record())
        return self._registry.network(key)

    def info(self, network: Network) -> NetworkInfo:
        pods = {
            p.name: [x for a in p.attachments if a.network == network.name for x in (a.ip, a.ip6) if x]
            for p in self._registry.attached(network.name)
        }
        return NetworkInfo(network=network, pods=pods)

    def all(self) -> list[NetworkInfo]:
        return [self.info(n) for n in self._registry.networks()]

    async def remove(self, key: str) -> Network:
        """:raise Conflict: when pods are in it."""
        network = self._registry.network(key)
        users = [p.name for p in self._registry.attached(network.name)]
        if users:
            raise Conflict(
                f"network {network.name} is in use by {', '.join(users)}", hint="remove or disconnect them first"
            )
        self._registry.remove_network(network.id)
        await self._host.remove(network)
        self._events.publish("network", "destroy", network.id, name=network.name)
        return network

    async def prune(self) -> Pruned:
        unused = [n for n in self._registry.networks() if not self._registry.attached(n.name)]
        return Pruned(removed=[(await self.remove(n.id)).name for n in unused])

    # -- pods -----------------------------------------------------------------------

    def plan(self, pod_id: str, spec: PodSpec, aliases: list[str]) -> tuple[PodSpec, list[Attachment]]:
        """The specification with its network named, and the pod's NICs.

        :raise NotFound: no such network. :raise Conflict: an address is taken.
        """
        mode = spec.network or ("" if spec.networks or spec.interfaces else self._settings.default)
        requests = list(spec.networks)
        if mode and mode not in (*USER_MODES, "none") and not mode.startswith(CNI):
            requests.insert(0, NetworkRequest(name=mode))
        named = msgspec.structs.replace(spec, network=mode or requests[0].name if requests or mode else "none")
        found: list[Attachment] = []
        for request in requests:
            found.append(self._attachment(pod_id, request, len(found), found, aliases))
        check_addresses(spec.ports, found)
        if (
            any(h.ip == HOST_GATEWAY for h in spec.hosts)
            and not (found or spec.interfaces)
            and named.network in (USER_MODE, "none")
        ):
            raise InvalidArgument(f"{HOST_GATEWAY}: the pod does not reach this host by its network {named.network!r}",
                                  hint=f"use --network {USER_MODE_OPEN}, or a network of this host")  # fmt: skip
        return named, found

    def _attachment(
        self, pod_id: str, request: NetworkRequest, index: int, mine: list[Attachment], aliases: list[str]
    ) -> Attachment:
        network = self.find(request.name)
        if any(a.network == network.name for a in mine):
            raise Conflict(f"the pod is in network {network.name} already", hint="name it once")
        others = [a for p in self._registry.attached(network.name) for a in p.attachments if a.network == network.name]
        if request.mac and request.mac in {a.mac for a in others}:
            raise Conflict(f"MAC address {request.mac} of network {network.name} is taken", hint="choose another")
        used = {x for a in others for x in (a.ip, a.ip6)}
        ip, ip6 = addresses.allocate(network, used, request.ip, request.ip6)
        return Attachment(
            network=network.name,
            interface=f"eth{index}",
            tap=f"{_TAP}{pod_id[:10]}{index}",
            mac=request.mac or addresses.new_mac(),
            ip=ip,
            ip6=ip6,
            aliases=[*request.aliases, *aliases],
        )

    def nics(self, pod: Pod) -> list[InterfaceSpec]:
        """The pod's attachments as NICs; the first network with a way out has the default route."""
        if pod.cni:
            four = next((g for g in pod.cni.gateways if ":" not in g), "")
            six = next((g for g in pod.cni.gateways if ":" in g), "")
            return [
                InterfaceSpec(
                    namespace=pod.cni.namespace,
                    addresses=pod.cni.addresses,
                    gateway=four,
                    gateway6=six,
                    mac=pod.cni.mac,
                    mtu=pod.cni.mtu,
                )
            ]
        found: list[InterfaceSpec] = []
        routed = False
        for a in pod.attachments:
            network = self._registry.network(a.network)
            own = self._own_addresses(a)
            gateway = "" if routed or network.internal else network.gateway
            gateway6 = network.gateway6 if gateway and a.ip6 else ""
            routed = routed or bool(gateway)
            found.append(
                InterfaceSpec(
                    bridge=network.bridge,
                    addresses=own,
                    gateway=gateway,
                    gateway6=gateway6,
                    mac=a.mac,
                    mtu=network.mtu,
                    ifname=a.tap,
                )
            )
        return found

    def name_servers(self, pod: Pod) -> list[str]:
        return pod.cni.dns if pod.cni else [self._registry.network(a.network).gateway for a in pod.attachments]

    async def prepare(self, pod: Pod) -> None:
        """Before the pod's machine: the bridges, or what CNI's plugins make."""
        if pod.spec.network.startswith(CNI):
            self._put(pod, cni=await cni.attach(pod.spec.network.removeprefix(CNI), pod.id, pod.ports))
        await self._host.prepare(pod)

    async def bring_up(self, pod: Pod) -> None:
        """Before its containers: names and rules."""
        if pod.attachments:
            await self._host.add(pod)

    async def release(self, pod_id: str) -> None:
        """After it. Idempotent."""
        self.ports.release(pod_id)
        pod = self._registry.pod(pod_id) if self._registry.has_pod(pod_id) else None
        if pod and pod.cni:
            await cni.detach(pod.cni, pod.id, pod.ports)
            self._put(pod, cni=None)
        await self._host.drop(pod_id)

    async def refresh(self) -> None:
        """After a change of a running pod's ports."""
        await self._host.refresh()

    async def open(self) -> None:
        await self._host.open()

    async def close(self) -> None:
        await self._host.close()

    # -- while it runs ------------------------------------------------------------------

    def spares(self, pod: Pod) -> int:
        """NICs that a pod's machine gets for networks that it joins later: it takes none while it runs."""
        return _SPARES if pod.attachments and not pod.implicit else 0

    async def connect(self, key: str, request: NetworkRequest, runtime: Runtime | None) -> Pod:
        """Bring a pod into a network, at once when it runs.

        :raise Unsupported: when its machine has no spare NIC.
        """
        pod = self._registry.pod(key)
        made = self._attachment(pod.id, request, len(pod.attachments), pod.attachments, [])
        if runtime is None:
            return self._put(pod, attachments=[*pod.attachments, made])
        taken = {a.tap for a in pod.attachments}
        spare = next((t for t in runtime.nics if t not in taken), None)
        if spare is None:
            raise Unsupported(
                f"{pod.name} is running, and its virtual machine has no spare network interface", hint="stop it first"
            )
        if request.mac:
            raise Unsupported(
                f"{pod.name} is running, and its spare NIC has an address",
                hint="stop it first, or leave the address out",
            )
        index = list(runtime.nics).index(spare)
        made = msgspec.structs.replace(made, tap=spare, mac=runtime.nics[spare], interface=f"eth{index}")
        network = self._registry.network(made.network)
        pod = self._put(pod, attachments=[*pod.attachments, made])
        try:
            await self._host.prepare(pod)
            await self.bring_up(pod)
            await tap.join(spare, network.bridge, network.mtu)
            await runtime.agent.set_interface(
                Interface(made.interface, tuple(self._own_addresses(made)), (), network.mtu)
            )
        except BaseException:
            with contextlib.suppress(HyperError):
                await tasks.to_the_end(self._take_out(pod.id, made))
            raise
        return pod

    async def _take_out(self, pod_id: str, gone: Attachment) -> Pod:
        """A running pod's NIC leaves its bridge; only then the record and the rules, which guard it, forget it."""
        await tap.leave(gone.tap)
        pod = self._registry.pod(pod_id)
        pod = self._put(pod, attachments=[a for a in pod.attachments if a.tap != gone.tap])
        await self.refresh()
        return pod

    async def disconnect(self, key: str, name: str, runtime: Runtime | None) -> Pod:
        """:raise InvalidState: when it is not in it."""
        pod = self._registry.pod(key)
        network = self._registry.network(name)
        gone = next((a for a in pod.attachments if a.network == network.name), None)
        if gone is None:
            raise InvalidState(f"{pod.name} is not in network {network.name}", hint="see `hyperctl network inspect`")
        left = [a for a in pod.attachments if a is not gone]
        if runtime is None:
            renumbered = [
                msgspec.structs.replace(a, interface=f"eth{i}", tap=tap_name(pod, i)) for i, a in enumerate(left)
            ]
            return self._put(pod, attachments=renumbered)
        await runtime.agent.set_interface(Interface(gone.interface, tuple(self._own_addresses(gone)), down=True))
        return await tasks.to_the_end(self._take_out(pod.id, gone))

    def _own_addresses(self, a: Attachment) -> list[str]:
        network = self._registry.network(a.network)
        own = [f"{a.ip}/{ip_network(network.subnet).prefixlen}"]
        return own + ([f"{a.ip6}/{ip_network(network.subnet6).prefixlen}"] if a.ip6 else [])

    def _put(self, pod: Pod, **changes: Any) -> Pod:
        changed = msgspec.structs.replace(pod, **changes)
        self._registry.put_pod(changed)
        return changed


def tap_name(pod: Pod, index: int) -> str:
    return f"{_TAP}{pod.id[:10]}{index}"
