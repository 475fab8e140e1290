# SPDX-License-Identifier: Apache-2.0
"""Containers: what their users can ask for.

Each container is owned by a supervisor (`container.py`), to which the verbs are messages.
A container of its own is a pod with one container, whose machine ends with the main process.
"""

from __future__ import annotations

import asyncio
import contextlib
import logging
from collections.abc import AsyncIterator, Awaitable, Callable
from dataclasses import dataclass
from enum import StrEnum
from typing import Any

import msgspec

from ..errors import HyperError, InvalidArgument, InvalidState, NoSpace
from ..images.manifests import StoredImage
from ..model.deployments import LABEL as REPLICA_OF
from ..model.signals import parse_signal
from ..model.specs import ContainerSpec
from ..model.status import Container, ContainerStatus, Health, Pod, PodStatus
from ..sys import clock, tasks
from . import container_verbs as verbs
from . import host_access, related
from .container import ContainerSupervisor, borrowed
from .container_verbs import State
from .creation import Creation
from .events import Events
from .files import ContainerFiles
from .health import HealthMonitor
from .log_sinks.choose import LogSinks
from .networks import check_names
from .paths import Paths
from .registry import Registry
from .run import SIGKILL
from .runtime import Runtime
from .sandbox_verbs import check_awake
from .sandboxes import Sandboxes

log = logging.getLogger(__name__)
_CLOSE_TIMEOUT = 5.0  # seconds for machines that end already when the daemon does


class WaitFor(StrEnum):
    """Which end is waited for."""

    NOT_RUNNING = "not-running"  # none, when it does not run
    NEXT_EXIT = "next-exit"  # of the run that is, or of the next one
    REMOVED = "removed"


@dataclass(frozen=True)
class Ended:
    """How a container ended; `error` says why, when that was not the program."""

    exit_code: int
    error: str = ""


async def _nobody_wakes(pod: Pod) -> bool:
    return False


async def _nobody_rouses(pod: Pod) -> None: ...


