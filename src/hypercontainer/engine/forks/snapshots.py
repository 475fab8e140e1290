# SPDX-License-Identifier: Apache-2.0
"""Snapshots and forks of pods: what their users can ask for."""

from __future__ import annotations

import asyncio
import contextlib
import logging
import secrets
from collections import Counter
from collections.abc import Awaitable, Callable, Iterator
from pathlib import Path

from msgspec.structs import replace

from ...errors import Conflict, HyperError, InvalidState, NotFound, Unavailable
from ...model import ids
from ...model.host import Check
from ...model.quotas import Amounts
from ...model.snapshots import ForkRequest, RestoreRequest, SnapshotInfo, SnapshotRequest
from ...model.status import Pod
from ...sys import tasks
from ...sys.removal import removed
from .. import host_access, naming
from ..events import Events
from ..paths import Paths
from ..registry import Registry
from ..runtime import Runtime
from ..sandbox_verbs import Work
from ..sandboxes import Sandboxes
from .launched import LaunchEarly
from .making import Making
from .saved import Kept, Saved, SavedPod, keep, open_saved, read, size_of
from .taking import Taking

log = logging.getLogger(__name__)
_PASSING = ".fork-"  # what the directory of a snapshot begins with that is not kept


class PodSnapshots:
    """Saved pods by name, and pods that go on from them."""

    def __init__(
        self, paths: Paths, registry: Registry, sandboxes: Sandboxes, events: Events, taking: Taking, making: Making
    ) -> None:
        self._paths = paths
        self._registry = registry
        self._sandboxes = sandboxes
        self._events = events
        self._taking = taking
        self._making = making
        self._known: dict[str, SavedPod] = {}
        self._unread: dict[str, str] = {}  # directories -> why what is in them cannot be read
        self._reading = asyncio.Lock()
        self._names = naming.Holds("snapshot")
        self._used: Counter[str] = Counter()  # ids

    async def open(self) -> None:
        """Find those of earlier daemons; what was half made goes."""
        self._paths.snapshots.mkdir(mode=0o700, exist_ok=True)
        for directory in sorted(self._paths.snapshots.iterdir()):
            if directory.name.startswith("."):
                await removed(directory)
                continue
            try:
                self._known[directory.name] = read(directory)
            except HyperError as error:
                log.warning("%s", error)
                self._unread[directory.name] = error.message

    def checks(self) -> list[Check]:
        """Of those that a daemon has found and cannot use."""
        return [
            Check(name="snapshots", status="warn", found=why, hint=f"remove {self._paths.snapshot(name)}")
            for name, why in self._unread.items() if self._paths.snapshot(name).exists()
        ]  # fmt: skip

    def documents(self) -> list[SavedPod]:
        """Of all that are kept."""
        return list(self._known.values())

    def in_use(self) -> dict[str, list[str]]:
        """Image id -> names of the snapshots, of the tenant that asks, that need it."""
        users: dict[str, list[str]] = {}
        for document in naming.seen(self._known.values()):
            for container in document.containers:
                users.setdefault(container.image_id, []).append(f"snapshot {document.name}")
        return users

    # -- kept ones ------------------------------------------------------------------------

    async def create(self, request: SnapshotRequest) -> SnapshotInfo:
        """Save a pod that runs, and keep it.

        :raise Conflict: the name is taken. :raise Unsupported: the pod, or its driver, cannot be saved.
        """
        pod = self._registry.pod(request.pod)
        with self.hold(request.name or f"{pod.name[:50]}-{secrets.token_hex(3)}") as name:
            return await self._create(pod, name)

    def hold(self, name: str) -> contextlib.AbstractContextManager[str]:
        """Nobody else gets the name meanwhile. :raise InvalidArgument: it is none. :raise Conflict: somebody has it."""
        naming.check("snapshot", name)
        return self._names.hold(name, self._known.values())

    async def _create(self, pod: Pod, name: str) -> SnapshotInfo:
        async def write(directory: Path) -> SavedPod:
            saved = await self._take(pod, name, directory)
            with self._base(pod) as base:
                try:
                    return await tasks.in_thread(lambda: keep(saved, base))
                finally:
                    saved.close()

        made = await self.kept(write, "create")
        with contextlib.suppress(NotFound):  # it may have gone meanwhile
            self._registry.put_pod(replace(self._registry.pod(pod.id), snapshot=made.id))
        return made

    @contextlib.contextmanager
    def _base(self, pod: Pod) -> Iterator[Kept | None]:
        """The snapshot that a pod was saved as before, or came from, if it is there; it is not removed meanwhile."""
        if document := self._known.get(pod.snapshot):
            with self.using(document.id):
                yield Kept(document, self._paths.snapshot(document.id))
        else:
            yield None

    async def kept(self, write: Callable[[Path], Awaitable[SavedPod]], action: str) -> SnapshotInfo:
        """What `write` makes, as the directory that it is given; nothing of it is left where that fails.

        :raise QuotaExceeded: who asks may not have another.
        """
        passing = self._passing()
        with self._registry.quotas.admitted({passing.name: Amounts(snapshots=1, snapshot_disk=1)}):
            try:
                document = await write(passing)
                passing.rename(self._paths.snapshot(document.id))
            except BaseException:
                await removed(passing)
                raise
            self._known[document.id] = document
        self._events.publish("snapshot", action, document.id, name=document.name, pod=document.pod.name)
        return self._info(document)

    @contextlib.contextmanager
    def using(self, id_: str) -> Iterator[None]:
        """It is not removed meanwhile."""
        self._used[id_] += 1
        try:
            yield
        finally:
            self._used[id_] -= 1

    def _passing(self) -> Path:
        return self._paths.snapshots / f"{_PASSING}{ids.new_id()[:12]}"

    async def _take(self, pod: Pod, name: str, directory: Path, early: LaunchEarly | None = None) -> Saved:
        runtime = self._sandboxes.awake(pod)
        self._taking.check(pod, runtime)
        found: list[Saved] = []

        async def work(runtime: Runtime) -> None:
            async with runtime.or_its_end(pod.name):
                found.append(await self._taking.take(pod.id, name, runtime, directory, early))

        try:
            await self._sandboxes.sandbox(pod.id).ask(Work(work))
        except BaseException as error:
            for saved in found:  # nobody waits for it any more
                await tasks.to_the_end(_discard(saved))
            ended = isinstance(error, Unavailable) and self._sandboxes.runtime(pod.id) is not runtime
            if ended or (isinstance(error, asyncio.CancelledError) and not tasks.cancelled()):
                raise Unavailable(f"pod {pod.name} ended while it was saved") from error
            raise
        return found[0]

    def find(self, key: str) -> SavedPod:
        """By id, name, or a unique prefix of an id, of the tenant that asks.

        :raise NotFound: there is none.
        """
        mine = list(naming.mine(self._known.values()))
        exact = [r for r in mine if key in (r.id, r.name)]
        found = exact or [r for r in mine if key and r.id.startswith(key)]
        if len(found) != 1:
            raise NotFound(f"no such snapshot: {key}", hint="see `hyperctl snapshot ls`")
        return found[0]

    def all(self) -> list[SnapshotInfo]:
        """Newest first."""
        found = [self._info(s) for s in naming.mine(self._known.values())]
        return sorted(found, key=lambda i: i.created_at, reverse=True)

    def info(self, key: str) -> SnapshotInfo:
        """:raise NotFound: there is none."""
        return self._info(self.find(key))

    def _info(self, document: SavedPod) -> SnapshotInfo:
        pod = document.pod
        return SnapshotInfo(
            id=document.id, name=document.name, created_at=document.created_at, pod=pod.name, pod_id=pod.id,
            containers=[c.name for c in document.containers], images=[c.image for c in document.containers],
            driver=pod.vm.driver if pod.vm else pod.spec.driver, accelerator=pod.vm.accelerator if pod.vm else "",
            architecture=pod.architecture, vcpus=pod.vcpus, memory=pod.memory,
            size=size_of(self._paths.snapshot(document.id)), paused_ms=document.paused_ms, labels=pod.labels,
            parent=document.parent if document.parent in self._known else "",
        )  # fmt: skip

    async def remove(self, key: str) -> SnapshotInfo:
        """Pods that went on from it have their own.

        :raise NotFound: there is none. :raise Conflict: a pod, a file or another snapshot is just made of it.
        """
        info = self.info(key)
        if self._used[info.id]:
            doing = "restored, exported, or followed by another"
            raise Conflict(f"the snapshot {info.name} is being {doing}", hint="try again afterwards")
        del self._known[info.id]
        gone = self._passing()
        self._paths.snapshot(info.id).rename(gone)
        await removed(gone)
        self._events.publish("snapshot", "destroy", info.id, name=info.name)
        return info

    # -- pods that go on ------------------------------------------------------------------

    async def restore(self, key: str, request: RestoreRequest) -> Pod:
        """A new pod that goes on from a kept one.

        :raise InvalidState: QEMU, hyperkernel or the processor is another than when it was saved.
        :raise PermissionDenied: it has more of this host than who asks may have.
        """
        document = self.find(key)
        host_access.check_saved(document.pod, document.containers)
        with self.using(document.id):
            return await self._restore(document, request)

    async def _restore(self, document: SavedPod, request: RestoreRequest) -> Pod:
        if document.fingerprint != await self._taking.fingerprints.of(document.pod):
            raise InvalidState(
                f"the snapshot {document.name} does not fit this host any more: its hypervisor, its kernel or its "
                "processor is another than when it was made",
                hint="save the pod anew",
            )
        async with self._reading:  # one at a time: each has all of its memory in memory
            saved = await self._open(document)
        try:
            pod = await self._making.make(saved, request.name)
        finally:
            saved.close()
        self._events.publish("pod", "restore", pod.id, name=pod.name, snapshot=document.name)
        return pod

    async def _open(self, document: SavedPod) -> Saved:
        found: list[Saved] = []
        try:
            await tasks.in_thread(lambda: found.append(open_saved(self._paths.snapshot(document.id), document)))
        except BaseException:
            for saved in found:  # nobody waits for it any more
                saved.close()
            raise
        return found[0]

    async def fork(self, key: str, request: ForkRequest) -> list[Pod]:
        """New pods that go on where one that runs is now; it runs on. All of them, or none.

        :raise Unsupported: the pod, or its driver, cannot be saved.
        :raise PermissionDenied: it has more of this host than who asks may have.
        :raise QuotaExceeded: they are more than who asks may have.
        """
        pod = self._registry.pod(key)
        host_access.check_saved(pod, self._registry.members(pod.id))
        many = request.count > 1
        names = [f"{request.name}-{n}" if request.name and many else request.name for n in range(1, request.count + 1)]
        for name in filter(None, names):
            self._registry.check_pod_name(name)
        self._registry.quotas.check(Amounts(pods=request.count))  # before the pod stands still for them
        directory = self._passing()
        saved = await self._take(pod, "", directory, self._making.early)
        try:
            made = await self._making.make_all(saved, names)
        finally:
            await tasks.to_the_end(_discard(saved))
        for fork in made:
            self._events.publish("pod", "fork", fork.id, name=fork.name, parent=pod.name)
        return made


async def _discard(saved: Saved) -> None:
    """Nobody goes on from it any more, and it is not kept."""
    try:
        await saved.close_all()
    finally:
        await removed(saved.directory)
