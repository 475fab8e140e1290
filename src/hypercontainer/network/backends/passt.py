# SPDX-License-Identifier: Apache-2.0
"""The user-mode network by passt, a process beside each machine (`network/passt.py`)."""

from __future__ import annotations

import asyncio
import contextlib
import errno
from collections.abc import Sequence
from dataclasses import replace

from ...errors import Unsupported
from ...model.specs import PortMapping
from ...model.status import Pod
from ...sys import tasks
from .. import passt
from ..backend import ForwardingOf, Link, Nic, NicKind
from ..fence import Fence
from ..idle import IdleNic
from ..usermode import bindable, mac_of
from .slirp import Slirp, is_open

_ENDS, _LOOK = 2.0, 0.01  # seconds for the end of a process, and between two looks


class Passt(Slirp):
    """As slirp's for the pod, addresses and walls; ports are published when it starts, and only then."""

    program = "passt"
    kind = NicKind.STREAM

    def __init__(self, fence: Fence, runs_as: passt.RunsAsOf) -> None:
        super().__init__(fence)
        self._runs_as = runs_as
        self._ports: dict[str, tuple[PortMapping, ...]] = {}  # by pods, of processes that this daemon started

    def links(self, pod: Pod) -> list[Link]:
        return [replace(link, plugs=True) for link in super().links(pod)]

    async def open(
        self, pod: Pod, links: Sequence[Link], ports: Sequence[PortMapping], stack: contextlib.ExitStack
    ) -> list[Nic]:
        self._ports[pod.id] = tuple(ports)
        nics = []
        for link in links:
            runs_as = self._runs_as(pod.id, not is_open(pod))
            sock = stack.enter_context(await passt.start(tuple(ports), runs_as, host_loopback=is_open(pod)))
            nics.append(Nic(self.kind, mac_of(link), sock.fileno()))
        return nics

    async def attach(self, pod: Pod, link: Link, ports: Sequence[PortMapping], idle: IdleNic) -> None:
        assert idle.peer
        self._ports[pod.id] = tuple(ports)
        runs_as = self._runs_as(pod.id, not is_open(pod))
        await passt.serve(tuple(ports), idle.peer, runs_as, host_loopback=is_open(pod))

    async def publish(self, pod: Pod, ports: Sequence[PortMapping], forwarding: ForwardingOf) -> None:
        raise _only_at_its_start(pod)

    async def unpublish(self, pod: Pod, ports: Sequence[PortMapping], forwarding: ForwardingOf) -> None:
        raise _only_at_its_start(pod)

    async def release(self, pod_id: str) -> None:
        """passt ends when it sees that its machine has, and has the ports until then."""
        await super().release(pod_id)
        ports = self._ports.pop(pod_id, ())
        with contextlib.suppress(TimeoutError):
            await tasks.within(_until_free(ports), _ENDS)


async def _until_free(ports: Sequence[PortMapping]) -> None:
    while any(map(_is_taken, ports)):
        await asyncio.sleep(_LOOK)


def _is_taken(port: PortMapping) -> bool:
    try:
        bindable(port)
    except OSError as error:
        return error.errno == errno.EADDRINUSE
    return False


def _only_at_its_start(pod: Pod) -> Unsupported:
    return Unsupported(
        f"{pod.name} runs, and passt publishes ports only when it starts",
        hint="stop it first, or set user_network to slirp",
    )
