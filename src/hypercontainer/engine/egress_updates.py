# SPDX-License-Identifier: Apache-2.0
"""Another egress policy for a pod that is there, also while it runs."""

from __future__ import annotations

import asyncio
import contextlib

import msgspec

from ..errors import HyperError, InvalidState
from ..model.egress import EgressChange, EgressPolicy
from ..model.status import Pod
from ..sys import tasks
from .events import Events
from .pod_network import PodNetwork
from .pod_specs import pod_of, put_spec, with_spec
from .registry import Registry


class EgressUpdates:
    """Changes what pods may reach by name."""

    def __init__(self, registry: Registry, network: PodNetwork, events: Events) -> None:
        self._registry = registry
        self._network = network
        self._events = events
        self._changing = asyncio.Lock()  # what one takes back is not another's

    async def update(self, key: str, change: EgressChange) -> Pod:
        """In force at once; connections that stay allowed go on, others are ended. `key` is a pod's, or that of a
        container which has a pod of its own.

        :raise InvalidArgument: it is a container in a pod. :raise InvalidState: it has secrets, and would be open.
        :raise Unsupported: its network has no policies. :raise Unavailable: the rules are refused; all is as it was.
        """
        async with self._changing:
            pod = pod_of(self._registry, key, "an egress policy", "use `hyperctl update` with the pod, {pod}")
            pod = await self._change(pod, change)
        self._events.publish("container" if pod.implicit else "pod", "update", pod.id, of=pod.labels, name=pod.name)
        return pod

    async def _change(self, pod: Pod, change: EgressChange) -> Pod:
        before = pod.spec.egress
        policy = _policy(pod, change)
        self._network.check(with_spec(pod, egress=policy))
        put_spec(self._registry, pod.id, egress=policy)
        try:
            await self._network.follow(self._registry.pod(pod.id))
        except BaseException:
            if self._registry.has_pod(pod.id):
                put_spec(self._registry, pod.id, egress=before)
                with contextlib.suppress(HyperError):
                    await tasks.to_the_end(self._network.follow(self._registry.pod(pod.id)))
            raise
        return self._registry.pod(pod.id)


def _policy(pod: Pod, change: EgressChange) -> EgressPolicy | None:
    """:raise InvalidState: secrets go by a policy."""
    had = pod.spec.egress or EgressPolicy()
    if not change.open:
        return msgspec.structs.replace(had, hosts=change.hosts)
    if had.secrets:
        raise InvalidState(f"{pod.name} has secrets, which only an egress policy lets out",
                           hint="name the hosts that it may reach")  # fmt: skip
    return None
