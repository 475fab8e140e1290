# SPDX-License-Identifier: Apache-2.0
"""Several changes of one thing: all of them, or none."""

from __future__ import annotations

import contextlib
from collections.abc import Awaitable, Callable

from msgspec.structs import asdict

from ..errors import HyperError
from ..model.egress import EgressChange, EgressPolicy
from ..model.specs import ContainerSpec, ContainerUpdate
from ..model.status import Pod
from ..model.updates import PodUpdate
from ..sys import tasks
from .lifetimes import Lifetimes
from .pod_specs import pod_of
from .registry import Registry
from .updates import Updates


class PodUpdates:
    """One after the other; where one fails, or is given up, those before it are taken back."""

    def __init__(self, registry: Registry, updates: Updates, lifetimes: Lifetimes) -> None:
        self._registry, self._updates, self._lifetimes = registry, updates, lifetimes

    async def update(self, key: str, change: PodUpdate) -> Pod:
        """Raises what each of them does, and all is as it was."""
        pod = pod_of(
            self._registry, key, "an egress policy, or a lifetime,", "use `hyperctl update` with the pod, {pod}"
        )
        if change.lifetime:
            self._lifetimes.check(pod, change.lifetime)
        async with contextlib.AsyncExitStack() as back:
            if change.limits:
                container = self._registry.container(key)
                before = _as_it_is(container.spec, change.limits)
                await self._updates.update(container.id, change.limits)
                back.push_async_callback(_calmly, lambda: self._updates.update(container.id, before))
            if change.egress:
                had = _reverse(pod.spec.egress)
                await self._updates.egress.update(key, change.egress)
                back.push_async_callback(_calmly, lambda: self._updates.egress.update(key, had))
            if change.lifetime:
                self._lifetimes.change(pod.id, change.lifetime)
            back.pop_all()
        return self._registry.pod(pod.id)


async def _calmly(undo: Callable[[], Awaitable[object]]) -> None:
    with contextlib.suppress(HyperError):  # it may be gone
        await tasks.to_the_end(undo())


def _as_it_is(spec: ContainerSpec, change: ContainerUpdate) -> ContainerUpdate:
    """What takes a change back."""
    had = {"restart": spec.restart, **asdict(spec.resources)}
    return ContainerUpdate(**{name: had[name] for name, value in asdict(change).items() if value is not None})


def _reverse(policy: EgressPolicy | None) -> EgressChange:
    return EgressChange(hosts=policy.hosts) if policy else EgressChange(open=True)
