# SPDX-License-Identifier: Apache-2.0
"""Networks that CNI plugins make (`network/cni.py`): a network namespace for each pod, with a tap in it."""

from __future__ import annotations

import contextlib
import os
from collections.abc import Sequence
from pathlib import Path

import msgspec

from ...errors import Unsupported
from ...model.network import CNI, CniState
from ...model.specs import PortMapping
from ...model.status import Pod
from .. import cni
from ..backend import ForwardingOf, Link, Nic, NicKind, Records
from ..idle import IdleNic
from ..usermode import check_ipv4


class Cni:
    """What the plugins made is in the pod's record from before they begin until they have taken it back."""

    name = "cni"
    kind = NicKind.TAP
    released_by_record = True

    def __init__(self, records: Records, directory: Path = cni.CONFIG) -> None:
        """The networks are described in `directory`."""
        self._records = records
        self._directory = directory

    def links(self, pod: Pod) -> list[Link]:
        state = pod.cni
        if state is None or not state.mac:
            return [Link(self.kind, plugs=True)]
        four = next((g for g in state.gateways if ":" not in g), "")
        six = next((g for g in state.gateways if ":" in g), "")
        gateways = tuple(filter(None, (four, six)))
        return [Link(self.kind, tuple(state.addresses), gateways, state.mtu, state.mac, plugs=True)]

    def name_servers(self, pod: Pod) -> list[str]:
        return pod.cni.dns if pod.cni else []

    def check(self, pod: Pod, ports: Sequence[PortMapping]) -> None:
        check_ipv4(ports)
        if pod.attachments:
            raise Unsupported(
                f"a pod in the network {pod.spec.network} is in no other one", hint="use networks of this host alone"
            )

    async def prepare(self, pod: Pod) -> None:
        network = pod.spec.network.removeprefix(CNI)
        cni.find_network(network, self._directory)
        self._put(pod.id, CniState(network=network, namespace=cni.namespace_of(pod.id), mac=""))
        self._put(pod.id, await cni.attach(network, pod.id, pod.ports, self._directory, _args(pod)))

    async def open(
        self, pod: Pod, links: Sequence[Link], ports: Sequence[PortMapping], stack: contextlib.ExitStack
    ) -> list[Nic]:
        assert pod.cni
        fd = await cni.open_tap(pod.cni.namespace)
        stack.callback(os.close, fd)
        return [Nic(self.kind, pod.cni.mac, fd)]

    async def attach(self, pod: Pod, link: Link, ports: Sequence[PortMapping], idle: IdleNic) -> None:
        assert pod.cni
        await cni.move_tap(idle.tap, pod.cni.namespace)

    async def publish(self, pod: Pod, ports: Sequence[PortMapping], forwarding: ForwardingOf) -> None:
        raise _only_at_its_start(pod)

    async def unpublish(self, pod: Pod, ports: Sequence[PortMapping], forwarding: ForwardingOf) -> None:
        raise _only_at_its_start(pod)

    async def release(self, pod_id: str) -> None:
        pod = self._records.pod(pod_id) if self._records.has_pod(pod_id) else None
        if pod and pod.cni:
            await cni.detach(pod.cni, pod.id, pod.ports, self._directory, _args(pod))
            self._put(pod.id, None)

    def _put(self, pod_id: str, state: CniState | None) -> None:
        self._records.put_pod(msgspec.structs.replace(self._records.pod(pod_id), cni=state))


def _args(pod: Pod) -> dict[str, str]:
    """With the id of what Kubernetes' plugins take for the pod's first container."""
    told = pod.spec.cni_args
    return {**told, "K8S_POD_INFRA_CONTAINER_ID": pod.id} if told else {}


def _only_at_its_start(pod: Pod) -> Unsupported:
    return Unsupported(f"{pod.name} runs, and CNI plugins publish ports only when it starts", hint="stop it first")
