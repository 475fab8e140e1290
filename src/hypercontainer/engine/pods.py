# SPDX-License-Identifier: Apache-2.0
"""Pods: several containers in one VM.

    created ──start──► starting ──► running ◄──pause──► paused
       ▲                  │ a start failed │ stop, or the last container ended
       └── start ── failed ◄┘              └──► exited ── start ──► ...

A start runs the init containers one after the other, then the rest in the
order of what they depend on.
"""

from __future__ import annotations

import asyncio
import contextlib
from collections.abc import Coroutine
from typing import Any

import msgspec

from ..errors import Conflict, HyperError, InvalidState, Unsupported
from ..hypervisor.facets import Pause, PortForwarding, require
from ..images.store import ImageStore
from ..model import ids
from ..model.pods import PodPlan
from ..model.specs import PortMapping
from ..model.status import Container, ContainerStatus, Pod, PodDetails, PodInfo, PodStatus
from . import resolve
from .containers import ALIVE, Containers
from .events import Events
from .machines import Machines, check_awake
from .networks import Networks
from .paths import Paths
from .plan import check_plan, levels
from .registry import Registry
from .runtime import Runtime
from .secrets import Secrets
from .startup import Startup
from .volumes import Volumes

_UP = (PodStatus.STARTING, PodStatus.RUNNING, PodStatus.PAUSED, PodStatus.STOPPING)


