# SPDX-License-Identifier: Apache-2.0
"""From the files of a suspended pod to its machine, which goes on where it was."""

from __future__ import annotations

import asyncio
import hashlib
import logging
import os
from collections.abc import Sequence

from msgspec.structs import replace

from ...errors import HyperError, InvalidState, Unavailable
from ...guest.agent import Agent, Freeze
from ...guest.agent import require as require_of_guest
from ...guest.greet import wake
from ...hypervisor.driver import Driver, Machine, MachineConfig
from ...hypervisor.facets import Suspends, require
from ...model.status import ContainerStatus, Pod, PodStatus
from ...network.backend import Link, NicKind
from ...sys import tasks
from ...sys.removal import removed
from ...sys.spans import GUEST, span
from ..booted import BootedMachine
from ..bring_up import BringUp
from ..machine_config import guest_interfaces
from ..paths import Paths
from ..pod_network import PodNetwork
from ..registry import Registry
from ..runtime import Runtime, record
from ..sources import sysctls_of
from . import records
from .fingerprints import Fingerprints
from .saved import MEMORY, SavedPod, Suspended, read
from .source import Waking, Woken

log = logging.getLogger(__name__)


class Awoken(Woken):
    """Gives a machine to those suspended pods that wait for one."""

    name = "suspended"

    async def _start(self, driver: Driver, waking: Waking, config: MachineConfig) -> Machine:
        fd = os.open(waking.saved.directory / MEMORY, os.O_RDONLY | os.O_CLOEXEC)
        try:
            return await require(driver, Suspends).launch_from(config, fd)
        finally:
            os.close(fd)

    async def _greet(self, machine: Machine, token: bytes) -> Agent | None:
        return await wake(machine.connect, machine.wait, token, alone=True)

    async def _become(
        self, agent: Agent, pod: Pod, waking: Waking, booted: BootedMachine, links: Sequence[Link]
    ) -> None:
        """It is who it was, at another time."""
        with span("clock, network", GUEST):
            interfaces = guest_interfaces(pod, links, [link.mac for link in links])
            await agent.setup_pod(pod.hostname, interfaces, sysctls_of(pod, links), pod.spec.shm_size)


class Resuming:
    """Takes pods up from the disk."""

    def __init__(
        self, paths: Paths, registry: Registry, bring_up: BringUp, awoken: Awoken,
        fingerprints: Fingerprints, network: PodNetwork,
    ) -> None:  # fmt: skip
        self._paths = paths
        self._network = network
        self._registry = registry
        self._bring_up = bring_up
        self._awoken = awoken
        self._fingerprints = fingerprints

    async def resume(self, pod_id: str, held: Runtime | None) -> Runtime:
        """Its machine; `held` is what others have of the one before, if they do. What fails leaves it on the disk.

        :raise InvalidState: it does not fit this host any more. :raise Conflict: a volume or a port is in use by now.
        :raise Unavailable: its files are damaged, or its machine does not go on.
        """
        pod, saved = self._registry.pod(pod_id), await self._opened(pod_id)
        members = [c for c in self._registry.members(pod_id) if c.id in {d.id for d in saved.document.containers}]
        who = records.Identity(pod.id, pod.name, {c.id: (c.id, c.name) for c in members}, {})
        with self._awoken.waits(pod_id, Waking(saved, who, members)):
            found = await self._bring_up.again(pod_id)
        assert saved.document.pod.vm
        found.disks, found.volumes = set(saved.document.pod.vm.disks), dict(saved.document.volumes)
        if held:
            held.go_on_with(found)
        else:
            found.agent.kill_orphans(keep=set(found.processes.values()))
        runtime = held or found
        try:
            async with runtime.saving:
                self._record(pod_id, saved, runtime)
                await tasks.to_the_end(self._go_on(saved, runtime))
        except asyncio.CancelledError:  # it is there: who wants its end comes after this
            log.info("pod %s goes on, though that was given up", pod.name)
        except Exception:
            log.exception("not all of pod %s goes on", pod.name)
        return runtime

    async def _opened(self, pod_id: str) -> Suspended:
        directory = self._paths.suspended(pod_id)
        document = read(directory)
        if document.fingerprint != await self._fingerprints.of(document.pod):
            raise InvalidState(
                f"pod {document.pod.name} does not fit this host any more: its hypervisor, its kernel or its processor "
                "is another than when it was suspended",
                hint="stop it, and start it anew",
            )
        self._check_network(document)
        with open(directory / MEMORY, "rb") as file:
            found = await tasks.in_thread(lambda: hashlib.file_digest(file, "sha256").hexdigest())
        if found != document.digests.get(MEMORY):
            raise Unavailable(f"the memory of pod {document.pod.name} is damaged: it is not what was saved",
                              hint="stop it, and start it anew")  # fmt: skip
        return Suspended(document, directory)

    def _check_network(self, document: SavedPod) -> None:
        """What gives it its network may be another since: its machine has the NIC that it has."""
        now = [link.kind for link in self._network.links(self._registry.pod(document.id))]
        if now != [kind for kind in document.layout.nics if kind != NicKind.SPARE]:
            raise InvalidState(f"pod {document.pod.name} has another network than when it was suspended",
                               hint="start hyperd with the `user_network` that it had then")  # fmt: skip

    def _record(self, pod_id: str, saved: Suspended, runtime: Runtime) -> None:
        """It runs; should the daemon die before its programs do, the next one lets them go on."""
        pod = record(replace(self._registry.pod(pod_id), status=PodStatus.RUNNING), runtime)
        before = {c.id: c.state for c in saved.document.containers}
        members = [
            replace(c, state=replace(c.state, status=before[c.id].status, pid=before[c.id].pid))
            for c in self._registry.members(pod_id)
            if c.state.status is ContainerStatus.SUSPENDED and c.id in before
        ]
        self._registry.put_together(pod, *members)

    async def _go_on(self, saved: Suspended, runtime: Runtime) -> None:
        for id_ in saved.document.frozen:
            try:
                await require_of_guest(runtime.agent, Freeze).freeze_container(id_[:12], False)
            except HyperError as error:
                log.warning("container %s of a pod that was suspended does not go on: %s", id_[:12], error)
        await removed(saved.directory)
