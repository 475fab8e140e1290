# SPDX-License-Identifier: Apache-2.0
"""Pods, several containers in one VM: what their users can ask for. Each is owned by a supervisor (`pod.py`)."""

from __future__ import annotations

import asyncio
import logging

import msgspec

from ..errors import Conflict, HyperError, InvalidState
from ..model import ids
from ..model.pods import PodPlan
from ..model.quotas import Amounts
from ..model.specs import PortMapping
from ..model.states import end_of
from ..model.status import ContainerStatus, Pod, PodDetails, PodInfo, PodStatus
from ..sys import clock
from . import pod as verbs
from .containers import Containers
from .events import Events
from .pod import PodSupervisor
from .pod_creation import PodCreation
from .pod_network import PodNetwork
from .processors import warnings
from .registry import Registry
from .sandboxes import Sandboxes

log = logging.getLogger(__name__)


class Pods:
    """Create, start, stop, pause, remove, describe."""

    def __init__(
        self,
        registry: Registry,
        sandboxes: Sandboxes,
        containers: Containers,
        network: PodNetwork,
        creation: PodCreation,
        events: Events,
    ) -> None:
        self.registry = registry
        self._sandboxes = sandboxes
        self._containers = containers
        self._network = network
        self._creation = creation
        self._events = events
        self._supervisors: dict[str, PodSupervisor] = {}

    def supervisor(self, pod: Pod) -> PodSupervisor:
        """Who owns the pod, begun at the first need."""
        found = self._supervisors.get(pod.id)
        if found is None:
            found = self._supervisors[pod.id] = PodSupervisor(pod, self.registry, self._sandboxes, self._containers)
        return found

    # -- create and remove ----------------------------------------------------------

    async def create(self, plan: PodPlan) -> Pod:
        """A pod and all of its containers, or nothing.

        :raise NotFound: an image or a volume's source. :raise Conflict: a name is taken.
        """
        pod = await self._creation.create(plan)
        self._publish("create", pod)
        return pod

    async def undo(self, id_: str) -> None:
        """End what a daemon had begun to make, or to remove, when it was killed."""
        if self.registry.exists(id_):
            await self._containers.remove(id_, force=True)
        if self.registry.has_pod(id_):
            await self._sandboxes.down(id_, clean=False)
            await self._containers.remove_pod(id_)
        await self._containers.files.remove(id_)

    def explicit(self, key: str) -> Pod:
        """:raise InvalidState: when it is a container's own."""
        pod = self.registry.pod(key)
        if pod.implicit:
            raise InvalidState(f"{pod.name} is a container of its own, no pod", hint="use the command without `pod`")
        return pod

    async def remove(self, key: str, *, force: bool = False) -> Pod:
        """With its containers and anonymous volumes; named ones stay.

        :raise Conflict: when it runs and `force` is off.
        """
        pod = self.explicit(key)
        found = self.supervisor(pod)
        await found.ask(verbs.Remove(force))
        if self._supervisors.pop(pod.id, None):
            found.retire()
            self._publish("destroy", pod)
        return pod

    def _publish(self, action: str, pod: Pod) -> None:
        self._events.publish("pod", action, pod.id, name=pod.name)

    # -- start and stop -------------------------------------------------------------

    async def start(self, key: str) -> bool:
        """Returns when all containers have been started; False when it ran already.

        :raise HyperError: why one could not be; the pod is stopped again then, and `failed`.
        """
        pod = self.explicit(key)
        return await self._containers.wake(pod) or bool(await self.supervisor(pod).ask(verbs.Start()))

    def resume(self, pod: Pod) -> None:
        """Go on with a start that an earlier daemon had begun."""
        self.supervisor(pod).post(verbs.Resume())

    async def stop(self, key: str, timeout: int | None = None) -> bool:
        """Those that depend on others first; False when it did not run. `timeout` in seconds."""
        pod = self.explicit(key)
        try:
            await self._containers.wake(pod)
        except HyperError as error:  # it is ended all the same
            log.warning("pod %s, which is suspended, is ended without going on: %s", pod.name, error)
        return bool(await self.supervisor(pod).ask(verbs.Stop(timeout)))

    async def kill(self, key: str, signal: str) -> None:
        """Signal every running container."""
        pod = self.explicit(key)
        running = [c for c in self.registry.members(pod.id) if c.state.status is ContainerStatus.RUNNING]
        if not running:
            raise InvalidState(f"pod {pod.name} has no running container")
        for container in running:
            await self._containers.kill(container.id, signal)

    async def pause(self, key: str) -> None:
        """Stop the whole machine."""
        await self._sandboxes.pause(self.explicit(key).id)

    async def unpause(self, key: str) -> None:
        """Let its virtual machine go on.

        :raise InvalidState: it is not paused.
        """
        await self._sandboxes.unpause(self.explicit(key).id)

    # -- what can be changed ----------------------------------------------------------

    def set_labels(self, key: str, labels: dict[str, str], *, override: bool) -> dict[str, str]:
        """:raise Conflict: when a label exists and `override` is off."""
        pod = self.explicit(key)
        taken = sorted(set(labels) & set(pod.labels))
        if taken and not override:
            raise Conflict(f"pod {pod.name} has the label {taken[0]!r} already", hint="use --override to change it")
        return self._sandboxes.update(pod.id, labels={**pod.labels, **labels}).labels

    async def add_ports(self, key: str, ports: list[PortMapping]) -> list[PortMapping]:
        """Publish further ports, of a running pod at once.

        :raise Conflict: when one is taken. :raise Unsupported: its network publishes none while the pod runs.
        :raise QuotaExceeded: who asks may not publish so many.
        """
        pod = self.registry.pod(key)
        with self.registry.quotas.admitted({f"ports:{ids.new_id()}": Amounts(ports=len(ports))}):
            return await self._add_ports(pod, ports)

    async def _add_ports(self, pod: Pod, ports: list[PortMapping]) -> list[PortMapping]:
        runtime = self._sandboxes.runtime(pod.id)
        claimed = self._network.claim(pod, ports)
        try:
            with self._sandboxes.ports_in_change(pod.id, claimed):
                if runtime:
                    await self._network.publish(pod, claimed, runtime.machine)
                pod = self.registry.pod(pod.id)
                spec = msgspec.structs.replace(pod.spec, ports=[*pod.spec.ports, *ports])
                self._sandboxes.update(pod.id, spec=spec, ports=[*pod.ports, *claimed])
        finally:  # from here on the record tells, of a pod that runs
            self._network.unclaim(pod.id, claimed)
        return self.registry.pod(pod.id).ports

    async def remove_ports(self, key: str, ports: list[PortMapping]) -> list[PortMapping]:
        """Those with the same protocol and container port, and host port if given."""
        pod = self.registry.pod(key)
        runtime = self._sandboxes.runtime(pod.id)
        for wanted in ports:

            def same(p: PortMapping, wanted: PortMapping = wanted) -> bool:
                host = not wanted.host_port or not p.host_port or p.host_port == wanted.host_port
                return host and (p.protocol, p.container_port) == (wanted.protocol, wanted.container_port)

            matching = [p for p in pod.ports or pod.spec.ports if same(p)]
            if not matching:
                raise InvalidState(f"pod {pod.name} does not publish {wanted.container_port}/{wanted.protocol}",
                                   hint=f"see `hyperctl ports ls {pod.name}`")  # fmt: skip
            with self._sandboxes.ports_in_change(pod.id, matching):
                if runtime:
                    await self._network.unpublish(pod, matching, runtime.machine)
                spec = msgspec.structs.replace(pod.spec, ports=[p for p in pod.spec.ports if not same(p)])
                pod = self._sandboxes.update(pod.id, spec=spec, ports=[p for p in pod.ports if p not in matching])
        return pod.ports

    # -- described --------------------------------------------------------------------

    def details(self, key: str) -> PodDetails:
        """A pod's record and its containers'.

        :raise NotFound: there is no such pod.
        """
        pod = self.registry.pod(key)
        return PodDetails(pod=pod, containers=self.registry.members(pod.id), warnings=warnings(pod))

    def all(self) -> list[PodInfo]:
        """All pods of the tenant that asks, those of single containers too, as a list shows them."""
        return [
            PodInfo(
                id=p.id,
                name=p.name,
                created_at=p.created_at,
                vcpus=p.vcpus,
                memory=p.memory,
                status=p.status,
                vm_pid=p.vm.pid if p.vm else 0,
                containers=[c.name for c in self.registry.members(p.id)],
                labels=p.labels,
                implicit=p.implicit,
                error=p.error,
                ports=p.ports,
                ends_at=clock.written(end_of(p)),
            )
            for p in self.registry.pods(seen=True)
        ]

    async def wake(self) -> None:
        """Let paused machines go on, so that they can be stopped; one that does not is ended without."""
        paused = [p.id for p in self.registry.pods() if p.status is PodStatus.PAUSED]
        await asyncio.gather(*(self.unpause(id_) for id_ in paused), return_exceptions=True)

    async def detach(self) -> None:
        """End this daemon's own tasks."""
        await asyncio.gather(*(s.detach() for s in self._supervisors.values()))
