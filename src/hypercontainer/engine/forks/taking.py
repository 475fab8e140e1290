# SPDX-License-Identifier: Apache-2.0
"""From a pod that runs to what others can go on from; it runs on.

Its containers' programs are frozen first, so that in what goes on from it nothing runs before it is another pod; then
the machine stands still while its disks and logs are copied, and what is left of its memory.
"""

from __future__ import annotations

import contextlib
import shutil
from collections.abc import AsyncIterator, Callable, Collection, Mapping, Sequence
from dataclasses import dataclass, field
from functools import partial
from pathlib import Path

import msgspec

from ...hypervisor.driver import Disk
from ...hypervisor.drivers import Drivers
from ...hypervisor.facets import Checkpoints, require
from ...model import ids
from ...model.status import Container, ContainerStatus, Pod
from ...sys import clock, tasks
from ...sys.files import copy_sparse, no_space_as_error
from ...sys.removal import removed
from ..logs import account_of
from ..machine_disks import MachineDisks
from ..memory_files import close, memory_files, seal
from ..pod_network import PodNetwork
from ..registry import Registry
from ..runtime import Runtime, record
from ..secrets import Secrets
from . import refusals
from .fingerprints import Fingerprints
from .freezing import freeze
from .launched import LaunchEarly, Launching
from .saved import Before, Saved, SavedPod


@dataclass
class _Quiet:
    """An `Instant` of a pod's machine: its programs are frozen, its disks and logs copied, its account taken."""

    runtime: Runtime
    now: Callable[[], Sequence[Container]]  # the containers' records
    known: Collection[str]  # ids of those whose disks are copied
    disks: Mapping[str, Path]  # names of copies -> those that are written
    directory: Path
    token: bytes = b""
    processes: dict[str, int] = field(default_factory=dict)
    members: Sequence[Container] = ()  # as they were at the instant
    frozen: list[str] = field(default_factory=list)  # ids of containers
    lasted: float = 0.0  # seconds that programs stood still

    @contextlib.asynccontextmanager
    async def quiet(self) -> AsyncIterator[None]:
        began = clock.seconds()
        async with contextlib.AsyncExitStack() as undo:
            self.frozen = await freeze(self.runtime, self.now(), undo)
            yield
        self.lasted = clock.seconds() - began

    async def at_rest(self) -> None:
        self.members = self.now()
        refusals.check_unchanged(self.members, self.known, self.frozen)
        self.token, self.processes = self.runtime.agent.next_token, dict(self.runtime.processes)
        self.frozen = [c.id for c in self.members if c.state.status is ContainerStatus.RUNNING]
        _copy_logs(self.members, self.directory)
        for target, source in self.disks.items():
            await tasks.in_thread(partial(copy_sparse, source, self.directory / target))


class Taking:
    """Saves pods."""

    def __init__(
        self, registry: Registry, drivers: Drivers, disks: MachineDisks, network: PodNetwork, secrets: Secrets,
        fingerprints: Fingerprints,
    ) -> None:  # fmt: skip
        self._registry = registry
        self._drivers = drivers
        self._disks = disks
        self._network = network
        self._secrets = secrets
        self.fingerprints = fingerprints

    def check(self, pod: Pod, runtime: Runtime) -> None:
        """Raises what `refusals.check` does."""
        links, driver = self._network.links(pod), self._drivers.get(runtime.machine.driver)
        refusals.check(pod, self._registry.members(pod.id), runtime, driver, len(links))

    async def take(
        self, pod_id: str, name: str, runtime: Runtime, directory: Path, early: LaunchEarly | None = None
    ) -> Saved:
        """`directory` is made, with the copies in it; nothing of it is left when this fails.

        By `early` the machine that goes on from it first is launched meanwhile.

        :raise HyperError: why it cannot be.
        """
        async with runtime.saving:
            # Should the daemon die meanwhile, the next one lets go on what stands still.
            self._registry.put_pod(record(self._registry.pod(pod_id), runtime))
            return await self._take(pod_id, name, runtime, directory, early)

    async def _take(
        self, pod_id: str, name: str, runtime: Runtime, directory: Path, early: LaunchEarly | None
    ) -> Saved:
        pod = self._registry.pod(pod_id)
        self.check(pod, runtime)
        now = partial(self._registry.members, pod_id)
        members = now()
        disks = {runtime.name_of(d.serial): d for d in await self._disks.of_pod(pod, members) if isinstance(d, Disk)}
        written = {serial: f"disk-{n}.img" for n, (serial, d) in enumerate(disks.items()) if not d.read_only}
        quiet = _Quiet(runtime, now, [c.id for c in members], {written[s]: disks[s].path for s in written}, directory)
        files = memory_files(pod.memory)
        async with contextlib.AsyncExitStack() as undo:
            undo.callback(close, files)
            undo.push_async_callback(removed, directory)
            driver = self._drivers.get(runtime.machine.driver)
            assert runtime.layout  # it was checked
            launching = Launching(early(pod, driver, runtime.layout, disks, files) if early else None)
            undo.push_async_callback(launching.end)
            with no_space_as_error(directory):
                directory.mkdir(mode=0o700, parents=True)
                await self._secrets.hand_out(pod.id, directory)
                files = await require(driver, Checkpoints).checkpoint(runtime.machine, files, quiet)
            await seal(files)
            document = await self._document(pod, name, runtime, quiet, written)
            launched = await launching.result()
            undo.pop_all()
        return Saved(msgspec.structs.replace(document, live=files.live), directory, files, launched)

    async def _document(
        self, pod: Pod, name: str, runtime: Runtime, quiet: _Quiet, written: dict[str, str]
    ) -> SavedPod:
        assert runtime.layout  # it was checked
        links = self._network.links(pod)
        return SavedPod(
            id=ids.new_id(), name=name, created_at=clock.stamp(), pod=pod, containers=list(quiet.members),
            layout=runtime.layout, fingerprint=await self.fingerprints.of(pod), token=quiet.token.hex(),
            names=dict(runtime.names), processes=quiet.processes, built=sorted(runtime.built),
            volumes=dict(runtime.volumes), frozen=quiet.frozen, disks=written, live=False,
            interfaces=[Before(name=f"eth{n}", addresses=list(link.addresses)) for n, link in enumerate(links)],
            paused_ms=round(quiet.lasted * 1000),
        )  # fmt: skip


def log_file(directory: Path, container: Container) -> Path:
    """The copy of a container's log; its account is `account_of` it."""
    return directory / f"{container.id[:12]}.log"


def _copy_logs(members: Sequence[Container], directory: Path) -> None:
    """At once, with what is accounted for of them: nothing is written to them meanwhile."""
    for container in members:
        path = Path(container.log_path)
        for source, target in (
            (path, log_file(directory, container)),
            (account_of(path), account_of(log_file(directory, container))),
        ):
            with contextlib.suppress(FileNotFoundError):
                shutil.copyfile(source, target)
