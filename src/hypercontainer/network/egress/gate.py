# SPDX-License-Identifier: Apache-2.0
"""Where the connections of pods with an egress policy end: a socket on each network's gateway, and the way on.

The host's rules redirect every TCP connection of such a pod there, whatever address it dialled, and drop the rest.
"""

from __future__ import annotations

import asyncio
import contextlib
import logging
import socket
import struct
from collections import defaultdict
from collections.abc import Callable, Iterable, Sequence
from dataclasses import dataclass, field
from functools import partial
from ipaddress import ip_network

from ...errors import Unavailable
from ...model.egress import EgressPolicy, canonical_name
from ...model.network import Network
from ...model.statistics import EgressStats
from ...model.status import Pod
from ..addresses import AnyNetwork
from ..backend import Records
from ..dns import Restricted
from ..passt import RunsAs, RunsAsOf
from . import authority, names, upstream
from .counts import Counts
from .dropped import Drop
from .messages import Intercepted
from .proxy import Asks, Proxy
from .refused import Refused
from .resolver import Resolver

log = logging.getLogger(__name__)
_ORIGINAL_DESTINATION = 80  # SO_ORIGINAL_DST of linux/netfilter_ipv4.h
_WAITING = 256  # connections that the kernel holds
_AT_ONCE = 32  # connections that are taken before others of the daemon have their turn
_PAUSE = 1.0  # seconds, when there are no descriptors


@dataclass(frozen=True)
class EgressSettings:
    """What the daemon says about egress by name."""

    opened: Sequence[AnyNetwork] = ()  # networks, not public ones, in which hosts of policies may lie
    refused: Callable[[Pod, Refused], None] = lambda _, __: None  # it is told of what a pod may not
    runs_as: RunsAsOf = field(default=lambda _, __: RunsAs())
    secret: Callable[[str, str], bytes] = lambda _, __: b""  # of a pod by its id, and a name


class Gate:
    """The socket of one network."""

    def __init__(self, take: Callable[[socket.socket, str], None]) -> None:
        """`take` gets a connection, which is its to close, and the address that it is from."""
        self._take = take
        self._sock: socket.socket | None = None
        self._resumes: asyncio.TimerHandle | None = None
        self.port = 0

    def open(self, address: str) -> None:
        """Listen there, on a port that is free. :raise OSError: it cannot."""
        sock = socket.socket(socket.AF_INET, socket.SOCK_STREAM)
        try:
            sock.setblocking(False)
            sock.bind((address, 0))
            sock.listen(_WAITING)
        except BaseException:
            sock.close()
            raise
        self._sock, self.port = sock, sock.getsockname()[1]
        asyncio.get_running_loop().add_reader(sock, self._accept)

    def _accept(self) -> None:
        assert self._sock
        try:
            for _ in range(_AT_ONCE):
                sock, (address, _) = self._sock.accept()
                sock.setblocking(False)
                self._take(sock, address)
        except (BlockingIOError, ConnectionError):
            pass
        except OSError as error:
            log.warning("no connection of a pod can be taken for now: %s", error)
            loop = asyncio.get_running_loop()
            loop.remove_reader(self._sock)
            self._resumes = loop.call_later(_PAUSE, loop.add_reader, self._sock, self._accept)

    def close(self) -> None:
        """Idempotent."""
        if self._resumes:
            self._resumes.cancel()
        if self._sock:
            asyncio.get_running_loop().remove_reader(self._sock)
            self._sock.close()
            self._sock = None


