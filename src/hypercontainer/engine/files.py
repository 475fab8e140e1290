# SPDX-License-Identifier: Apache-2.0
"""A container's files and record, until nothing is left of either."""

from __future__ import annotations

from collections.abc import Callable
from pathlib import Path

import msgspec

from ..model.log_options import keeps_no_copy
from ..model.status import Container, Pod
from ..sys import tasks
from ..sys.removal import removed
from .creation import Creation
from .log_sinks.choose import LogSinks
from .logs import OutputLog, account_of
from .paths import Paths
from .registry import Registry
from .sandboxes import Sandboxes
from .streams import FanOut
from .volume_sources import volumes_of


class ContainerFiles:
    """Its log, and its removal."""

    def __init__(
        self, paths: Paths, registry: Registry, sandboxes: Sandboxes, log_sinks: LogSinks,
        forget: Callable[[str], None], creation: Creation,
    ) -> None:  # fmt: skip
        """`forget` takes the id of what is removed."""
        self._paths = paths
        self._registry = registry
        self._sandboxes = sandboxes
        self.log_sinks = log_sinks
        self._roots, self._volumes = creation.roots, creation.volumes
        self.forget = forget

    def fan_out(self, container: Container) -> FanOut:
        """Its output, which goes to its log."""
        return FanOut(lambda: self._log(container))

    def _log(self, container: Container) -> OutputLog:
        """Of one run; with the name that it has by now."""
        if self._registry.exists(container.id):
            container = self._registry.container(container.id)
        keeps_none = keeps_no_copy(container.spec.log)
        path = self._paths.log(container.id) if keeps_none else Path(container.log_path)
        sinks = self.log_sinks
        return OutputLog(sinks.local(container), account_of(path), remote=sinks.remote(container))

    def is_alone(self, container: Container) -> bool:
        """Whether nothing of it is anybody else's."""
        pod = self._registry.pod(container.pod)
        return pod.implicit and not self._sandboxes.released_by_record(pod)

    def delete_record(self, container: Container) -> None:
        """Forget it and the pod of its own, whose machine is about to end; `erase` removes what is left."""
        self._registry.erase(container, self._registry.pod(container.pod), files=container.id)

    async def erase(self, container: Container, *, volumes: bool) -> None:
        """Take an ended container out of a machine that goes on, and forget it; a machine of its own ends.

        With `volumes` those of its volumes go too that nobody gave a name.
        """
        pod = self._registry.pod(container.pod) if self._registry.has_pod(container.pod) else None
        if pod is None or pod.implicit:
            await self._sandboxes.down(container.pod, clean=False)
        else:
            await self._sandboxes.drop(container, volumes=self._own_volumes(pod, container))
        if self._registry.exists(container.id):
            self._discard(container)
        elif pod is None:  # it was withdrawn before
            self._sandboxes.forget(container.pod)
        await self.remove(container.id)
        if volumes:
            await self._volumes.remove_anonymous(container.mounts)

    def _own_volumes(self, pod: Pod, container: Container) -> list[str]:
        """The volumes that nothing else in the pod uses, and that its specification did not name."""
        others = {v for c in self._registry.members(pod.id) if c.id != container.id for v in volumes_of(c)}
        mine = set(volumes_of(container))
        kept = {v.name for v in pod.volumes if v.declared or (v.kind == "directory" and _in_tree(pod, v.name))}
        return sorted(mine - others - kept)

    def _discard(self, container: Container) -> None:
        pod = self._registry.pod(container.pod)
        gone = set(self._own_volumes(pod, container))
        self._registry.erase(container, *([pod] if pod.implicit else []), files=container.id)
        if pod.implicit:
            self._sandboxes.forget(pod.id)
        elif gone:
            self._registry.put_pod(msgspec.structs.replace(pod, volumes=[v for v in pod.volumes if v.name not in gone]))

    async def remove(self, id_: str) -> None:
        """The files of a container, or of a pod, that has no record any more; also when its caller is cancelled."""
        await tasks.to_the_end(self._remove(id_))

    async def _remove(self, id_: str) -> None:
        try:
            await self._roots.release(id_)
        finally:
            await removed(self._paths.container(id_), self._paths.pod(id_))
        self._registry.finish(id_)


def _in_tree(pod: Pod, directory: str) -> bool:
    """Whether the machine that runs was given it with the tree: its place there is its name, and stays.

    An earlier version knew them by the pod's volumes only.
    """
    return pod.vm is not None and (pod.vm.directories is None or directory in pod.vm.directories)
