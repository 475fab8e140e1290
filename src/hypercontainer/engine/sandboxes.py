# SPDX-License-Identifier: Apache-2.0
"""The sandboxes of all pods: what containers, pods and copies ask of their VMs."""

from __future__ import annotations

import contextlib
import logging
from collections.abc import Iterator
from typing import Any

import msgspec

from ..errors import HyperError, InvalidState, Unavailable
from ..guest.agent import Process
from ..hypervisor.facets import Balloon
from ..model.specs import PortMapping
from ..model.status import Container, Pod
from . import resolve
from .bring_up import BringUp
from .build import Builder
from .events import Events
from .reattach import Reattacher
from .registry import Registry
from .runtime import Runtime
from .sandbox import Sandbox
from .sandbox_verbs import (
    Acquire,
    Down,
    GiveUp,
    Pause,
    Reattached,
    Release,
    State,
    Unpause,
    Work,
    check_awake,
    check_not_suspended,
)
from .streams import FanOut

log = logging.getLogger(__name__)


class Sandboxes:
    """Finds a pod's sandbox, and asks it."""

    def __init__(
        self,
        registry: Registry,
        bring_up: BringUp,
        reattacher: Reattacher,
        builder: Builder,
        events: Events,
        *,
        kill_silent: bool = False,
    ) -> None:
        """`kill_silent` ends machines that do not answer any more."""
        self._kill_silent = kill_silent
        self._registry = registry
        self._bring_up = bring_up
        self._reattacher = reattacher
        self._builder = builder
        self._events = events
        self._sandboxes: dict[str, Sandbox] = {}

    def sandbox(self, pod_id: str) -> Sandbox:
        """The supervisor of a pod's VM, begun at the first need."""
        found = self._sandboxes.get(pod_id)
        if found is None:
            found = self._sandboxes[pod_id] = Sandbox(
                self._registry.pod(pod_id), self._registry, self._bring_up, self._reattacher, self._events,
                kill_silent=self._kill_silent,
            )  # fmt: skip
        return found

    def runtime(self, pod_id: str) -> Runtime | None:
        """The pod's VM while it runs."""
        found = self._sandboxes.get(pod_id)
        runtime = found.runtime if found else None
        return runtime if runtime and not (runtime.dead or runtime.suspended) else None

    def awake(self, pod: Pod) -> Runtime:
        """The pod's VM, which answers.

        :raise InvalidState: when it does not run, or is paused.
        """
        runtime = self.runtime(pod.id)
        check_awake(pod)
        if runtime is None:
            raise InvalidState(f"pod {pod.name} is not running", hint=f"start it with `hyperctl start {pod.name}`")
        return runtime

    def changing(self, pod: Pod) -> Runtime | None:
        """The pod's VM while it runs, for what it is told together with the record.

        :raise InvalidState: it is suspended, or about to be, and could not be told.
        """
        check_not_suspended(pod)
        if self.is_suspending(pod.id):
            raise InvalidState(f"pod {pod.name} is being suspended", hint=f"use `hyperctl pod resume {pod.name}` then")
        return self.runtime(pod.id)

    def booted(self, pod_id: str) -> Runtime | None:
        """The pod's VM until it has ended, whether it answers or not."""
        found = self._sandboxes.get(pod_id)
        return found.runtime if found else None

    def running(self) -> list[tuple[Pod, Runtime]]:
        """The pods that have a VM, whether it answers or not."""
        found = [(id_, s.runtime) for id_, s in self._sandboxes.items() if s.runtime and not s.runtime.suspended]
        return [(self._registry.known_pod(id_), runtime) for id_, runtime in found if self._registry.has_pod(id_)]

    def has_machine(self, pod_id: str) -> bool:
        """Whether a VM is there, is made, or ends."""
        found = self._sandboxes.get(pod_id)
        return found is not None and found.state is not State.DOWN

    def is_up(self, pod_id: str) -> bool:
        """Whether it runs, and does not only begin to."""
        found = self._sandboxes.get(pod_id)
        return found is not None and found.state is State.UP

    def is_suspended(self, pod_id: str) -> bool:
        """Whether it is on the disk, and nothing changes that now."""
        found = self._sandboxes.get(pod_id)
        return found is not None and found.state is State.SUSPENDED

    def is_suspending(self, pod_id: str) -> bool:
        """Whether it is being put on the disk."""
        found = self._sandboxes.get(pod_id)
        return found is not None and found.state is State.SUSPENDING

    def update(self, pod_id: str, **changes: Any) -> Pod:
        """Change fields of a pod's record; gives the record that there is then."""
        pod = msgspec.structs.replace(self._registry.pod(pod_id), **changes)
        self._registry.put_pod(pod)
        return pod

    @contextlib.contextmanager
    def ports_in_change(self, pod_id: str, ports: list[PortMapping]) -> Iterator[None]:
        """While its machine begins or ends to publish them: the record says so, should the daemon die meanwhile."""
        runtime = self.runtime(pod_id)
        if runtime is None:
            yield
            return
        runtime.ports_in_change += ports
        self.sandbox(pod_id).save()
        try:
            yield
        finally:
            runtime.ports_in_change = [p for p in runtime.ports_in_change if p not in ports]
            self.sandbox(pod_id).save()

    # -- its life ---------------------------------------------------------------------

    async def acquire(self, pod_id: str, user: str) -> Runtime:
        """The running VM, booted when it is not; it goes on until `release`.

        :raise Conflict: a port or a volume is taken. :raise Unavailable: it does not boot.
        """
        runtime: Runtime = await self.sandbox(pod_id).ask(Acquire(user))
        return runtime

    async def release(self, pod_id: str, user: str, *, clean: bool = True) -> None:
        """It goes down when nobody uses it any more and the pod does not say otherwise; that is waited for."""
        if found := self._sandboxes.get(pod_id):
            await found.ask(Release(user, clean))

    async def down(self, pod_id: str, *, clean: bool = True) -> None:
        """End the machine, whoever uses it. Idempotent."""
        if found := self._sandboxes.get(pod_id):
            await found.ask(Down(clean))

    async def pause(self, pod_id: str) -> None:
        await self.sandbox(pod_id).ask(Pause())

    async def unpause(self, pod_id: str) -> None:
        """Let a pod's machine go on.

        :raise InvalidState: it is not paused.
        """
        await self.sandbox(pod_id).ask(Unpause())

    def give_up(self, pod_id: str) -> None:
        """End a machine that has not answered since the daemon's start; recovery settles its records then."""
        if found := self._sandboxes.get(pod_id):
            found.post(GiveUp())

    def forget(self, pod_id: str) -> None:
        """Of a pod that is removed, when its machine is down."""
        found = self._sandboxes.pop(pod_id, None)
        if found is not None:
            found.retire()

    def expect(self, pod_id: str) -> None:
        """An earlier daemon left a machine, which is asked whether it lives."""
        self.sandbox(pod_id).expect()

    def expect_suspended(self, pod_id: str) -> None:
        """It was suspended by an earlier daemon, and goes on when it is asked to."""
        self.sandbox(pod_id).expect_suspended()

    async def reattached(self, pod_id: str, runtime: Runtime | None) -> None:
        """The machine that an earlier daemon left is this one, or is gone (None)."""
        await self.sandbox(pod_id).ask(Reattached(runtime))

    async def detach(self) -> None:
        """Let the VMs run on without us."""
        for found in list(self._sandboxes.values()):
            await found.detach()
            if found.runtime:
                found.runtime.agent.close()
            if found.runtime and not found.runtime.suspended:
                found.runtime.machine.detach()

    # -- what is in it ----------------------------------------------------------------

    async def build(self, container: Container) -> None:
        """Let the guest have the container. Idempotent.

        :raise GuestError: when the guest cannot mount its root or a volume.
        """

        async def work(runtime: Runtime) -> None:
            if container.id not in runtime.built:
                pod = self._registry.pod(container.pod)
                names = [n for c in self._registry.members(pod.id) for n in (c.name, *c.spec.aliases)]
                await self._builder.build(runtime, pod, container, names)

        runtime = self.runtime(container.pod)
        if runtime is None or container.id not in runtime.built:
            await self.sandbox(container.pod).ask(Work(work))

    async def drop(self, container: Container, *, volumes: list[str]) -> None:
        """Take a container that is removed out of the running guest, with volumes that go with it."""

        async def work(runtime: Runtime) -> None:
            pod = self._registry.pod(container.pod)
            with contextlib.suppress(HyperError):
                await self._builder.drop(runtime, pod, container)
                for name in volumes:
                    await self._builder.drop_volume(runtime, pod, name, self.sandbox(pod.id).save)

        if self.runtime(container.pod) is not None:
            with contextlib.suppress(Unavailable):  # it ends, or is down
                await self.sandbox(container.pod).ask(Work(work))

    async def start_main(
        self, container: Container, runtime: Runtime, fan_out: FanOut, size: tuple[int, int]
    ) -> Process:
        """:raise StartFailed: when the program cannot be executed."""
        pod = self._registry.pod(container.pod)
        if runtime.given_back != 0:  # it may be what this container needs
            await self.give_back(pod.id)
        handle = await self._builder.start_main(runtime, pod, container, fan_out, size)
        self.sandbox(container.pod).save()
        self.limit_cpus(pod.id)
        return handle

    def limit_cpus(self, pod_id: str) -> None:
        """Hold a pod's machine, if it runs, to the processors that its containers want, from outside too."""
        if (runtime := self.runtime(pod_id)) and self._registry.has_pod(pod_id):
            vcpus = self._registry.pod(pod_id).vcpus
            wanted = resolve.cpus_wanted([c.spec for c in self._registry.members(pod_id)], vcpus)
            runtime.allotment.limit_cpus(vcpus, wanted)

    async def give_back(self, pod_id: str) -> None:
        """What a pod's containers may not use of its machine's memory is this host's, where the driver can do that."""
        runtime = self.runtime(pod_id)
        if runtime and isinstance(runtime.machine, Balloon) and self._registry.has_pod(pod_id):
            specs = [c.spec for c in self._registry.members(pod_id)]
            spare = resolve.memory_spare(specs, self._registry.pod(pod_id).memory)
            try:
                if spare != runtime.given_back:
                    await runtime.machine.give_back(spare)
                    runtime.given_back = spare
            except Unavailable as error:  # the limits hold without it
                log.warning("pod %s keeps memory that its containers may not use: %s", pod_id[:12], error)

    def released_by_record(self, pod: Pod) -> bool:
        """Whether its record has to outlive what its machine has of this host."""
        return self._bring_up.released_by_record(pod)

    async def forget_process(self, container: Container, runtime: Runtime, handle: Process) -> None:
        """The machine goes on without it: the guest need not keep its end any longer, once that is in the record."""
        if self._registry.journal.pending or runtime.handles.get(container.id) is not handle:
            return
        del runtime.handles[container.id]
        runtime.processes.pop(container.id, None)
        with contextlib.suppress(HyperError):
            await handle.release()
        self.sandbox(container.pod).save()
