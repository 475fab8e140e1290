# SPDX-License-Identifier: Apache-2.0
"""Pods that go on from a saved one: their files and records, their machine, and their containers' programs."""

from __future__ import annotations

import asyncio
import dataclasses
import os
from collections.abc import Sequence

from ...errors import Unavailable
from ...guest.agent import Fork, Freeze
from ...guest.agent import require as require_of_guest
from ...hypervisor.facets import FixedDevices
from ...model import ids
from ...model.quotas import Amounts
from ...model.status import Container, MountPoint, Pod
from ...sys import tasks
from ..containers import Containers
from ..placement import Placement
from ..registry import Registry
from ..runtime import Runtime
from ..sandboxes import Sandboxes
from . import records
from .copies import Copies
from .launched import LaunchEarly
from .saved import Saved
from .source import Waking, Woken

_USER = "fork"  # of a machine, until its containers have been taken up


class Making:
    """Makes a pod and all that is its, or nothing."""

    def __init__(
        self, registry: Registry, placement: Placement, containers: Containers, sandboxes: Sandboxes, woken: Woken,
        copies: Copies,
    ) -> None:  # fmt: skip
        self._registry = registry
        self._placement = placement
        self._containers = containers
        self._sandboxes = sandboxes
        self._woken = woken
        self._copies = copies

    @property
    def early(self) -> LaunchEarly:
        """Launches a machine for the first pod while what it is made of is being saved."""
        return self._woken.launch_early

    async def make(self, saved: Saved, name: str) -> Pod:
        """A pod that runs when this returns; `name` "" is one that follows from the saved pod's.

        :raise Conflict: a name is taken. :raise Unavailable: its machine does not go on.
        """
        document, pod_id = saved.document, ids.new_id()
        name = name or f"{document.pod.name[:56]}-{pod_id[:6]}"
        self._registry.check_pod_name(name)
        held: list[str] = []
        points: list[MountPoint] = []
        try:
            containers = {
                old: (pod_id if document.pod.implicit else ids.new_id(), self._hold(held, called))
                for old, called in records.names_for(document, name).items()
            }
            who = records.Identity(pod_id, name, containers, {})
            try:
                with self._registry.quotas.admitted(self._amounts(saved, who)):
                    await self._make(saved, who, points)
            except BaseException:
                await tasks.to_the_end(self._undo(who.ids, points))
                raise
        finally:
            for called in held:
                self._registry.release(called)
        return self._registry.pod(pod_id)

    def _amounts(self, saved: Saved, who: records.Identity) -> dict[str, Amounts]:
        """What of quotas it takes, by the ids that it will have."""
        quotas, document = self._registry.quotas, saved.document
        found = {who.containers[c.id][0]: quotas.container(c.spec) for c in document.containers}
        own = Amounts(pods=1, ports=len(document.pod.spec.ports), disk=self._copies.bytes_of(saved))
        found[who.pod_id] = found.get(who.pod_id, Amounts()) + own
        return found

    async def make_all(self, saved: Saved, names: Sequence[str]) -> list[Pod]:
        """One for each name, or none: as many at a time as this host has processors for."""
        room = asyncio.Semaphore(os.cpu_count() or 1)

        async def make(name: str) -> Pod:
            async with room:
                return await self.make(saved, name)

        making = [asyncio.create_task(make(name)) for name in names]
        try:
            return await asyncio.gather(*making)
        except BaseException:
            await tasks.to_the_end(self._unmake_all(making))
            raise

    async def _unmake_all(self, making: Sequence[asyncio.Task[Pod]]) -> None:
        await tasks.end(making)
        for task in making:
            if not task.cancelled() and not task.exception():
                await self.unmake(task.result())

    async def _make(self, saved: Saved, who: records.Identity, points: list[MountPoint]) -> None:
        for id_ in who.ids:
            self._registry.begin(id_)
        who = dataclasses.replace(who, volumes=await self._copies.of_volumes(saved, who.pod_id, points))
        members = await self._make_records(saved, who)
        await self._go_on(saved, who, members)
        for id_ in who.ids:
            self._registry.finish(id_)

    def _hold(self, held: list[str], name: str) -> str:
        held.append(self._registry.reserve(name))
        return held[-1]

    async def unmake(self, pod: Pod) -> None:
        """It was made, and is not wanted."""
        members = self._registry.members(pod.id)
        points = [m for c in members for m in c.mounts]
        await self._undo(list(dict.fromkeys([pod.id, *(c.id for c in members)])), points)

    async def _undo(self, made: list[str], points: list[MountPoint]) -> None:
        """`made` are ids of the pod, the first, and of its containers, which may have no records yet."""
        pod_id = made[0]
        await self._sandboxes.down(pod_id, clean=False)
        for container in self._registry.members(pod_id):
            await self._containers.abandon(container, "the pod that it is in could not go on")
        await self._containers.remove_pod(pod_id)
        for id_ in made:
            await self._containers.files.remove(id_)
        await self._copies.volumes.remove_anonymous(points)

    async def _make_records(self, saved: Saved, who: records.Identity) -> list[Container]:
        """With the files of the containers; the records are in the registry."""
        document = saved.document
        hostname, spec = records.hostname_for(document, who.pod_id, who.name), records.spec_for(document)
        aliases = [] if document.pod.implicit else [n for _, n in who.containers.values()]
        spec, attachments = self._placement.plan(who.pod_id, spec, aliases, (who.name, hostname))
        pod = records.pod_record(document, who, hostname, spec, attachments)
        await self._copies.of_secrets(saved, pod)
        members = [records.container_record(document, c, who, pod, self._copies.paths) for c in document.containers]
        for old, new in zip(document.containers, members, strict=True):
            await self._copies.of_container(saved, old, new)
        self._registry.create(pod, *members)
        return members

    # -- its machine ----------------------------------------------------------------------

    async def _go_on(self, saved: Saved, who: records.Identity, members: list[Container]) -> None:
        """No program of it runs before its network's rules are in force."""
        with self._woken.waits(who.pod_id, Waking(saved, who, members)):
            runtime = await self._sandboxes.acquire(who.pod_id, _USER)
        for container in members:
            self._containers.tell("create", container)
            if container.state.status in records.RAN:
                await self._continue(container, runtime)
        new = {old: id_ for old, (id_, _) in who.containers.items()}
        freeze = require_of_guest(runtime.agent, Freeze)
        for old in saved.document.frozen:
            await freeze.freeze_container(new[old][:12], False)
        if not isinstance(runtime.machine, FixedDevices):  # there the balloon stays, and nobody asks for free pages
            require_of_guest(runtime.agent, Fork).keep_free_pages()
        self._sandboxes.sandbox(who.pod_id).save()
        await self._sandboxes.release(who.pod_id, _USER)

    async def _continue(self, container: Container, runtime: Runtime) -> None:
        """Its program, which the guest has."""
        runtime.users.add(container.id)
        number = runtime.processes.get(container.id, 0)
        if not await self._containers.reattach(container, runtime, number):
            runtime.users.discard(container.id)
            raise Unavailable(f"the program of container {container.name} is not in what was saved")
        self._containers.tell("start", self._registry.container(container.id))
