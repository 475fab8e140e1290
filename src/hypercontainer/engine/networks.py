# SPDX-License-Identifier: Apache-2.0
"""Networks of this host, and the pods in them."""

from __future__ import annotations

import contextlib
from collections.abc import Sequence
from dataclasses import dataclass, replace
from ipaddress import IPv6Network
from typing import Any

import msgspec

from ..errors import Conflict, HyperError, InvalidArgument, InvalidState, NotFound, Unavailable, Unsupported
from ..model import ids
from ..model.filters import Filters, before_until, has_labels
from ..model.network import (
    CNI,
    DEFAULT_NETWORK,
    USER_MODE_OPEN,
    USER_MODES,
    Attachment,
    Network,
    NetworkInfo,
    NetworkRequest,
    NetworkSpec,
)
from ..model.pods import PodSpec
from ..model.quotas import Amounts
from ..model.rates import UNBOUNDED, RateBounds
from ..model.specs import HOST_GATEWAY, PortMapping
from ..model.status import Pod, Pruned
from ..model.thing_filters import select_networks
from ..network import addresses, links, tap
from ..network.backend import NicKind, Shared, numbered
from ..network.names import is_called
from ..sys import clock, tasks
from . import host_access, naming
from .events import Events
from .pod_network import PodNetwork, set_interface
from .principal import current, owned
from .registry import Registry
from .runtime import Runtime, record

_RESERVED = (*USER_MODES, "none", "host", "default")


@dataclass(frozen=True)
class NetworkSettings:
    """The daemon's own network, and what a pod gets that names none."""

    default: str = "user"
    bridge: str = "hyper0"
    subnet: str = "192.168.123.0/24"
    subnet6: str = "fd7c:9a1e:6b0d::/64"
    user_network: str = "auto"  # passt where it is installed, or slirp
    rates: RateBounds = UNBOUNDED


