# SPDX-License-Identifier: Apache-2.0
"""A container's files and record, until nothing is left of either."""

from __future__ import annotations

from collections.abc import Callable
from pathlib import Path

import msgspec

from ..images.root import RootSource
from ..model.status import Container, Pod
from ..sys.files import remove_tree
from .log_sinks.fake import NullSink
from .logs import OutputLog, json_log
from .paths import Paths
from .registry import Registry
from .sandboxes import Sandboxes
from .streams import FanOut


class ContainerFiles:
    """Its log, and its removal."""

    def __init__(
        self, paths: Paths, registry: Registry, sandboxes: Sandboxes, log_limits: tuple[int, int],
        forget: Callable[[str], None], roots: RootSource,
    ) -> None:  # fmt: skip
        """`log_limits` are the bytes of a log file and how many are kept; `forget` takes the id of what is removed."""
        self._paths = paths
        self._registry = registry
        self._sandboxes = sandboxes
        self._log_limits = log_limits
        self._roots = roots
        self.forget = forget

    def fan_out(self, container: Container) -> FanOut:
        """Its output, which goes to its log."""
        return FanOut(lambda: self._log(container))

    def _log(self, container: Container) -> OutputLog:
        options = container.spec.log
        if options.driver == "none":
            return OutputLog(NullSink(), self._paths.container(container.id) / "offsets")
        size, files = self._log_limits
        return json_log(
            Path(container.log_path), max_size=options.max_size or size, max_files=options.max_files or files
        )

    def is_alone(self, container: Container) -> bool:
        """Whether nothing of it is anybody else's."""
        pod = self._registry.pod(container.pod)
        return pod.implicit and not (pod.volumes or pod.ports or pod.cni)

    def delete_record(self, container: Container) -> None:
        """Forget it and the pod of its own, whose machine is about to end; `erase` removes what is left."""
        self._registry.erase(container, self._registry.pod(container.pod), files=container.id)

    async def erase(self, container: Container) -> None:
        """Take an ended container out of a machine that goes on, and forget it; a machine of its own ends."""
        pod = self._registry.pod(container.pod) if self._registry.has_pod(container.pod) else None
        if pod is None or pod.implicit:
            await self._sandboxes.down(container.pod, clean=False)
        else:
            await self._sandboxes.drop(container, volumes=self._own_volumes(pod, container))
        if self._registry.exists(container.id):
            self._discard(container)
        elif pod is None:  # it was withdrawn before
            self._sandboxes.forget(container.pod)
        self.remove(container.id)

    def _own_volumes(self, pod: Pod, container: Container) -> list[str]:
        """The volumes that nothing else in the pod uses, and that its specification did not name."""
        others = {m.volume for c in self._registry.members(pod.id) if c.id != container.id for m in c.mounts}
        mine = {m.volume for m in container.mounts if m.volume}
        # The place of a directory in the tree of a machine that runs is its name there.
        kept = {v.name for v in pod.volumes if v.declared or (v.kind == "directory" and pod.vm)}
        return sorted(mine - others - kept)

    def _discard(self, container: Container) -> None:
        pod = self._registry.pod(container.pod)
        gone = set(self._own_volumes(pod, container))
        self._registry.erase(container, *([pod] if pod.implicit else []), files=container.id)
        if pod.implicit:
            self._sandboxes.forget(pod.id)
        elif gone:
            self._registry.put_pod(msgspec.structs.replace(pod, volumes=[v for v in pod.volumes if v.name not in gone]))

    def remove(self, id_: str) -> None:
        """The files of a container, or of a pod, that has no record any more."""
        self._roots.release(id_)
        for directory in (self._paths.container(id_), self._paths.pod(id_)):
            remove_tree(directory)
        self._registry.finish(id_)