class Gates:
    """Those of one daemon, and the proxies of its pods."""

    def __init__(self, records: Records, is_up: Callable[[str], bool], settings: EgressSettings) -> None:
        """`is_up` says of a pod's id whether its addresses are in the rules."""
        self._records = records
        self._is_up = is_up
        self._settings = settings
        self._resolver = Resolver()
        self._gates: dict[str, Gate] = {}
        self._proxies: dict[str, Proxy] = {}
        self._counts = defaultdict[str, Counts](Counts)  # by the pods' ids

    def ensure(self, network: Network) -> None:
        """A network's gate, if it leads anywhere. Idempotent. :raise Unavailable: it cannot listen."""
        if network.internal or network.id in self._gates:
            return
        gate = Gate(partial(self._take, network))
        try:
            gate.open(network.gateway)
        except OSError as error:
            raise Unavailable(f"the egress proxy of network {network.name} cannot listen: {error}") from error
        self._gates[network.id] = gate

    def port(self, network: str) -> int:
        """Where that of a network, by its id, listens on the gateway; 0 where there is none."""
        return self._gates[network].port if network in self._gates else 0

    def remove(self, network: str) -> None:
        """Idempotent."""
        if gate := self._gates.pop(network, None):
            gate.close()

    def follow(self, pod_id: str) -> None:
        """Connections that a pod's policy does not allow any more are ended. Idempotent."""
        policy = self._policy(pod_id)
        if policy and (proxy := self._proxies.get(pod_id)):
            proxy.end(lambda host, port: not policy.allows(host, port))

    def _policy(self, pod_id: str) -> EgressPolicy | None:
        return self._records.pod(pod_id).spec.egress if self._records.has_pod(pod_id) else None

    async def forget(self, pod_id: str) -> None:
        """A pod's proxy has ended, and so have its connections. Idempotent."""
        try:
            if proxy := self._proxies.pop(pod_id, None):
                await proxy.close()
        finally:
            self._counts.pop(pod_id, None)

    async def close(self) -> None:
        """All of it; the rules that lead here stay, and then lead nowhere."""
        for network in list(self._gates):
            self.remove(network)
        for pod_id in list(self._proxies):
            await self.forget(pod_id)

    # -- what they did ------------------------------------------------------------------

    def stats(self, pod_id: str) -> EgressStats:
        return self._counts[pod_id].stats()

    def dropped_from(self, address: str, packets: int) -> None:
        """Further packets of an address that the rules have dropped."""
        if found := self._pod_at(address):
            self._counts[found[0].id].refused_packets += packets

    def dropped(self, drop: Drop) -> None:
        """What some of them were."""
        if found := self._pod_at(drop.source):
            why = f"it is {drop.protocol.upper()}, and neither TLS nor HTTP"
            if drop.protocol == "tcp":
                why = "its address is none that a pod may reach"
            self._settings.refused(found[0], Refused(why, drop.destination, drop.port))

    def _pod_at(self, address: str) -> tuple[Pod, EgressPolicy] | None:
        return self._restricted(self._records.pods_at(address))

    # -- whose it is --------------------------------------------------------------------

    def _pod(self, network: Network, address: str) -> tuple[Pod, EgressPolicy] | None:
        """Who has an address in a network and a policy; the rules let no other pod use that address."""
        there = self._records.pods_at(address)
        own = [p for p in there if any(a.is_of(network) and address in (a.ip, a.ip6) for a in p.attachments)]
        return self._restricted(own)

    def _restricted(self, pods: Iterable[Pod]) -> tuple[Pod, EgressPolicy] | None:
        found = (p for p in pods if p.spec.egress and self._is_up(p.id))
        return next(((p, p.spec.egress) for p in found if p.spec.egress), None)

    def restricted(self, network: Network, address: str) -> Restricted | None:
        """What answers the questions for names of a pod with a policy; None for other clients."""
        if not (found := self._pod(network, address)):
            return None
        pod, policy = found
        known = EgressPolicy() if network.internal else policy
        return lambda question: names.answer(
            question, known, partial(self._resolver.addresses, version=4),
            lambda name: self._refused(pod.id, Refused("its name is none that the pod may know", name, 53)),
        )  # fmt: skip

    def _take(self, network: Network, sock: socket.socket, address: str) -> None:
        if not (found := self._pod(network, address)):
            return _reset(sock)
        pod, policy = found
        try:
            dialled, port = _destination(sock)
            if port not in policy.ports():
                raise Refused("the pod may speak to no host by this port", dialled, port)
            self._proxy(pod).take(sock, port)
        except OSError:
            _reset(sock)
        except Refused as refused:
            _reset(sock)
            self._refused(pod.id, refused)

    def _proxy(self, pod: Pod) -> Proxy:
        if pod.id not in self._proxies:
            asks = Asks(
                partial(self._open, pod.id), partial(self._refused, pod.id),
                lambda: self._settings.runs_as(pod.id, True), partial(self._intercepted, pod.id),
                lambda received, sent: self._counts[pod.id].moved(received, sent),
            )  # fmt: skip
            self._proxies[pod.id] = Proxy(pod.name, asks)
        return self._proxies[pod.id]

    def _intercepted(self, pod_id: str) -> list[Intercepted]:
        """What the pod's proxy needs for hosts that its secrets go to."""
        policy = self._policy(pod_id)
        if not policy or not policy.secrets:
            return []
        return authority.intercepted(policy, partial(self._settings.secret, pod_id))

    def _refused(self, pod_id: str, refused: Refused) -> None:
        if self._records.has_pod(pod_id):
            self._counts[pod_id].refused += 1
            self._settings.refused(self._records.pod(pod_id), refused)

    # -- the way on ---------------------------------------------------------------------

    async def _open(self, pod_id: str, host: str, port: int) -> socket.socket:
        """A connection to a host, by the policy as it is now. :raise Refused: there is none."""
        self._check(pod_id, host, port)
        found: list[str] = []
        for version in (4, 6):
            with contextlib.suppress(TimeoutError):
                found += await self._resolver.addresses(host, version)
        if not found:
            raise Refused("it has no address", host, port)
        own = [ip_network(s) for n in self._records.networks() for s in (n.subnet, n.subnet6) if s]
        troubles = {address: upstream.trouble(address, self._settings.opened, own) for address in found}
        fine = [address for address, trouble in troubles.items() if not trouble]
        if not fine:
            raise Refused(next(iter(troubles.values())), host, port)
        sock = await upstream.connect(fine, port)
        try:
            self._check(pod_id, host, port)  # it may have another policy by now
        except Refused:
            sock.close()
            raise
        self._counts[pod_id].connections += 1
        return sock

    def _check(self, pod_id: str, host: str, port: int) -> None:
        policy = self._policy(pod_id)
        if not policy or canonical_name(host) != host or not policy.allows(host, port):
            raise Refused("it is none of the hosts that the pod may reach", host, port)


def _destination(sock: socket.socket) -> tuple[str, int]:
    """What was dialled, before the rules redirected it."""
    _, port, address = struct.unpack("!HH4s8x", sock.getsockopt(socket.SOL_IP, _ORIGINAL_DESTINATION, 16))
    return socket.inet_ntoa(address), port


def _reset(sock: socket.socket) -> None:
    """So that who dialled knows at once."""
    with contextlib.suppress(OSError):
        sock.setsockopt(socket.SOL_SOCKET, socket.SO_LINGER, struct.pack("ii", 1, 0))
    sock.close()
