# SPDX-License-Identifier: Apache-2.0
"""A pod's machine with all that it needs of the host: volumes that are free, ports, its network, and the machine."""

from __future__ import annotations

import asyncio
import contextlib
from collections.abc import Awaitable, Callable

import msgspec

from ..errors import Conflict, QuotaExceeded, Unavailable
from ..model.status import Container, Pod, PodStatus, PodVolume
from ..sys import tasks
from ..sys.removal import removed
from ..sys.spans import span
from .host_devices import HostDevices
from .launch import Launcher
from .paths import Paths
from .pod_network import PodNetwork
from .registry import Registry
from .runtime import Runtime
from .volume_sources import volumes_of

_GONE_TIMEOUT = 30.0  # seconds for the end of a machine that others still give back


class ExclusiveVolumes:
    """A disk that is written serves one machine at a time."""

    def __init__(self, registry: Registry, booted: Callable[[str], Runtime | None]) -> None:
        """`booted` gives a pod's machine until it has ended."""
        self._registry = registry
        self._booted = booted

    async def free(self, pod: Pod) -> None:
        """When no other machine has what the pod's writes; one that is about to end is waited for.

        :raise Conflict: a pod that runs has it. :raise Unavailable: one does not end.
        """
        mine = {v.source for v in pod.volumes if v.kind == "disk" and not v.read_only}
        others = [p for p in self._registry.pods() if p.id != pod.id and _has_disks(p)] if mine else []
        for other in others:
            shared = next((v for v in other.volumes if v.kind == "disk" and v.source in mine), None)
            runtime = self._booted(other.id)
            if shared is None or (runtime is None and other.status is not PodStatus.SUSPENDED):
                continue
            if runtime is None or runtime.users or runtime.suspended:
                name = shared.named or shared.source
                raise Conflict(
                    f"volume {name} is in use by the {_how(other)} pod {other.name}: "
                    "a block volume serves one at a time",
                    hint=f"stop that pod, or make it anew as a directory, which several share: `docker volume create "
                    f"-o type=directory {name}`, or `hyperctl volume create --driver directory {name}`",
                )
            try:
                await tasks.within(runtime.gone.wait(), _GONE_TIMEOUT)
            except TimeoutError:
                raise Unavailable(
                    f"the virtual machine of pod {other.name}, which has the same volume, does not end",
                    hint="try again, or restart hyperd",
                ) from None

    async def another_ended(self, pod: Pod) -> bool:
        """Whether a machine of the same owner has ended that was about to; none is waited for for ever."""
        others = [p for p in self._registry.of_tenant(pod.tenant).pods if p.vm and p.id != pod.id]
        ending = [r for p in others if (r := self._booted(p.id)) and r.ending]
        ends = [asyncio.create_task(r.gone.wait()) for r in ending]
        try:
            if not ends:
                return False
            done, _ = await asyncio.wait(ends, timeout=_GONE_TIMEOUT, return_when=asyncio.FIRST_COMPLETED)
            return bool(done)
        finally:
            await tasks.end(ends)


