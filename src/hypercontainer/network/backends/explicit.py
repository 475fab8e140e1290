# SPDX-License-Identifier: Apache-2.0
"""Interfaces that a pod lists itself: on bridges of the user's, in their namespaces, or in the user-mode network."""

from __future__ import annotations

import contextlib
import os
from collections.abc import Callable, Sequence
from dataclasses import replace

from ...errors import InvalidArgument, Unsupported
from ...model.pods import InterfaceSpec
from ...model.specs import PortMapping
from ...model.status import Pod
from .. import cni, tap
from .. import links as links_of_host
from ..backend import ForwardingOf, Link, Nic, NicKind
from ..idle import IdleNic
from ..usermode import mac_of
from .slirp import Slirp


def is_user(spec: InterfaceSpec) -> bool:
    """Whether it is in the user-mode network, as one that says nothing of where it is."""
    return not (spec.bridge or spec.namespace)


class Explicit:
    """Taps where the pod says; those in the user-mode network it gets from that one's backend."""

    name = "interfaces"
    kind = NicKind.TAP
    released_by_record = False

    def __init__(self, user: Callable[[Pod], Slirp]) -> None:
        """`user` gives the user-mode network of a pod."""
        self._user = user

    def links(self, pod: Pod) -> list[Link]:
        return [self._link(pod, spec, i) for i, spec in enumerate(pod.spec.interfaces)]

    def _link(self, pod: Pod, spec: InterfaceSpec, number: int) -> Link:
        if is_user(spec):
            (link,) = self._user(pod).links(pod)
            return replace(link, mtu=spec.mtu, mac=spec.mac)
        gateways = tuple(filter(None, (spec.gateway, spec.gateway6)))
        name = "" if spec.namespace else spec.ifname or tap.name_of(pod.id, f"i{number}")
        return Link(self.kind, tuple(spec.addresses), gateways, spec.mtu, spec.mac, name, plugs=not spec.namespace)

    def name_servers(self, pod: Pod) -> list[str]:
        return self._user(pod).name_servers(pod) if any(map(is_user, pod.spec.interfaces)) else []

    def check(self, pod: Pod, ports: Sequence[PortMapping]) -> None:
        """The user-mode network publishes; there may be none."""
        if ports:
            self._publisher(pod).check(pod, ports)

    async def prepare(self, pod: Pod) -> None:
        if any(map(is_user, pod.spec.interfaces)):
            await self._user(pod).prepare(pod)

    async def open(
        self, pod: Pod, links: Sequence[Link], ports: Sequence[PortMapping], stack: contextlib.ExitStack
    ) -> list[Nic]:
        nics: list[Nic] = []
        for number, (spec, link) in enumerate(zip(pod.spec.interfaces, links, strict=True)):
            if is_user(spec):
                nics += await self._user(pod).open(pod, [link], ports, stack)
                ports = ()  # the first has them all
            else:
                fd = await _open_tap(spec, link, number)
                stack.callback(os.close, fd)
                nics.append(Nic(self.kind, mac_of(link), fd, link.tap))
        return nics

    async def attach(self, pod: Pod, link: Link, ports: Sequence[PortMapping], idle: IdleNic) -> None:
        (spec,) = pod.spec.interfaces
        if is_user(spec):
            await self._user(pod).attach(pod, link, ports, idle)
        elif spec.namespace:
            raise Unsupported("a virtual machine that waits does not get into a network namespace")
        else:
            await tap.move(idle.tap, link.tap, spec.bridge, spec.mtu)

    async def publish(self, pod: Pod, ports: Sequence[PortMapping], forwarding: ForwardingOf) -> None:
        await self._publisher(pod).publish(pod, ports, forwarding)

    async def unpublish(self, pod: Pod, ports: Sequence[PortMapping], forwarding: ForwardingOf) -> None:
        await self._publisher(pod).unpublish(pod, ports, forwarding)

    async def release(self, pod_id: str) -> None:
        """Taps end with their machine; the user-mode network is asked itself."""

    async def limit(self, link: Link, rate: int) -> None:
        if link.tap:
            await links_of_host.limit(link.tap, rate)

    def _publisher(self, pod: Pod) -> Slirp:
        """:raise InvalidArgument: there is none."""
        if any(map(is_user, pod.spec.interfaces)):
            return self._user(pod)
        raise InvalidArgument(
            "published ports need an interface without a bridge", hint="add an interface that names none"
        )


async def _open_tap(spec: InterfaceSpec, link: Link, number: int) -> int:
    if spec.namespace:
        return await cni.open_tap(spec.namespace, spec.device, f"tap{number}")
    return await tap.open_tap(link.tap, spec.bridge, spec.mtu)
