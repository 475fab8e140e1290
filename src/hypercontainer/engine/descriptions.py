# SPDX-License-Identifier: Apache-2.0
"""Keeps the description of each running pod, beside its machine, what the records say."""

from __future__ import annotations

import asyncio
from collections.abc import Sequence
from pathlib import Path

from ..model.status import Container, Pod
from ..state import description
from ..state.description import Description
from .registry import Registry

_GATHER = 0.1  # seconds in which several changes are written as one


class Descriptions:
    """Written soon after each change of a pod that runs, or of one of its containers."""

    def __init__(self, registry: Registry) -> None:
        self._registry = registry
        self._changed: set[str] = set()
        self._timer: asyncio.TimerHandle | None = None
        registry.on_change = self.mark

    def mark(self, pod_id: str) -> None:
        """The pod's record has changed: its description is written anew soon."""
        self._changed.add(pod_id)
        if self._timer is None:
            try:
                self._timer = asyncio.get_running_loop().call_later(_GATHER, self.write)
            except RuntimeError:  # without a loop `close` writes them
                return

    def write(self) -> None:
        """Those whose records have changed."""
        self._timer = None
        for id_ in self._changed:
            if self._registry.has_pod(id_) and (pod := self._registry.known_pod(id_)).vm:
                description.write(Path(pod.vm.directory), describe(self._registry, pod, self._registry.members(id_)))
        self._changed.clear()

    def close(self) -> None:
        if self._timer:
            self._timer.cancel()
        self.write()


def describe(registry: Registry, pod: Pod, members: Sequence[Container]) -> Description:
    """With the records of what it uses."""
    volumes = {v.named for v in pod.volumes if v.named}
    return Description(
        pod=pod,
        containers=list(members),
        volumes=[v for v in registry.volumes() if v.name in volumes and v.tenant == pod.tenant],
        networks=[n for n in registry.networks() if any(a.is_of(n) for a in pod.attachments)],
    )
