# SPDX-License-Identifier: Apache-2.0
"""What the host's rules are made from, of each pod and network: made once, as long as its record is the same.

There may be thousands, and each start of a pod asks for all.
"""

from __future__ import annotations

from collections.abc import Collection

from ..model.network import Attachment, Network
from ..model.rates import bounded
from ..model.status import Pod
from . import addresses
from .backend import Records
from .egress.gate import Gates
from .groups import Groups
from .network_rules import Bridge
from .ruleset import Nic, Redirect


class RuleParts:
    """Records are replaced and never changed, so one that is the same object is the same."""

    def __init__(self, records: Records, gates: Gates, groups: Groups, most: int) -> None:
        """`most` is what each NIC may send at most, in bits per second; 0: as much as it can."""
        self._records = records
        self._gates = gates
        self._groups = groups
        self._most = most
        self._nics: dict[str, tuple[Pod, tuple[Nic, ...], frozenset[str]]] = {}  # and ids of networks, by the pod's
        self._bridges: dict[str, tuple[Network, int, Bridge]] = {}  # with the port of its gate, by the network's id

    @property
    def used(self) -> frozenset[str]:
        """Ids of networks in which the pods are that were asked for."""
        return frozenset().union(*(networks for _, _, networks in self._nics.values()))

    def keep(self, pods: Collection[str]) -> None:
        """Forget what is not of these."""
        for id_ in self._nics.keys() - pods:
            del self._nics[id_]

    def nics(self, pod: Pod) -> tuple[Nic, ...]:
        """Those of an egress policy, or in a group, are made each time: they are of more than the pod's record."""
        known = self._nics.get(pod.id)
        if known and known[0] is pod and pod.spec.egress is None and not pod.spec.security_groups:
            return known[1]
        made = tuple(self._nic(pod, a) for a in pod.attachments)
        self._nics[pod.id] = (pod, made, frozenset(self._records.network_of(a).id for a in pod.attachments))
        return made

    def _nic(self, p: Pod, a: Attachment) -> Nic:
        return Nic(
            a.tap, a.mac, a.ip, a.ip6, addresses.link_local(a.mac), tuple(p.spec.allow),
            bounded(p.spec.egress_rate, self._most), self._redirect(p, a), self._groups.of_nic(p, a),
        )  # fmt: skip

    def _redirect(self, pod: Pod, attachment: Attachment) -> Redirect | None:
        if pod.spec.egress is None:
            return None
        network = self._records.network_of(attachment)
        return Redirect(network.gateway, self._gates.port(network.id))

    def bridge(self, network: Network) -> Bridge:
        """As its record is, and where its gate is now."""
        port, known = self._gates.port(network.id), self._bridges.get(network.id)
        if known and known[0] is network and known[1] == port:
            return known[2]
        subnets, gateways = (network.subnet, network.subnet6), (network.gateway, network.gateway6)
        made = Bridge(
            network.bridge, tuple(filter(None, subnets)), network.internal, tuple(filter(None, gateways)), port
        )
        self._bridges[network.id] = (network, port, made)
        return made

    def forget(self, network: Network) -> None:
        """It is gone."""
        self._bridges.pop(network.id, None)
