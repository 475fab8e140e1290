# SPDX-License-Identifier: Apache-2.0
"""From a pod that runs to files from which it goes on, as the same one; its machine stands still then."""

from __future__ import annotations

import asyncio
import contextlib
import fcntl
import hashlib
import os
import select
import threading
from collections.abc import Sequence
from functools import partial
from pathlib import Path

import msgspec

from ...errors import Unavailable
from ...hypervisor.driver import Disk
from ...hypervisor.drivers import Drivers
from ...hypervisor.facets import Pause, Suspends, require
from ...model.status import Container, Pod, PodStatus
from ...state import description
from ...sys import clock, tasks
from ...sys.files import no_space_as_error, private, write_atomically
from ...sys.removal import removed
from ..descriptions import describe
from ..machine_disks import MachineDisks
from ..paths import Paths
from ..pod_network import PodNetwork
from ..registry import Registry
from ..runtime import Runtime, record
from ..sandbox_suspension import suspended
from . import refusals
from .fingerprints import Fingerprints
from .freezing import calmly, freeze
from .saved import DOCUMENT, MEMORY, Before, SavedPod, is_whole, size_of

_PASSING = ".suspended"  # what is not whole yet
_CHUNK = 1 << 20  # bytes, of a pipe and of what is read at once; what root may have without asking
_BESIDE = 64 << 20  # bytes that a machine may have beside its memory
_LOOK = 500  # milliseconds between looks whether it is given up
_SLOWEST = 1 << 20  # bytes per second that are written at least
_LEAST = 120.0  # seconds that are given for it, however little it is; and for the end, when all has been said


