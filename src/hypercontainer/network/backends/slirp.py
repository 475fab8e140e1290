# SPDX-License-Identifier: Apache-2.0
"""The user-mode network by the hypervisor itself (slirp): no privileges, and nothing on this host."""

from __future__ import annotations

import contextlib
from collections.abc import Sequence

from ...errors import HyperError
from ...model.network import USER_MODE_OPEN
from ...model.specs import PortMapping
from ...model.status import Pod
from ...sys import tasks
from ..backend import ForwardingOf, Link, Nic, NicKind
from ..fence import Fence
from ..idle import IdleNic
from ..usermode import ADDRESS, GATEWAY, NAMESERVER, check_ipv4, mac_of


def is_open(pod: Pod) -> bool:
    """Whether the pod asks for this host's loopback."""
    return pod.spec.network == USER_MODE_OPEN


class Slirp:
    """Every pod is alone in a network of its own."""

    name = "user"
    program = "slirp"  # as the record of a pod that runs names it
    kind = NicKind.USER
    released_by_record = False

    def __init__(self, fence: Fence) -> None:
        self._fence = fence

    def links(self, pod: Pod) -> list[Link]:
        # One that may reach the host's loopback is another user, which a machine that waits cannot become.
        return [Link(self.kind, (ADDRESS,), (GATEWAY,), walled=not is_open(pod), plugs=not is_open(pod))]

    def name_servers(self, pod: Pod) -> list[str]:
        return [NAMESERVER]

    def check(self, pod: Pod, ports: Sequence[PortMapping]) -> None:
        check_ipv4(ports)

    async def prepare(self, pod: Pod) -> None:
        if not is_open(pod):
            await self._fence.add(pod.id, pod.name)

    async def open(
        self, pod: Pod, links: Sequence[Link], ports: Sequence[PortMapping], stack: contextlib.ExitStack
    ) -> list[Nic]:
        return [Nic(self.kind, mac_of(link), ports=tuple(ports), host_loopback=is_open(pod)) for link in links]

    async def attach(self, pod: Pod, link: Link, ports: Sequence[PortMapping], idle: IdleNic) -> None:
        """Its ports come with the machine's `reconfigure`."""

    async def publish(self, pod: Pod, ports: Sequence[PortMapping], forwarding: ForwardingOf) -> None:
        machine = forwarding()
        for number, port in enumerate(ports):
            try:
                await machine.add_port(port)
            except BaseException:  # whoever is cancelled does not know what the machine has done
                await tasks.to_the_end(_unpublish(ports[: number + 1], forwarding))
                raise

    async def unpublish(self, pod: Pod, ports: Sequence[PortMapping], forwarding: ForwardingOf) -> None:
        machine = forwarding()
        for port in ports:
            await machine.remove_port(port)

    async def release(self, pod_id: str) -> None:
        await self._fence.drop(pod_id)


async def _unpublish(ports: Sequence[PortMapping], forwarding: ForwardingOf) -> None:
    for port in ports:
        with contextlib.suppress(HyperError):
            await forwarding().remove_port(port)