class Pods:
    """Create, start, stop, pause, remove, describe."""

    def __init__(
        self, *, paths: Paths, registry: Registry, images: ImageStore, containers: Containers, machines: Machines,
        networks: Networks, volumes: Volumes, secrets: Secrets, events: Events,
    ) -> None:  # fmt: skip
        self._paths = paths
        self._registry = registry
        self._images = images
        self._containers = containers
        self._machines = machines
        self._networks = networks
        self._volumes = volumes
        self._secrets = secrets
        self._events = events
        self._startup = Startup(registry, containers)
        self._tasks: set[asyncio.Task[Any]] = set()

    def _own(self, work: Coroutine[Any, Any, None]) -> asyncio.Task[None]:
        task = asyncio.create_task(work)
        self._tasks.add(task)
        task.add_done_callback(self._tasks.discard)
        task.add_done_callback(lambda t: t.cancelled() or t.exception())  # it is in the record
        return task

    # -- create and remove ----------------------------------------------------------

    async def create(self, plan: PodPlan) -> Pod:
        """A pod and all of its containers, or nothing.

        :raise NotFound: an image or a volume's source. :raise Conflict: a name is taken.
        """
        check_plan(plan)
        images = [self._images.find(c.image) for c in plan.containers]
        name = plan.name
        self._registry.check_pod_name(name)
        reserved: list[str] = []
        id_ = ids.new_id()
        self._registry.begin(id_)
        try:
            for c in plan.containers:
                reserved.append(self._registry.reserve(c.name))
            pod = await self._make_record(plan, id_, name)
            for c, image, called in zip(plan.containers, images, reserved, strict=True):
                await self._containers.add(pod, msgspec.structs.replace(c, name=called), image, ids.new_id(), called)
            self._registry.create(done=id_)
        except BaseException:
            await self._forget(id_)
            raise
        finally:
            for called in reserved:
                self._registry.release(called)
        self._tell("create", pod)
        return self._registry.pod(id_)

    async def _make_record(self, plan: PodPlan, id_: str, name: str) -> Pod:
        vcpus, memory = resolve.machine_size(plan.containers, vcpus=plan.vcpus, memory=plan.memory)
        resolve.check_host(vcpus, memory)
        for secret, value in plan.secrets.items():
            self._secrets.put(id_, secret, value)
        volumes = await self._volumes.of_pod(id_, plan.volumes)
        hostname = plan.hostname or name[:63].rstrip("-._").replace("_", "-").lower()
        aliases = [n for c in plan.containers for n in (c.name, *c.aliases) if n]
        spec, attachments = self._networks.plan(id_, plan.spec, aliases)
        pod = Pod(
            id=id_, name=name, created_at=ids.now(), hostname=hostname, vcpus=vcpus, memory=memory, spec=spec,
            labels=plan.labels, volumes=volumes, attachments=attachments,
        )  # fmt: skip
        self._registry.create(pod)
        return pod

    async def _forget(self, id_: str) -> None:
        for container in self._registry.members(id_):
            with contextlib.suppress(HyperError):
                await self._containers.remove(container.id, force=True)
        self._registry.erase(*([self._registry.pod(id_)] if self._registry.has_pod(id_) else []), files=id_)
        self._machines.forget(id_)
        self._containers.remove_files(id_)

    async def undo(self, id_: str) -> None:
        """End what a daemon had begun to make, or to remove, when it was killed."""
        if self._registry.exists(id_):
            await self._containers.remove(id_, force=True)
        if self._registry.has_pod(id_):
            await self._machines.down(id_, clean=False)
            await self._forget(id_)
        self._containers.remove_files(id_)

    def explicit(self, key: str) -> Pod:
        """:raise InvalidState: when it is a container's own."""
        pod = self._registry.pod(key)
        if pod.implicit:
            raise InvalidState(f"{pod.name} is a container of its own, no pod", hint="use the command without `pod`")
        return pod

    async def remove(self, key: str, *, force: bool = False) -> Pod:
        """With its containers and anonymous volumes; named ones stay.

        :raise Conflict: when it runs and `force` is off.
        """
        pod = self.explicit(key)
        if pod.status in _UP:
            if not force:
                raise Conflict(f"pod {pod.name} is {pod.status}", hint="stop it first, or use --force")
            await self.stop(pod.id, 0)
        await self._machines.down(pod.id)
        await self._forget(pod.id)
        self._tell("destroy", pod)
        return pod

    def _tell(self, action: str, pod: Pod) -> None:
        self._events.publish("pod", action, pod.id, name=pod.name)

    # -- start and stop -------------------------------------------------------------

    async def start(self, key: str) -> bool:
        """Returns when all containers have been started; False when it ran already.

        :raise HyperError: why one could not be; the pod is stopped again then, and `failed`.
        """
        pod = self.explicit(key)
        life = self._machines.life(pod.id)
        check_awake(pod)
        if life.starting is None or life.starting.done():
            idle = [c for c in self._registry.members(pod.id) if c.state.status not in ALIVE and not c.spec.init]
            if pod.status is PodStatus.RUNNING and not idle:
                return False
            life.starting = self._own(self._start(pod.id))
        await asyncio.shield(life.starting)
        return True

    def go_on(self, pod_id: str) -> None:
        """With a start that an earlier daemon had begun."""
        self._machines.life(pod_id).starting = self._own(self._start(pod_id))

    def bring_back(self, pod_id: str, containers: list[Container]) -> None:
        """Start what runs by its own policy, after the host came up."""

        async def bring() -> None:
            for container in containers:
                with contextlib.suppress(HyperError):
                    await self._containers.start(container.id)

        self._own(bring())

    async def _start(self, pod_id: str) -> None:
        self._machines.update(pod_id, status=PodStatus.STARTING, error="")
        user = "start"
        runtime = None
        try:
            runtime = await self._machines.acquire(pod_id, user)
            await self._startup.run(pod_id)
            self._machines.update(pod_id, status=PodStatus.RUNNING)
        except BaseException as error:
            message = error.message if isinstance(error, HyperError) else "the start was interrupted"
            if self._registry.has_pod(pod_id) and not isinstance(error, asyncio.CancelledError):
                await self._stop_members(pod_id, 0)
                self._machines.update(pod_id, status=PodStatus.FAILED, error=message)
                await self._machines.down(pod_id)
            raise
        finally:
            if runtime:
                await self._machines.release(pod_id, runtime, user)

    async def stop(self, key: str, timeout: int | None = None) -> bool:
        """Those that depend on others first; False when it did not run. `timeout` in seconds."""
        pod = self.explicit(key)
        life = self._machines.life(pod.id)
        if pod.status is PodStatus.PAUSED:
            with contextlib.suppress(HyperError):  # it ends all the same
                await self.unpause(pod.id)
        if life.starting and not life.starting.done():
            life.starting.cancel()
            await asyncio.wait({life.starting})
        if life.runtime is None and not any(c.state.status in ALIVE for c in self._registry.members(pod.id)):
            if self._registry.pod(pod.id).status is PodStatus.STARTING:
                self._machines.update(pod.id, status=PodStatus.EXITED)
            return False
        self._machines.update(pod.id, status=PodStatus.STOPPING)
        await self._stop_members(pod.id, timeout)
        await self._machines.down(pod.id)
        if self._registry.pod(pod.id).status is PodStatus.STOPPING:  # it had no machine any more
            self._machines.update(pod.id, status=PodStatus.EXITED, finished_at=ids.now())
        return True

    async def _stop_members(self, pod_id: str, timeout: int | None) -> None:
        for level in reversed(levels(self._registry.members(pod_id))):
            await asyncio.gather(*(self._containers.stop(c.id, timeout) for c in level), return_exceptions=True)

    async def kill(self, key: str, signal: str) -> None:
        """Signal every running container."""
        pod = self.explicit(key)
        running = [c for c in self._registry.members(pod.id) if c.state.status is ContainerStatus.RUNNING]
        if not running:
            raise InvalidState(f"pod {pod.name} has no running container")
        for container in running:
            await self._containers.kill(container.id, signal)

    async def pause(self, key: str) -> None:
        """Stop the whole machine."""
        pod = self.explicit(key)
        runtime = self._machines.runtime(pod.id)
        if runtime is None or pod.status is not PodStatus.RUNNING:
            raise InvalidState(f"pod {pod.name} is {pod.status}, not running")
        await require(runtime.machine, Pause).pause()
        self._tell("pause", self._machines.update(pod.id, status=PodStatus.PAUSED))

    async def unpause(self, key: str) -> None:
        pod = self.explicit(key)
        runtime = self._machines.runtime(pod.id)
        if runtime is None or pod.status is not PodStatus.PAUSED:
            raise InvalidState(f"pod {pod.name} is not paused")
        await require(runtime.machine, Pause).resume()
        self._tell("unpause", self._machines.update(pod.id, status=PodStatus.RUNNING))

    # -- what can be changed ----------------------------------------------------------

    def set_labels(self, key: str, labels: dict[str, str], *, override: bool) -> dict[str, str]:
        """:raise Conflict: when a label exists and `override` is off."""
        pod = self.explicit(key)
        taken = sorted(set(labels) & set(pod.labels))
        if taken and not override:
            raise Conflict(f"pod {pod.name} has the label {taken[0]!r} already", hint="use --override to change it")
        return self._machines.update(pod.id, labels={**pod.labels, **labels}).labels

    async def add_ports(self, key: str, ports: list[PortMapping]) -> list[PortMapping]:
        """Publish further ports, of a running pod at once.

        :raise Conflict: when one is taken.
        """
        pod = self._registry.pod(key)
        runtime = self._machines.runtime(pod.id)
        if runtime:
            self._check_ports_can_change(pod, runtime)
        claimed = self._networks.ports.claim(pod, ports)
        try:
            for port, resolved in zip(ports, claimed, strict=True):
                if runtime and not pod.attachments:
                    await require(runtime.machine, PortForwarding).add_port(resolved)
                pod = self._registry.pod(pod.id)
                spec = msgspec.structs.replace(pod.spec, ports=[*pod.spec.ports, port])
                self._machines.update(pod.id, spec=spec, ports=[*pod.ports, resolved])
        finally:  # from here on the record tells, of a pod that runs
            self._networks.ports.release(pod.id, claimed)
        await self._networks.refresh()
        return self._registry.pod(pod.id).ports

    def _check_ports_can_change(self, pod: Pod, runtime: Runtime) -> None:
        if not pod.attachments:
            require(runtime.machine, PortForwarding)
        if not pod.attachments and self._networks.uses_passt:
            raise Unsupported(
                f"{pod.name} runs, and passt publishes ports only when it starts",
                hint="stop it first, or set user_network to slirp",
            )

    async def remove_ports(self, key: str, ports: list[PortMapping]) -> list[PortMapping]:
        """Those with the same protocol and container port, and host port if given."""
        pod = self._registry.pod(key)
        runtime = self._machines.runtime(pod.id)
        if runtime:
            self._check_ports_can_change(pod, runtime)
        for wanted in ports:

            def same(p: PortMapping, wanted: PortMapping = wanted) -> bool:
                host = not wanted.host_port or not p.host_port or p.host_port == wanted.host_port
                return host and (p.protocol, p.container_port) == (wanted.protocol, wanted.container_port)

            matching = [p for p in pod.ports or pod.spec.ports if same(p)]
            if not matching:
                raise InvalidState(f"pod {pod.name} does not publish {wanted.container_port}/{wanted.protocol}",
                                   hint=f"see `hyperctl ports ls {pod.name}`")  # fmt: skip
            for port in matching if runtime and not pod.attachments else []:
                await require(runtime.machine, PortForwarding).remove_port(port)  # type: ignore[union-attr]
            spec = msgspec.structs.replace(pod.spec, ports=[p for p in pod.spec.ports if not same(p)])
            pod = self._machines.update(pod.id, spec=spec, ports=[p for p in pod.ports if p not in matching])
        await self._networks.refresh()
        return pod.ports

    # -- described --------------------------------------------------------------------

    def details(self, key: str) -> PodDetails:
        pod = self._registry.pod(key)
        return PodDetails(pod=pod, containers=self._registry.members(pod.id))

    def all(self) -> list[PodInfo]:
        return [
            PodInfo(
                id=p.id,
                name=p.name,
                created_at=p.created_at,
                vcpus=p.vcpus,
                memory=p.memory,
                status=p.status,
                vm_pid=p.vm.pid if p.vm else 0,
                containers=[c.name for c in self._registry.members(p.id)],
                labels=p.labels,
                implicit=p.implicit,
                error=p.error,
                ports=p.ports,
            )
            for p in self._registry.pods()
        ]

    async def wake(self) -> None:
        """Let paused machines go on, so that they can be stopped; one that does not is ended without."""
        paused = [p.id for p in self._registry.pods() if p.status is PodStatus.PAUSED]
        await asyncio.gather(*(self.unpause(id_) for id_ in paused), return_exceptions=True)

    async def leave(self) -> None:
        """End this daemon's own tasks."""
        for task in list(self._tasks):
            task.cancel()
        await asyncio.gather(*self._tasks, return_exceptions=True)