class BringUp:
    """Takes what a machine needs, in order, and gives it back."""

    def __init__(
        self, registry: Registry, launcher: Launcher, network: PodNetwork, volumes: ExclusiveVolumes,
        devices: HostDevices, paths: Paths,
    ) -> None:  # fmt: skip
        self._registry = registry
        self._paths = paths
        self.make_room: Callable[[str], Awaitable[None]] = _nothing  # what stands in the place of a suspended pod goes
        self.ending: Callable[[Pod], None] = lambda pod: None  # called while what a machine has is still there
        self.allowed: Callable[[Pod], None] = lambda pod: None  # raises why its owner may start nothing
        self._launcher = launcher
        self._network = network
        self._volumes = volumes
        self._devices = devices

    async def up(self, pod_id: str) -> Runtime:
        """The machine, in its network; nothing is taken when it fails. The caller records it, and says so."""
        pod = self._registry.pod(pod_id)
        self.allowed(pod)
        self._launcher.check(pod)
        await self._volumes.free(pod)
        members = self._registry.members(pod_id)
        try:
            await self._claim(pod)
            await self._devices.claim(pod)
            ports = self._network.claim(pod, pod.spec.ports)
            pod = self._registry.pod(pod_id)
            self._registry.put_pod(msgspec.structs.replace(pod, ports=ports, volumes=_wanted(pod, members)))
            return await self._boot(pod_id, members)
        except BaseException:
            self._registry.quotas.release(pod_id)
            self._devices.release(pod_id)
            await self._network.release(pod_id)
            raise

    async def _claim(self, pod: Pod) -> None:
        """:raise QuotaExceeded: whose it is may not run so much, also when what is about to end has ended."""
        while True:
            try:
                self._registry.quotas.claim(pod)
                return
            except QuotaExceeded:
                if not await self._volumes.another_ended(pod):
                    raise

    async def _boot(self, pod_id: str, members: list[Container]) -> Runtime:
        with span("network prepared"):
            await self._network.prepare(self._registry.pod(pod_id))
        pod = self._registry.pod(pod_id)
        # The rules take as long as a part of the boot; no container runs before they are there.
        rules = asyncio.create_task(self._network.enforce(pod))
        if pod.spec.egress:  # nor does a frame leave its machine before, whatever this goes on from
            await rules
        try:
            runtime = await self._launcher.boot(pod, members)
        except BaseException:
            await tasks.end([rules])
            raise
        try:
            with span("rules awaited"):
                await rules
        except BaseException:
            await runtime.stop(clean=False)
            raise
        runtime.user_network = self._network.user_network(pod)
        return runtime

    def released_by_record(self, pod: Pod) -> bool:
        """Whether its record has to outlive what its machine has of this host."""
        return bool(pod.volumes) or self._network.released_by_record(pod)

    def recorded(self, pod_id: str) -> None:
        """From here on the record tells which ports and devices it has."""
        self._registry.quotas.release(pod_id)
        self._devices.release(pod_id)
        self._network.unclaim(pod_id)

    # -- of a pod that is suspended -------------------------------------------------------

    async def put_away(self, pod_id: str, runtime: Runtime) -> None:
        """Its machine ends, and nobody hears of that; it has no network."""
        async with contextlib.AsyncExitStack() as stack:  # whatever fails, or is cancelled: the last comes first
            stack.push_async_callback(self._network.release, pod_id)
            stack.callback(runtime.allotment.give_back)
            stack.push_async_callback(removed, runtime.directory)
            await runtime.machine.kill()

    async def again(self, pod_id: str) -> Runtime:
        """A machine for it, in its network and with its ports; nothing is taken when it fails.

        :raise Conflict: a volume is in use by now, or a port. :raise Unavailable: it does not go on.
        """
        await self.make_room(pod_id)
        pod = self._registry.pod(pod_id)
        self.allowed(pod)
        self._launcher.check(pod)
        await self._volumes.free(pod)
        try:
            await self._claim(pod)
            return await self._boot(pod_id, self._registry.members(pod_id))
        except BaseException:
            self._registry.quotas.release(pod_id)
            await self._network.release(pod_id)
            raise

    async def forget(self, pod_id: str) -> None:
        """What it would have gone on from is gone. Idempotent."""
        if (saved := self._paths.suspended(pod_id)).exists():
            await self.make_room(pod_id)
            await removed(saved)

    async def down(self, pod_id: str, runtime: Runtime, *, clean: bool) -> None:
        """`clean` makes what was written safe first."""
        try:
            self.tell_end(pod_id)
            await self.forget(pod_id)
            if runtime.lost and not runtime.killed:
                await runtime.tell_its_end()
            await runtime.stop(clean=clean)
        finally:
            self._devices.release(pod_id)
            await self._network.release(pod_id)

    def tell_end(self, pod_id: str) -> None:
        """Its machine is about to go, and its record tells of it still."""
        if self._registry.has_pod(pod_id):
            self.ending(self._registry.pod(pod_id))


async def _nothing(pod_id: str) -> None: ...


def _has_disks(pod: Pod) -> bool:
    """Whether it has a machine, or would go on where that was."""
    return bool(pod.vm) or pod.status is PodStatus.SUSPENDED


def _how(pod: Pod) -> str:
    return "suspended" if pod.status is PodStatus.SUSPENDED else "running"


def _wanted(pod: Pod, members: list[Container]) -> list[PodVolume]:
    """Its volumes without directories of the host that only a removed container had: they stay as long as a machine
    has them in its tree.
    """
    used = {name for c in members for name in volumes_of(c)}
    return [v for v in pod.volumes if v.declared or v.kind != "directory" or v.name in used]
