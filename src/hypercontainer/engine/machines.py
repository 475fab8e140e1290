# SPDX-License-Identifier: Apache-2.0
"""The VMs of pods: up when the first needs one, down when the last has ended.

Whoever needs a pod's machine is a user of its `Runtime`: each running
container, a start of the pod, a copy out of a stopped container.
"""

from __future__ import annotations

import asyncio
import contextlib
import logging
from typing import Any

import msgspec

from ..errors import Conflict, HyperError, InvalidState, Unavailable
from ..model import ids
from ..model.status import Container, Pod, PodStatus
from ..sys import deadlines, tasks
from ..sys.spans import span
from .events import Events
from .life import PodLife
from .networks import Networks
from .provision import Provisioner
from .registry import Registry
from .runtime import Runtime, record

log = logging.getLogger(__name__)
_GONE_TIMEOUT = 30.0  # seconds for the end of a machine that others still give back


class Machines:
    """Boots and ends them."""

    def __init__(self, registry: Registry, provisioner: Provisioner, networks: Networks, events: Events) -> None:
        self._registry = registry
        self._provisioner = provisioner
        self._networks = networks
        self._events = events
        self._lives: dict[str, PodLife] = {}
        self._late: dict[str, asyncio.Task[None]] = {}  # pods whose machines do not answer since the daemon's start

    def life(self, pod_id: str) -> PodLife:
        return self._lives.setdefault(pod_id, PodLife())

    def runtime(self, pod_id: str) -> Runtime | None:
        """The pod's VM while it runs."""
        life = self._lives.get(pod_id)
        return life.runtime if life and life.runtime and not life.runtime.dead else None

    def running(self) -> list[tuple[Pod, Runtime]]:
        """The pods that have a VM, whether it answers or not."""
        found = [(id_, life.runtime) for id_, life in self._lives.items() if life.runtime]
        return [(self._registry.pod(id_), runtime) for id_, runtime in found if self._registry.has_pod(id_)]

    def update(self, pod_id: str, **changes: Any) -> Pod:
        pod = msgspec.structs.replace(self._registry.pod(pod_id), **changes)
        self._registry.put_pod(pod)
        return pod

    def save(self, pod_id: str, runtime: Runtime) -> None:
        """Write down what is needed to find the VM again."""
        self._registry.put_pod(record(self._registry.pod(pod_id), runtime))

    def _tell(self, action: str, pod: Pod) -> None:
        if not pod.implicit:
            self._events.publish("pod", action, pod.id, name=pod.name)

    async def acquire(self, pod_id: str, user: str) -> Runtime:
        """The running VM, booted when it is not; it goes on until `release`.

        :raise Conflict: a port or a volume is taken. :raise Unavailable: it does not boot.
        """
        life = self.life(pod_id)
        if (late := self._late.get(pod_id)) and late is not asyncio.current_task():
            await asyncio.wait({late})
        while True:
            async with life.lock:
                runtime = life.runtime
                if runtime is None:
                    runtime = await self._boot(pod_id, life)
                elif runtime.dead and not runtime.users:
                    await self._take_down(pod_id, life, runtime, clean=False)
                    continue
                if not runtime.dead:
                    runtime.users.add(user)
                    return runtime
            await self._gone(
                runtime, f"the earlier virtual machine of pod {self._registry.pod(pod_id).name} has not ended"
            )

    async def _gone(self, runtime: Runtime, otherwise: str) -> None:
        try:
            await tasks.within(runtime.gone.wait(), _GONE_TIMEOUT)
        except TimeoutError:
            raise Unavailable(otherwise, hint="try again, or restart hyperd") from None

    async def _boot(self, pod_id: str, life: PodLife) -> Runtime:
        pod = self._registry.pod(pod_id)
        await self._check_volumes(pod)
        members = self._registry.members(pod_id)
        try:
            pod = self.update(pod_id, ports=self._networks.ports.claim(pod, pod.spec.ports))
            runtime = await self._boot_in_network(pod_id, members)
        except BaseException:
            await self._networks.take_down(pod_id)
            raise
        life.runtime = runtime
        life.watch = asyncio.create_task(self._watch(pod_id, life, runtime))
        try:
            return self._booted(pod_id, runtime, members)
        except BaseException:
            await self._take_down(pod_id, life, runtime, clean=False)
            raise

    def _booted(self, pod_id: str, runtime: Runtime, members: list[Container]) -> Runtime:
        """Record it; pod and containers may have been changed meanwhile, or removed."""
        self.save(pod_id, runtime)
        self._networks.ports.release(pod_id)  # from here on the record tells
        pod = self._registry.pod(pod_id)
        for c in [self._registry.container(c.id) for c in members if self._registry.exists(c.id)]:
            self._registry.put(msgspec.structs.replace(c, used=True, ports=pod.ports if pod.implicit else c.ports))
        status = PodStatus.STARTING if pod.status is PodStatus.STARTING else PodStatus.RUNNING
        pod = self.update(pod_id, status=status, error="", started_at=ids.now(), finished_at="")
        self._tell("start", pod)
        return runtime

    async def _boot_in_network(self, pod_id: str, members: list[Container]) -> Runtime:
        with span("network prepared"):
            await self._networks.prepare(self._registry.pod(pod_id))
        pod = self._registry.pod(pod_id)
        # The rules take as long as a part of the boot; no container runs before they are there.
        rules = asyncio.create_task(self._networks.bring_up(pod))
        try:
            runtime = await self._provisioner.boot(pod, members)
        except BaseException:
            rules.cancel()
            await asyncio.gather(rules, return_exceptions=True)
            raise
        try:
            with span("rules awaited"):
                await rules
        except BaseException:
            await runtime.stop(clean=False)
            raise
        return runtime

    async def _check_volumes(self, pod: Pod) -> None:
        """A disk that is written serves one machine at a time; one that is about to end is waited for."""
        mine = {v.source for v in pod.volumes if v.kind == "disk" and not v.read_only}
        others = [p for p in self._registry.pods() if p.id != pod.id and p.vm] if mine else []
        for other in others:
            shared = next((v for v in other.volumes if v.kind == "disk" and v.source in mine), None)
            runtime = self.life(other.id).runtime
            if shared is None or runtime is None:
                continue
            if runtime.users:
                name = shared.named or shared.source
                raise Conflict(
                    f"volume {name} is in use by the running pod {other.name}: a block volume serves one at a time",
                    hint="stop that pod, or share a volume made with --driver directory",
                )
            await self._gone(
                runtime, f"the virtual machine of pod {other.name}, which has the same volume, does not end"
            )

    async def _watch(self, pod_id: str, life: PodLife, runtime: Runtime) -> None:
        """Take down a machine that ends by itself while nothing runs in it."""
        await runtime.session.closed.wait()
        async with life.lock:
            if life.runtime is runtime and not runtime.users:
                await self._take_down(
                    pod_id, life, runtime, clean=False, error="the virtual machine ended unexpectedly"
                )

    async def build(self, runtime: Runtime, container: Container) -> None:
        """Let the guest have the container. Idempotent.

        :raise GuestError: when the guest cannot mount its root or a volume.
        """
        if container.id in runtime.built:
            return
        async with self.life(container.pod).lock:
            pod = self._registry.pod(container.pod)
            names = [n for c in self._registry.members(pod.id) for n in (c.name, *c.spec.aliases)]
            try:
                await self._provisioner.build(runtime, pod, container, names)
            finally:
                if not runtime.dead:
                    self.save(pod.id, runtime)

    async def drop(self, container: Container, *, volumes: list[str]) -> None:
        """Take a container that is removed out of the running guest, with volumes that go with it."""
        runtime = self.runtime(container.pod)
        if runtime is None:
            return
        async with self.life(container.pod).lock:
            pod = self._registry.pod(container.pod)
            with contextlib.suppress(HyperError):
                await self._provisioner.drop(runtime, pod, container)
                for name in volumes:
                    await self._provisioner.drop_volume(runtime, pod, name)
            if not runtime.dead:
                self.save(pod.id, runtime)

    async def release(self, pod_id: str, runtime: Runtime, user: str, *, clean: bool = True) -> None:
        """The machine goes down when nobody uses it any more and the pod does not say otherwise."""
        runtime.users.discard(user)
        life = self.life(pod_id)
        async with life.lock:
            if runtime.users or life.runtime is not runtime:
                return
            pod = self._registry.pod(pod_id) if self._registry.has_pod(pod_id) else None
            if pod is None or runtime.dead or pod.implicit or pod.spec.exit_policy == "stop":
                await self._take_down(pod_id, life, runtime, clean=clean)

    async def down(self, pod_id: str, *, clean: bool = True) -> None:
        """End the machine, whoever uses it. Idempotent."""
        await self.give_up(pod_id)
        life = self.life(pod_id)
        async with life.lock:
            if life.runtime:
                await self._take_down(pod_id, life, life.runtime, clean=clean)

    async def _take_down(self, pod_id: str, life: PodLife, runtime: Runtime, *, clean: bool, error: str = "") -> None:
        await runtime.stop(clean=clean)
        await self._networks.take_down(pod_id)
        life.runtime = None
        if life.watch and life.watch is not asyncio.current_task():
            life.watch.cancel()
        if not self._registry.has_pod(pod_id):
            return
        pod = self._registry.pod(pod_id)
        status = pod.status if pod.status in (PodStatus.FAILED, PodStatus.STARTING) else PodStatus.EXITED
        pod = self.update(pod_id, vm=None, status=status, finished_at=ids.now(), error=error or pod.error)
        self._tell("stop", pod)

    def adopt(self, pod: Pod, runtime: Runtime) -> None:
        """Go on with a VM that an earlier daemon started."""
        life = self.life(pod.id)
        life.runtime = runtime
        self.save(pod.id, runtime)
        life.watch = asyncio.create_task(self._watch(pod.id, life, runtime))

    # -- machines that do not answer when the daemon starts -----------------------------

    def expect(self, pod_id: str, task: asyncio.Task[None]) -> None:
        """The daemon goes on, while this task waits for a pod's machine further."""
        self._late[pod_id] = task
        task.add_done_callback(lambda _: self._late.pop(pod_id, None))

    def is_late(self, pod_id: str) -> bool:
        return pod_id in self._late

    async def give_up(self, pod_id: str) -> bool:
        """End a machine that is waited for; its records are settled then. False when there is none."""
        task = self._late.get(pod_id)
        if task is None or task is asyncio.current_task():
            return False
        if machine := await self._provisioner.left_behind(self._registry.pod(pod_id)):
            await machine.kill()
        await asyncio.wait({task}, timeout=deadlines.DEATH)
        return True

    def forget(self, pod_id: str) -> None:
        self._lives.pop(pod_id, None)

    async def leave(self) -> None:
        """Let the VMs run on without us."""
        await tasks.end(list(self._late.values()))
        for life in self._lives.values():
            if life.watch:
                life.watch.cancel()
            if life.runtime:
                life.runtime.session.close()
                life.runtime.machine.detach()
        await asyncio.gather(*(life.watch for life in self._lives.values() if life.watch), return_exceptions=True)


def check_awake(pod: Pod) -> None:
    """:raise InvalidState: when the pod is paused: its guest would not answer."""
    if pod.status is PodStatus.PAUSED:
        raise InvalidState(f"pod {pod.name} is paused", hint=f"use `hyperctl pod unpause {pod.name}`")