class Suspending:
    """Puts pods on the disk."""

    def __init__(
        self,
        paths: Paths,
        registry: Registry,
        disks: MachineDisks,
        network: PodNetwork,
        drivers: Drivers,
        fingerprints: Fingerprints,
    ) -> None:
        self._paths = paths
        self._registry = registry
        self._disks = disks
        self._network = network
        self._drivers = drivers
        self._fingerprints = fingerprints

    def check(self, pod: Pod, runtime: Runtime) -> None:
        """Raises what `refusals.check` does."""
        links, driver = self._network.links(pod), self._drivers.get(runtime.machine.driver)
        refusals.check(pod, self._registry.members(pod.id), runtime, driver, len(links), facet=Suspends)

    def check_driver(self, pod: Pod) -> None:
        """:raise Unsupported: it suspends no pods."""
        require(self._drivers.get(pod.spec.driver), Suspends)

    async def sweep(self, pods: Sequence[Pod]) -> None:
        """What earlier daemons left of what came to no end."""
        for pod in pods:
            stale, kept = [self._passing(pod.id)], self._paths.suspended(pod.id)
            stale += [] if pod.status is PodStatus.SUSPENDED and is_whole(kept) else [kept]
            if found := [path for path in stale if path.exists()]:
                await removed(*found)

    def size(self, pod_id: str) -> int:
        """Bytes that a suspended pod occupies on this host's disk, beside its disks."""
        return size_of(self._paths.suspended(pod_id))

    def _passing(self, pod_id: str) -> Path:
        return self._paths.suspended(pod_id).with_name(_PASSING)

    async def suspend(self, pod_id: str, runtime: Runtime) -> None:
        """Nothing is left of it when this fails, and the pod runs on.

        :raise HyperError: why it cannot be.
        """
        pod, passing, members = self._registry.pod(pod_id), self._passing(pod_id), self._registry.members(pod_id)
        self.check(pod, runtime)
        async with runtime.or_its_end(pod.name), runtime.saving, contextlib.AsyncExitStack() as undo:
            # Should the daemon die meanwhile, the next one lets go on what stands still.
            self._registry.put_pod(record(pod, runtime))
            undo.push_async_callback(removed, passing, self._paths.suspended(pod_id))
            with no_space_as_error(passing.parent):
                passing.mkdir(mode=0o700, parents=True)
                frozen = await freeze(runtime, members, undo)
                digest = await self._write(pod, runtime, passing / MEMORY, undo)
                await self._keep(pod, runtime, members, frozen, digest)
            undo.pop_all()

    async def _write(self, pod: Pod, runtime: Runtime, path: Path, undo: contextlib.AsyncExitStack) -> str:
        """The machine, into a file; it stands still then, until what is undone. The digest of what was written.

        :raise Unavailable: it is not there in time: a hypervisor that was taken over may keep its end open.
        """
        machine, given_up, most = runtime.machine, threading.Event(), pod.memory + (pod.memory >> 2) + _BESIDE
        driver = require(self._drivers.get(machine.driver), Suspends)
        source, target = os.pipe2(os.O_CLOEXEC)
        with contextlib.suppress(OSError):  # it works with less
            fcntl.fcntl(target, fcntl.F_SETPIPE_SZ, _CHUNK)
        storing = asyncio.create_task(tasks.in_thread(partial(_store, source, path, given_up, most), given_up.set))
        try:
            try:
                await tasks.within(driver.put_away(machine, target), _LEAST + most / _SLOWEST)
            finally:
                os.close(target)
            failing = f"pod {pod.name}, which was not suspended, does not go on"
            undo.push_async_callback(calmly, failing, require(machine, Pause).resume)
            return await tasks.within(storing, _LEAST)
        except TimeoutError:
            raise Unavailable(f"the machine of pod {pod.name} was not written to the disk in time") from None
        finally:
            given_up.set()
            await tasks.end([storing])
            os.close(source)

    async def _keep(
        self, pod: Pod, runtime: Runtime, before: Sequence[Container], frozen: list[str], digest: str
    ) -> None:
        """What is known of it, and all that it has written, is on the disk; it is whole then."""
        pod, members, passing = self._registry.pod(pod.id), self._registry.members(pod.id), self._passing(pod.id)
        refusals.check_unchanged(members, [c.id for c in before], frozen)
        self.check(pod, runtime)  # it may have left a network meanwhile
        written = [d.path for d in await self._disks.of_pod(pod, members) if isinstance(d, Disk) and not d.read_only]
        document = await self._document(pod, runtime, members, frozen, digest)

        # Without the database it is found by this, as machines are by theirs.
        described = describe(self._registry, *_all_suspended(pod, members))

        def keep() -> None:
            description.write(passing, described)
            write_atomically(passing / DOCUMENT, msgspec.json.encode(document))
            for path in (*written, passing / MEMORY):
                _sync(path)
            passing.rename(self._paths.suspended(pod.id))

        await tasks.in_thread(keep)

    async def _document(
        self, pod: Pod, runtime: Runtime, members: Sequence[Container], frozen: list[str], digest: str
    ) -> SavedPod:
        assert runtime.layout  # it was checked
        links = self._network.links(pod)
        return SavedPod(
            id=pod.id, name=pod.name, created_at=clock.stamp(), pod=record(pod, runtime), containers=list(members),
            layout=runtime.layout, fingerprint=await self._fingerprints.of(pod),
            token=runtime.agent.next_token.hex(), names=dict(runtime.names), processes=dict(runtime.processes),
            built=sorted(runtime.built), volumes=dict(runtime.volumes), frozen=frozen, disks={}, live=True,
            interfaces=[Before(name=f"eth{n}", addresses=list(link.addresses)) for n, link in enumerate(links)],
            paused_ms=0, digests={MEMORY: digest},
        )  # fmt: skip


def _all_suspended(pod: Pod, members: Sequence[Container]) -> tuple[Pod, list[Container]]:
    """The records as they are when it is suspended, of all of its containers."""
    pod, changed = suspended(pod, members)
    known = {c.id: c for c in changed}
    return pod, [known.get(c.id, c) for c in members]


def _store(source: int, path: Path, given_up: threading.Event, most: int) -> str:
    """All that comes out of a pipe, into a new file; its digest. It blocks, until the end or until it is given up.

    What goes wrong is told at the end: who writes is not held back.

    :raise OSError: the disk is full. :raise Unavailable: it has more than `most` bytes, or was given up.
    """
    digest, size, waiting = hashlib.sha256(), 0, select.poll()
    waiting.register(source, select.POLLIN)
    wrong: Exception | None = None
    with open(path, "xb", opener=private) as file:
        while not given_up.is_set():
            if not waiting.poll(_LOOK):
                continue
            if not (data := os.read(source, _CHUNK)):
                if wrong:
                    raise wrong
                return digest.hexdigest()
            size += len(data)
            try:
                if size > most:
                    raise Unavailable("the hypervisor writes more than the pod's machine has")
                digest.update(data)
                file.write(data)
            except (OSError, Unavailable) as error:
                wrong, most = wrong or error, 0
    raise Unavailable("the pod is not suspended: that was given up")


def _sync(path: Path) -> None:
    fd = os.open(path, os.O_RDONLY | os.O_CLOEXEC)
    try:
        os.fsync(fd)
    finally:
        os.close(fd)