class Networks:
    """Create, list, remove; bring pods in and out."""

    def __init__(self, registry: Registry, settings: NetworkSettings, events: Events, pods: PodNetwork) -> None:
        self._registry = registry
        self._settings = settings
        self._events = events
        self._pods = pods
        self._planned: dict[str, list[Attachment]] = {}  # places of pods that are being made, by their ids
        self._joining: list[Attachment] = []  # places of pods that are there, and come into a network

    # -- networks -------------------------------------------------------------------

    async def create(self, spec: NetworkSpec) -> Network:
        """A network with a bridge of its own.

        :raise Conflict: the name or the subnet is taken. :raise InvalidArgument: malformed.
        :raise PermissionDenied: who asks may not choose a subnet, which this host routes.
        """
        if spec.name in _RESERVED or spec.name.startswith(CNI):
            raise InvalidArgument(f"the network name {spec.name!r} has a meaning of its own", hint="choose another")
        self._registry.check_network_name(spec.name)
        host_access.check_network(spec.subnets)
        id_ = ids.new_id()
        with self._registry.quotas.admitted({id_: Amounts(networks=1)}):
            return await self._create(spec, id_)

    async def _create(self, spec: NetworkSpec, id_: str) -> Network:
        routes = await links.routed_subnets()
        self._registry.check_network_name(spec.name)  # from here to the record nobody else makes one
        network = self._plan(spec, id_, routes)
        self._registry.put_network(network)
        self._events.publish("network", "create", network.id, name=network.name)
        return network

    def _plan(self, spec: NetworkSpec, id_: str, routes: list[tuple[str, addresses.AnyNetwork]]) -> Network:
        """One of who asks, whose subnets no other network and no route has."""
        prefix6 = IPv6Network(self._settings.subnet6).supernet(new_prefix=48)
        others = [*self._registry.networks(), self._default_record()]
        made = addresses.plan(spec, id_, clock.stamp(), others, routes, prefix6)
        return msgspec.structs.replace(made, **owned())

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
        if key == DEFAULT_NETWORK and not naming.find(self._registry.networks(seen=True), key):
            self._registry.put_network(self._own_default() if current().tenant else self._default_record())
        return self._registry.network(key)

    def _own_default(self) -> Network:
        """A project's, for pods that name none: those of others are not in it."""
        try:
            routes = links.routes_now()
        except (OSError, ValueError) as error:
            raise Unavailable(f"the routes of this host cannot be read: {error}") from error
        return self._plan(NetworkSpec(name=DEFAULT_NETWORK), ids.new_id(), routes)

    def info(self, network: Network) -> NetworkInfo:
        """A network with the pods in it and their addresses, for the API."""
        pods = {
            p.name: [x for a in p.attachments if a.is_of(network) for x in (a.ip, a.ip6) if x]
            for p in self._registry.attached(network)
        }
        return NetworkInfo(network=network, pods=pods)

    def all(self, filters: Filters | None = None) -> list[NetworkInfo]:
        """All networks that the filters let through, as `info`.

        :raise InvalidArgument: a filter's value is none.
        """
        return select_networks([self.info(n) for n in self._registry.networks(seen=True)], filters or {})

    async def remove(self, key: str) -> Network:
        """:raise Conflict: when pods are in it."""
        network = self._registry.network(key)
        users = [p.name for p in self._registry.attached(network)]
        users += self._registry.keeps(network.id)
        users += ["a pod that is being made"] if self._awaited(network) else []
        if users:
            raise Conflict(
                f"network {network.name} is in use by {', '.join(users)}", hint="remove or disconnect them first"
            )
        self._registry.remove_network(network.id)
        await self._pods.choice.remove(network)
        self._events.publish("network", "destroy", network.id, name=network.name)
        return network

    async def prune(self, filters: Filters | None = None) -> Pruned:
        """Remove the networks that no pod is in, but for the daemon's own; gives their names.

        :raise InvalidArgument: a filter's value is none.
        """
        wanted = [
            n for n in self._registry.networks(seen=True)
            if n.name != DEFAULT_NETWORK
            and before_until(n.created_at, filters or {}) and has_labels(n.labels, filters or {})
        ]  # fmt: skip
        removed = []
        for n in wanted:
            with contextlib.suppress(Conflict, NotFound):  # somebody uses it, or has removed it by now
                removed.append((await self.remove(n.id)).name)
        self._events.pruned("network", 0)
        return Pruned(removed=removed)

    def nic_kind(self, network: str) -> str:
        """How a machine has a NIC in this network, or `none`.

        :raise NotFound: no such network.
        """
        backend = self._pods.choice.named(network)
        if backend and backend.kind is NicKind.TAP:
            self.find(network)
        return str(backend.kind) if backend else "none"

    # -- pods -----------------------------------------------------------------------

    def plan(
        self, pod_id: str, spec: PodSpec, aliases: list[str], names: Sequence[str], replica_of: str = ""
    ) -> tuple[PodSpec, list[Attachment]]:
        """The specification with its network named, and the pod's NICs. `names` are its own, beside its aliases;
        `replica_of` is a deployment's id.

        :raise NotFound: no such network. :raise Conflict: an address, or a name, is taken.
        """
        mode = spec.network or ("" if spec.networks or spec.interfaces else self._settings.default)
        requests = list(spec.networks)
        if isinstance(self._pods.choice.named(mode), Shared):
            requests.insert(0, NetworkRequest(name=mode))
        named = msgspec.structs.replace(spec, network=mode or requests[0].name if requests or mode else "none")
        found: list[Attachment] = []
        for request in requests:
            found.append(self._attachment(pod_id, request, len(found), found, aliases))
            check_names(self._registry, found[-1], names, replica_of)
        pod = Pod(
            id=pod_id, name="", created_at="", hostname="", vcpus=0, memory=0, spec=named, attachments=found
        )  # as far as it is known
        self._pods.check(pod)
        if any(h.ip == HOST_GATEWAY for h in spec.hosts) and all(link.walled for link in self._pods.links(pod)):
            raise InvalidArgument(f"{HOST_GATEWAY}: the pod does not reach this host by its network {named.network!r}",
                                  hint=f"use --network {USER_MODE_OPEN}, or a network of this host")  # fmt: skip
        self._planned[pod_id] = found
        return named, found

    def _attachment(
        self, pod_id: str, request: NetworkRequest, index: int, mine: list[Attachment], aliases: list[str]
    ) -> Attachment:
        network = self.find(request.name)
        if any(a.is_of(network) for a in mine):
            raise Conflict(f"the pod is in network {network.name} already", hint="name it once")
        others = self._taken(network)
        if request.mac and request.mac in {a.mac for a in others}:
            raise Conflict(f"MAC address {request.mac} of network {network.name} is taken", hint="choose another")
        used = {x for a in others for x in (a.ip, a.ip6)} | self._balanced(network)
        ip, ip6 = addresses.allocate(network, used, request.ip, request.ip6)
        return Attachment(
            network=network.name,
            network_id=network.id,
            interface=f"eth{index}",
            tap=tap.name_of(pod_id, index),
            mac=request.mac or addresses.mac_of(ip),
            ip=ip,
            ip6=ip6,
            aliases=[*request.aliases, *aliases],
        )

    def named(self, network: Network, name: str) -> str:
        """The pod that is found by a name there; "" is none."""
        for pod in self._registry.attached(network):
            if any(a.is_of(network) and is_called(pod, a, name.lower()) for a in pod.attachments):
                return pod.name
        return ""

    def _balanced(self, network: Network) -> set[str]:
        return {b.address for b in self._registry.balanced() if b.network == network.id}

    def port_user(self, port: PortMapping) -> str:
        """Words for who has a port of the host; "" for nobody."""
        return self._pods.port_user(port)

    def free_address(self, network: Network) -> str:
        """An IPv4 address that nobody has. :raise Conflict: none is left."""
        used = {a.ip for a in self._taken(network)} | self._balanced(network)
        return addresses.allocate(network, used, "", "")[0]

    def _taken(self, network: Network) -> list[Attachment]:
        """All places in it, also those of pods of which no record tells yet."""
        recorded = [a for p in self._registry.attached(network) for a in p.attachments if a.is_of(network)]
        return recorded + self._awaited(network)

    def _awaited(self, network: Network) -> list[Attachment]:
        """Places in it of pods of which no record tells yet, and of those that join it."""
        quotas, has_pod = self._registry.quotas, self._registry.has_pod
        self._planned = {id_: p for id_, p in self._planned.items() if quotas.holds(id_) and not has_pod(id_)}
        planned = (a for places in self._planned.values() for a in places)
        return [a for a in (*planned, *self._joining) if a.is_of(network)]

    async def open(self) -> None:
        await self._pods.choice.start()

    async def close(self) -> None:
        await self._pods.choice.stop()

    # -- while it runs ------------------------------------------------------------------

    async def connect(self, key: str, request: NetworkRequest, runtime: Runtime | None) -> Pod:
        """Bring a pod into a network, at once when it runs.

        :raise Unsupported: when its machine has no spare NIC.
        """
        pod = await self._connect(key, request, runtime)
        self._tell("connect", pod, request.name)
        return pod

    async def _connect(self, key: str, request: NetworkRequest, runtime: Runtime | None) -> Pod:
        pod = self._registry.pod(key)
        made = self._attachment(pod.id, request, len(pod.attachments), pod.attachments, [])
        check_names(self._registry, made, (pod.name, pod.hostname))
        self._joining.append(made)
        try:
            return await self._join(pod, made, runtime)
        finally:
            self._joining.remove(made)

    async def _join(self, pod: Pod, made: Attachment, runtime: Runtime | None) -> Pod:
        if runtime is None:
            pod = msgspec.structs.replace(pod, attachments=[*pod.attachments, made])
            self._pods.check(pod)
            return self._put(pod)
        shared, spare = self._pods.shared(pod), _spare(pod, runtime)
        if shared is None:
            raise Unsupported(
                f"{pod.name} is running, and its network ({pod.spec.network}) is none of this host: it joins no other",
                hint="stop it first, or run it with --network bridge",
            )
        spare = spare or await self._pods.add_spare(pod, runtime)
        if spare is None:
            raise Unsupported(
                f"{pod.name} is running, and its virtual machine has no spare network interface",
                hint="stop it first, or disconnect it from another network",
            )
        made = msgspec.structs.replace(made, tap=spare, interface=f"eth{tap.number_of(pod.id, spare)}")
        pod = self._put(record(self._registry.pod(pod.id), runtime), attachments=[*pod.attachments, made])
        try:
            await self._pods.join(pod, made, runtime.machine, spare=spare in runtime.spares)
            told = next(i for i in shared.told(pod) if i.name == made.interface)
            await set_interface(runtime, told, undo=True)
        except BaseException:
            with contextlib.suppress(HyperError):
                await tasks.to_the_end(self._take_out(shared, pod.id, made, runtime))
            raise
        return pod

    async def _take_out(self, shared: Shared, pod_id: str, gone: Attachment, runtime: Runtime) -> Pod:
        """A running pod's NIC leaves its network; only then the record and the rules, which guard it, forget it."""
        pod = self._registry.pod(pod_id)
        await self._pods.leave(pod, gone, runtime.machine, spare=gone.tap in runtime.spares)
        pod = self._registry.pod(pod_id)
        pod = self._put(pod, attachments=[a for a in pod.attachments if a.tap != gone.tap])
        await shared.refresh()
        return pod

    async def disconnect(self, key: str, name: str, runtime: Runtime | None) -> Pod:
        """:raise InvalidState: when it is not in it."""
        pod = await self._disconnect(key, name, runtime)
        self._tell("disconnect", pod, name)
        return pod

    def _tell(self, action: str, pod: Pod, name: str) -> None:
        network = self._registry.network(name)
        for container in self._registry.members(pod.id):
            self._events.publish(
                "network", action, network.id, of=network.labels, name=network.name, container=container.id
            )

    async def _disconnect(self, key: str, name: str, runtime: Runtime | None) -> Pod:
        pod = self._registry.pod(key)
        network = self._registry.network(name)
        gone = next((a for a in pod.attachments if a.is_of(network)), None)
        if gone is None:
            raise InvalidState(f"{pod.name} is not in network {network.name}", hint="see `hyperctl network inspect`")
        left = [a for a in pod.attachments if a is not gone]
        if runtime is None:
            return self._put(pod, attachments=numbered(pod.id, left))
        shared = self._pods.shared(pod)
        assert shared  # it is in a network
        before = {i.name: i for i in shared.told(pod)}
        told = before[gone.interface]
        await runtime.agent.set_interface(replace(told, down=True), undo=True)
        try:
            for interface in shared.told(msgspec.structs.replace(pod, attachments=left)):
                if interface != before[interface.name]:  # the default route is this one's now
                    await runtime.agent.set_interface(interface)
            return await tasks.to_the_end(self._take_out(shared, pod.id, gone, runtime))
        except BaseException:
            if gone in self._registry.pod(pod.id).attachments:  # it has not left
                with contextlib.suppress(HyperError):
                    await tasks.to_the_end(runtime.agent.set_interface(told))
            raise

    def _put(self, pod: Pod, **changes: Any) -> Pod:
        changed = msgspec.structs.replace(pod, **changes)
        self._registry.put_pod(changed)
        return changed


def _spare(pod: Pod, runtime: Runtime) -> str | None:
    """A tap of the running pod that is in no network, and may join one."""
    taken = {a.tap for a in pod.attachments}
    return next((t for t in runtime.nics if t not in taken and tap.number_of(pod.id, t) is not None), None)


def check_names(registry: Registry, place: Attachment, names: Sequence[str], replica_of: str = "") -> None:
    """Whether a pod may have these, and its aliases: its own deployment's name leads to that alone, whatever the host
    name of its replicas. :raise Conflict: one of them is another deployment's.
    """
    known = {name.lower() for name in (*names, *place.aliases)}
    others = (b for b in registry.balanced() if b.network == place.network_id and b.id != replica_of)
    if taken := [b.name for b in others if b.name.lower() in known]:
        raise Conflict(f"{taken[0]} is a deployment's name in network {place.network}", hint="choose another name")