class Containers:
    """Create, start, stop, remove and what lies between."""

    def __init__(
        self, paths: Paths, registry: Registry, sandboxes: Sandboxes, creation: Creation, events: Events,
        log_sinks: LogSinks,
    ) -> None:  # fmt: skip
        self._registry = registry
        self._sandboxes = sandboxes
        self._creation = creation
        self._events = events
        self._health = HealthMonitor(registry, events)
        self._supervisors: dict[str, ContainerSupervisor] = {}
        self.wake: Callable[[Pod], Awaitable[bool]] = _nobody_wakes  # lets a suspended pod go on; whether it was one
        self.rouse_pod: Callable[[Pod], Awaitable[None]] = _nobody_rouses  # the same, of one that was idle
        self._retired: set[ContainerSupervisor] = set()  # of what is gone, whose machines may not have ended yet
        self.files = ContainerFiles(paths, registry, sandboxes, log_sinks, self._forget, creation)

    def supervisor(self, container: Container) -> ContainerSupervisor:
        """Who owns the container, begun at the first need."""
        found = self._supervisors.get(container.id)
        if found is None:
            found = self._supervisors[container.id] = ContainerSupervisor(
                container, self._registry, self._sandboxes, self._events, self._health, self.files
            )
        return found

    def _of(self, key: str, *, ends: bool = False) -> ContainerSupervisor:
        """What `ends` a container, ends also one of its own that is suspended.

        :raise NotFound: no such container. :raise InvalidState: its pod is paused: its guest would not answer.
        """
        container = self._registry.container(key)
        pod = self._registry.pod(container.pod)
        if not (ends and pod.implicit and pod.status is PodStatus.SUSPENDED):
            check_awake(pod)
        return self.supervisor(container)

    async def rouse(self, key: str) -> None:
        """It is about to be used: its pod goes on, if it was suspended because it was idle.

        :raise HyperError: why it does not.
        """
        await self.rouse_pod(self._registry.pod(self._registry.container(key).pod))

    async def _wake(self, container: Container) -> bool:
        """Let the pod go on, if it is suspended and its container's own, or is just put on the disk; whether it was."""
        pod = self._registry.pod(container.pod)
        return (pod.implicit or pod.status is not PodStatus.SUSPENDED) and await self.wake(pod)

    def _forget(self, id_: str) -> None:
        if found := self._supervisors.pop(id_, None):
            found.retire()
            self._retired = {s for s in self._retired if s.busy} | {found}

    def runtime(self, container: Container) -> Runtime:
        """:raise InvalidState: when the container does not run."""
        check_awake(self._registry.pod(container.pod))
        return self.supervisor(container).machine()

    @contextlib.asynccontextmanager
    async def lent(self, container: Container) -> AsyncIterator[Runtime]:
        """The machine of a container that does not run, booted without its program, until the copy is through."""
        async with borrowed(self.supervisor(container)) as user:
            if not user:
                yield self.runtime(self._registry.container(container.id))
                return
            runtime = await self._sandboxes.acquire(container.pod, user)
            try:
                await self._sandboxes.build(container)
                yield runtime
            finally:
                await self._sandboxes.release(container.pod, user)

    # -- create, rename, remove -----------------------------------------------------

    async def create(self, spec: ContainerSpec, *, starting: bool = False) -> Container:
        """Create a container, in the pod that it names or in one of its own; the image must be in the store.

        When it is `starting`, a start follows at once: a crash until that has ended leaves nothing of a container
        with `auto_remove`.

        :raise NotFound: no such image or pod. :raise Conflict: the name is taken.
        :raise PermissionDenied: it takes more of this host than who asks may have.
        """
        spec = related.complete(self._registry, spec)
        host_access.check_container(spec)  # as it was asked: the daemon's own defaults are not the caller's doing
        container = await self._creation.create(self._with_log(spec), starting=starting)
        self.tell("create", container)
        return container

    async def add(self, pod: Pod, spec: ContainerSpec, image: StoredImage | None, id_: str, name: str) -> Container:
        """A container of a pod that is made."""
        container = await self._creation.add(pod, self._with_log(spec), image, id_, name)
        self.tell("create", container)
        return container

    def _with_log(self, spec: ContainerSpec) -> ContainerSpec:
        return msgspec.structs.replace(spec, log=self.files.log_sinks.resolved(spec.log))

    def tell(self, action: str, container: Container, **attributes: str) -> None:
        """An event of it."""
        self.supervisor(container).publish(action, container, **attributes)

    async def remove(self, key: str, *, force: bool = False, volumes: bool = False) -> Container:
        """Remove a container, its files, and its pod if that was its own; with `volumes` also those without a name.

        :raise Conflict: when it runs and `force` is off.
        """
        found = self._of(key, ends=True)
        container = found.container
        await found.ask(verbs.Remove(force, volumes))
        return container

    async def remove_pod(self, id_: str) -> None:
        """All containers of a pod, its record, and its files; what this daemon does not come to, the next one does."""
        self._registry.begin_to_remove(id_)
        for container in self._registry.members(id_):
            with contextlib.suppress(HyperError):
                await self.remove(container.id, force=True)
        self._registry.erase(*([self._registry.pod(id_)] if self._registry.has_pod(id_) else []), files=id_)
        self._sandboxes.forget(id_)
        await self.files.remove(id_)

    def rename(self, key: str, new: str) -> Container:
        """:raise Conflict: the name is taken, or a deployment's in its network. :raise InvalidArgument: malformed."""
        container = self._registry.container(key)
        if new == container.name:
            raise InvalidArgument(f"container {key} has that name already")
        self._registry.check_name(new)
        renamed = msgspec.structs.replace(container, name=new)
        pod = self._registry.pod(container.pod)
        if pod.implicit:
            self._registry.check_pod_name(new)
            for place in pod.attachments:
                check_names(self._registry, place, (new,), container.spec.labels.get(REPLICA_OF, ""))
            self._registry.put_pod(msgspec.structs.replace(pod, name=new))
        self._registry.put(renamed)
        self.tell("rename", renamed, old_name=container.name)
        return renamed

    # -- run ------------------------------------------------------------------------

    async def start(self, key: str, size: tuple[int, int] = (0, 0)) -> bool:
        """Start a container; False when it ran already. `size` are rows and columns of its terminal.

        :raise StartFailed: when its program cannot be executed; the container is exited then.
        """
        container = self._registry.container(key)
        woken = await self.wake(self._registry.pod(container.pod))
        if woken and container.state.status is ContainerStatus.SUSPENDED:
            return True
        return bool(await self.supervisor(container).ask(verbs.Start(size)))

    def request_start(self, key: str, size: tuple[int, int] = (0, 0)) -> asyncio.Task[Any]:
        """`start`, which is asked for when this returns; whoever cancels the task gives it up."""
        container = self._registry.container(key)
        if container.state.status is ContainerStatus.SUSPENDED:
            return asyncio.get_running_loop().create_task(self.start(key, size))
        return self.supervisor(container).request(verbs.Start(size))

    async def stop(self, key: str, timeout: int | None = None, signal: str = "") -> bool:
        """Signal (its own when ""), wait, kill; False when it did not run. `timeout` in seconds.

        :raise InvalidArgument: there is no such signal.
        """
        found = self._of(key, ends=True)
        try:
            await self._wake(found.container)
        except HyperError as error:  # it is ended all the same
            log.warning("%s, which is suspended, is ended without going on: %s", found.name, error)
        ran = bool(await found.ask(verbs.Stop(timeout, parse_signal(signal) if signal else 0)))
        if ran:
            found.publish("stop", found.container)
        return ran

    async def restart(self, key: str, timeout: int | None = None, signal: str = "") -> None:
        """Stop it, with `timeout` seconds of grace (its own when None), and start it again.

        :raise HyperError: why it does not start.
        """
        container = self._registry.container(key)
        await self.stop(container.id, timeout, signal)
        await self.start(container.id)
        self.tell("restart", self._registry.container(container.id))

    async def kill(self, key: str, signal: str) -> None:
        """:raise InvalidState: when it does not run."""
        number = parse_signal(signal)
        await self._of(key, ends=number == SIGKILL).ask(verbs.Kill(number))

    async def wait(self, key: str) -> int:
        """The exit code, when the container runs no more.

        As Docker: it has ended when its program has, whatever its policy does then; one that waits for its next start
        counts as running, and is waited for until that has ended, or was given up.
        """
        return (await self.await_end(key)()).exit_code

    def await_end(self, key: str, until: WaitFor = WaitFor.NOT_RUNNING) -> Callable[[], Awaitable[Ended]]:
        """What `wait` does, for several ends. What is waited for is settled when this returns: a start that follows
        is not missed.
        """
        found = self.supervisor(self._registry.container(key))
        if until is WaitFor.REMOVED:
            end = found.removed
        elif until is WaitFor.NEXT_EXIT or found.state is State.RESTARTING:
            end = found.next_end
        else:
            end = found.stopped

        async def ended() -> Ended:
            await end.wait()
            return Ended(found.exit_code, found.error if found.ran else "")

        return ended

    async def resize(self, key: str, rows: int, columns: int) -> None:
        """The size of its terminal. :raise InvalidState: it does not run, or has none."""
        container = self._registry.container(key)
        handle = self.runtime(container).handles[container.id]
        if not container.spec.tty:
            raise InvalidState(f"container {container.name} has no terminal", hint="containers run with -t have one")
        await handle.resize(rows, columns)
        self.tell("resize", container, height=str(rows), width=str(columns))

    def reopen_log(self, key: str) -> None:
        """Its log goes on in a new file, when somebody who rotates it has moved the file away, as the kubelet does.

        :raise InvalidState: when it does not run. :raise NoSpace: the file cannot be made; the old one is written on.
        """
        container = self._registry.container(key)
        try:
            if not self.supervisor(container).fan_out.reopen_log():
                raise InvalidState(f"container {container.name} is not running", hint="its log is made when it starts")
        except OSError as error:
            raise NoSpace(f"the log cannot be opened: {error.strerror or error}") from error

    async def pause(self, key: str) -> None:
        """:raise InvalidState: when it does not run, or is paused."""
        container = self._registry.container(key)
        if container.state.status is not ContainerStatus.PAUSED:
            check_awake(self._registry.pod(container.pod))
        await self.supervisor(container).ask(verbs.Pause())

    async def unpause(self, key: str) -> None:
        """:raise InvalidState: when it is not paused."""
        await self._of(key).ask(verbs.Unpause())

    # -- the daemon's own life ------------------------------------------------------

    def has_begun(self, container: Container, pid: int) -> Container:
        """Its program runs, and the daemon that started it died before the record could say so; nobody owns it yet."""
        checks = container.health is not None or container.spec.liveness is not None
        state = msgspec.structs.replace(
            container.state, status=ContainerStatus.RUNNING, starting=False, pid=pid, started_at=clock.stamp(),
            finished_at="", exit_code=0, error="", oom_killed=False, health=Health() if checks else None,
        )  # fmt: skip
        changed = msgspec.structs.replace(container, state=state)
        self._registry.put(changed)
        self.tell("start", changed)
        return changed

    def owns(self, container: Container) -> bool:
        """Whether something has been asked of the container."""
        return container.id in self._supervisors

    async def reattach(self, container: Container, runtime: Runtime, number: int) -> bool:
        """Go on with the process of this number, which an earlier daemon started; False when the guest has none."""
        found = self.supervisor(container)
        handle = runtime.agent.reattach(number, found.fan_out, found.fan_out.begin(resume=True))
        if handle is None:
            found.fan_out.finish()
            return False
        runtime.handles[container.id] = handle
        await found.ask(verbs.Reattach(runtime, handle))
        return True

    async def resume(self, container: Container) -> None:
        """Start one that was to be started again when the earlier daemon ended."""
        await self.supervisor(container).ask(verbs.Resume())

    def bring_back(self, container: Container) -> None:
        """Start what runs by its own policy, after the host came up, unless somebody has stopped it meanwhile."""
        found = self.supervisor(container)
        if not found.stop_requested.is_set():
            found.post(verbs.Resume())  # how it went is in the record

    async def lose(self, container: Container, why: str) -> None:
        """Settle the end of a container whose VM is gone."""
        await self.supervisor(container).ask(verbs.Lose(why))

    async def abandon(self, container: Container, why: str) -> None:
        """`lose` it, if it was to be reattached and never was."""
        if self.supervisor(container).state is State.REATTACHING:
            await self.lose(container, why)

    async def shut_down(self) -> None:
        """Stop all that runs, and wait until it has."""
        pods = [p.id for p in self._registry.pods() if p.status is not PodStatus.SUSPENDED]
        at_rest = (State.CREATED, State.EXITED, State.GONE)
        running = [s for s in self._supervisors.values() if s.state not in at_rest and s.container.pod in pods]
        with contextlib.suppress(asyncio.CancelledError):
            await asyncio.gather(*(s.ask(verbs.Stop(daemon_ends=True)) for s in running), return_exceptions=True)
        await asyncio.gather(*(self._sandboxes.down(id_) for id_ in pods), return_exceptions=True)
        await self.release()

    async def release(self) -> None:
        """Leave what runs running, end this daemon's own tasks; what is about to end ends first."""
        ending: list[asyncio.Task[Any]] = [
            asyncio.create_task(s.at_rest.wait()) for s in self._supervisors.values() if s.state is State.ENDING
        ]
        ending += [asyncio.create_task(s.until_idle()) for s in self._retired]
        if ending:
            _, late = await asyncio.wait(ending, timeout=_CLOSE_TIMEOUT)
            await tasks.end(late)
        everyone = [*self._supervisors.values(), *self._retired]
        await asyncio.gather(*(s.detach() for s in everyone), return_exceptions=True)
        await self._sandboxes.detach()
