# SPDX-License-Identifier: Apache-2.0
"""The life of a container.

    created ──start──► running ◄──pause──► paused
       ▲                  │ exit, stop, kill
       └───── start ──── exited ──remove──► gone

A container of its own is a pod with one container: the VM lives as long as
the main process. One lock per container orders what changes it.
"""

from __future__ import annotations

import asyncio
import contextlib
import logging
from collections.abc import Coroutine
from typing import Any

import msgspec

from ..errors import Conflict, HyperError, InvalidArgument, InvalidState, StartFailed, Unavailable
from ..guest.process import GuestProcessHandle
from ..images.layout import StoredImage
from ..images.store import ImageStore
from ..model import ids
from ..model.signals import parse_signal
from ..model.specs import ContainerSpec
from ..model.status import Container, ContainerStatus, Pod
from ..network import usermode
from ..sys.files import no_space_as_error, remove_tree
from ..volumes.scratch import ScratchDisks
from . import resolve
from .events import Events
from .life import Life
from .logs import LogWriter
from .paths import Paths
from .provision import Provisioner, Runtime, record
from .registry import Registry
from .streams import Hub

log = logging.getLogger(__name__)
LOST_EXIT_CODE = 255  # of a container whose VM died under it
_DRAIN_TIMEOUT = 10.0  # seconds for the last output of a process that has ended
_SIGKILL = 9


class Containers:
    """Create, start, stop, remove and what lies between."""

    def __init__(
        self, *, paths: Paths, registry: Registry, images: ImageStore, provisioner: Provisioner, scratch: ScratchDisks,
        events: Events, driver: str, log_size: int, log_files: int,
    ) -> None:  # fmt: skip
        self._paths = paths
        self._registry = registry
        self._images = images
        self._provisioner = provisioner
        self._scratch = scratch
        self._events = events
        self._driver = driver
        self._log_limits = (log_size, log_files)
        self._lives: dict[str, Life] = {}
        self._tasks: set[asyncio.Task[Any]] = set()

    def life(self, container: Container) -> Life:
        """The container's life, begun at the first need."""
        life = self._lives.get(container.id)
        if life is None:
            size, files = self._log_limits
            hub = Hub(lambda: LogWriter(self._paths.log(container.id), max_size=size, max_files=files))
            life = self._lives[container.id] = Life(hub)
        return life

    def runtime(self, container: Container) -> Runtime:
        """:raise InvalidState: when the container does not run."""
        runtime = self.life(container).runtime
        if runtime is None or container.state.status not in (ContainerStatus.RUNNING, ContainerStatus.PAUSED):
            raise InvalidState(f"container {container.name} is not running", hint=f"start it with `hyperctl start {container.name}`")
        return runtime

    def _own(self, work: Coroutine[Any, Any, None]) -> asyncio.Task[None]:
        task = asyncio.create_task(work)
        self._tasks.add(task)
        task.add_done_callback(self._tasks.discard)
        return task

    def _update(self, container: Container, **state: Any) -> Container:
        container = self._registry.container(container.id)
        changed = msgspec.structs.replace(container, state=msgspec.structs.replace(container.state, **state))
        self._registry.put(changed)
        return changed

    def _tell(self, action: str, container: Container, **attributes: str) -> None:
        self._events.publish("container", action, container.id, name=container.name, image=container.image, **attributes)

    # -- create and remove --------------------------------------------------------

    async def create(self, spec: ContainerSpec) -> Container:
        """Create a container and its pod; the image must be in the store.

        :raise NotFound: no such image. :raise Conflict: the name is taken.
        """
        resolve.validate(spec)
        image = self._images.find(spec.image)
        name = self._registry.reserve(spec.name)
        id_ = ids.new_id()
        directory = self._paths.container(id_)
        try:
            container, pod = self._records(spec, image, id_, name)
            with no_space_as_error(directory):
                directory.mkdir(mode=0o700, parents=True)
            await self._scratch.create(self._paths.scratch(id_))
            self._registry.put_pod(pod)
            self._registry.put(container)
        except BaseException:
            remove_tree(directory)
            self._registry.remove_pod(id_)
            raise
        finally:
            self._registry.release(name)
        self._tell("create", container)
        return container

    def _records(self, spec: ContainerSpec, image: StoredImage, id_: str, name: str) -> tuple[Container, Pod]:
        hostname = spec.hostname or ids.short(id_)
        vcpus, memory = resolve.machine_size([spec])
        created = ids.now()
        container = Container(
            id=id_,
            name=name,
            pod=id_,
            created_at=created,
            image=spec.image,
            image_id=image.id,
            hostname=hostname,
            process=resolve.process_of(spec, image.config.config, hostname),
            spec=spec,
            log_path=str(self._paths.log(id_)),
        )
        return container, Pod(id=id_, name=name, created_at=created, hostname=hostname, vcpus=vcpus, memory=memory)

    async def remove(self, key: str, *, force: bool = False) -> Container:
        """Remove a container, its pod and its files.

        :raise Conflict: when it runs and `force` is off.
        """
        container = self._registry.container(key)
        if container.state.status in (ContainerStatus.RUNNING, ContainerStatus.PAUSED):
            if not force:
                raise Conflict(f"container {container.name} is {container.state.status}", hint="stop it first, or use --force")
            await self._end(container)
        async with self.life(container).lock:
            if not self._registry.exists(container.id):
                return container
            self._discard(self._registry.container(container.id))
        return container

    def _discard(self, container: Container) -> None:
        self._registry.remove(container.id)
        self._registry.remove_pod(container.pod)
        remove_tree(self._paths.container(container.id))
        life = self._lives.pop(container.id, None)
        if life:
            life.hub.finish()
            life.removed.set()
            life.stopped.set()
        self._tell("destroy", container)

    def rename(self, key: str, new: str) -> Container:
        """:raise Conflict: the name is taken. :raise InvalidArgument: malformed."""
        container = self._registry.container(key)
        if new == container.name:
            raise InvalidArgument(f"container {key} has that name already")
        self._registry.check_name(new)
        renamed = msgspec.structs.replace(container, name=new)
        self._registry.put_pod(msgspec.structs.replace(self._registry.pod(container.pod), name=new))
        self._registry.put(renamed)
        self._tell("rename", renamed, old_name=container.name)
        return renamed

    # -- start --------------------------------------------------------------------

    async def start(self, key: str, size: tuple[int, int] = (0, 0)) -> bool:
        """Start a container; False when it ran already.

        :raise StartFailed: when its program cannot be executed; the container is exited then.
        """
        container = self._registry.container(key)
        life = self.life(container)
        async with life.lock:
            container = self._registry.container(container.id)
            if container.state.status is ContainerStatus.RUNNING:
                return False
            if container.state.status is ContainerStatus.PAUSED:
                raise InvalidState(f"container {container.name} is paused", hint=f"use `hyperctl unpause {container.name}`")
            try:
                await self._start(container, life, size)
            except BaseException as error:
                self._start_failed(container, life, error)
                raise
        return True

    async def _start(self, container: Container, life: Life, size: tuple[int, int]) -> None:
        ports = [usermode.free_port(p) for p in container.spec.ports]
        container = msgspec.structs.replace(container, ports=ports)
        self._registry.put(container)
        pod = self._registry.pod(container.pod)
        runtime = await self._provisioner.boot(pod, [container])
        try:
            handle = await self._provisioner.start_main(runtime, container, life.hub, size)
        except BaseException:
            await runtime.stop(clean=False)
            raise
        self._registry.put_pod(record(pod, runtime, self._driver))
        self._running(container, life, runtime, handle)
        self._tell("start", container)

    def _running(self, container: Container, life: Life, runtime: Runtime, handle: GuestProcessHandle) -> None:
        self._update(
            container,
            status=ContainerStatus.RUNNING,
            pid=handle.pid,
            started_at=ids.now(),
            finished_at="",
            exit_code=0,
            error="",
            oom_killed=False,
        )
        life.runtime = runtime
        life.stopped.clear()
        life.watch = self._own(self._watch(container, life, runtime, handle))

    def _start_failed(self, container: Container, life: Life, error: BaseException) -> None:
        code = error.exit_status if isinstance(error, StartFailed) else 125
        message = error.message if isinstance(error, HyperError) else str(error)
        with contextlib.suppress(HyperError):
            self._update(container, status=ContainerStatus.EXITED, exit_code=code, error=message, finished_at=ids.now())
        self._registry.put_pod(msgspec.structs.replace(self._registry.pod(container.pod), vm=None))
        life.hub.finish()
        self._tell("die", container, exit_code=str(code))
        if container.spec.auto_remove:
            self._discard(container)

    # -- the end ------------------------------------------------------------------

    async def _watch(self, container: Container, life: Life, runtime: Runtime, handle: GuestProcessHandle) -> None:
        """Wait for the main process, then take the VM down."""
        state: dict[str, Any]
        try:
            status = await handle.exited
            with contextlib.suppress(TimeoutError):
                await asyncio.wait_for(handle.drained.wait(), _DRAIN_TIMEOUT)
            state = {"exit_code": status.shell_code, "oom_killed": status.oom, "error": ""}
        except Unavailable:
            await runtime.machine.wait()
            words = runtime.machine.last_words()
            message = "the virtual machine ended unexpectedly" + (f": {words}" if words else "")
            state = {"exit_code": LOST_EXIT_CODE, "oom_killed": False, "error": message}
        life.hub.finish()
        life.exit_code, life.error = state["exit_code"], state["error"]
        container = self._update(container, status=ContainerStatus.EXITED, pid=0, finished_at=ids.now(), **state)
        life.runtime = None
        if state["oom_killed"]:
            self._tell("oom", container)
        self._tell("die", container, exit_code=str(state["exit_code"]))
        await self._take_down(container, life, runtime)

    async def _take_down(self, container: Container, life: Life, runtime: Runtime) -> None:
        remove = container.spec.auto_remove
        async with life.lock:
            # Who waits may have the exit code now; who starts again waits for the lock.
            life.stopped.set()
            await runtime.stop(clean=not remove)
            if not self._registry.exists(container.id):
                return
            self._registry.put_pod(msgspec.structs.replace(self._registry.pod(container.pod), vm=None))
            if remove:
                self._discard(self._registry.container(container.id))

    async def stop(self, key: str, timeout: int | None = None) -> bool:
        """Signal, wait, kill; False when it did not run. `timeout` in seconds."""
        container = self._registry.container(key)
        life = self.life(container)
        if container.state.status is ContainerStatus.PAUSED:
            await self.unpause(container.id)
        elif container.state.status is not ContainerStatus.RUNNING or life.runtime is None:
            await self._settled(life)
            return False
        runtime = self.runtime(self._registry.container(container.id))
        with contextlib.suppress(HyperError):
            await runtime.session.signal(runtime.handles[container.id], container.process.stop_signal)
        grace = container.spec.stop_timeout if timeout is None else timeout
        with contextlib.suppress(TimeoutError):
            await asyncio.wait_for(life.stopped.wait(), grace)
        if not life.stopped.is_set():
            await self._end(container)
        await self._settled(life)
        self._tell("stop", container)
        return True

    async def _end(self, container: Container) -> None:
        """Kill all of a running container, and its VM if the guest does not obey."""
        life = self.life(container)
        runtime = life.runtime
        if runtime is None:
            await self._settled(life)
            return
        with contextlib.suppress(HyperError):
            await runtime.session.signal(runtime.handles[container.id], _SIGKILL, everyone=True)
        try:
            await asyncio.wait_for(life.stopped.wait(), 5)
        except TimeoutError:
            await runtime.machine.kill()
        await self._settled(life)

    @staticmethod
    async def _settled(life: Life) -> None:
        """Until the VM is down: what follows finds its disks at rest."""
        if life.watch:
            await asyncio.wait({life.watch})

    async def restart(self, key: str, timeout: int | None = None) -> None:
        container = self._registry.container(key)
        await self.stop(container.id, timeout)
        await self.start(container.id)
        self._tell("restart", self._registry.container(container.id))

    async def kill(self, key: str, signal: str) -> None:
        """:raise InvalidState: when it does not run."""
        container = self._registry.container(key)
        number = parse_signal(signal)
        runtime = self.runtime(container)
        await runtime.session.signal(runtime.handles[container.id], number, everyone=number == _SIGKILL)
        self._tell("kill", container, signal=str(number))

    async def wait(self, key: str) -> int:
        """The exit code, when the container runs no more."""
        container = self._registry.container(key)
        life = self.life(container)
        if life.stopped.is_set():
            return container.state.exit_code
        await life.stopped.wait()
        return life.exit_code

    async def pause(self, key: str) -> None:
        container = self._registry.container(key)
        runtime = self.runtime(container)
        if container.state.status is ContainerStatus.PAUSED:
            raise InvalidState(f"container {container.name} is paused already")
        await runtime.session.freeze_container(container.id[:12], True)
        self._tell("pause", self._update(container, status=ContainerStatus.PAUSED))

    async def unpause(self, key: str) -> None:
        container = self._registry.container(key)
        runtime = self.runtime(container)
        if container.state.status is not ContainerStatus.PAUSED:
            raise InvalidState(f"container {container.name} is not paused")
        await runtime.session.freeze_container(container.id[:12], False)
        self._tell("unpause", self._update(container, status=ContainerStatus.RUNNING))

    # -- the daemon's own life ------------------------------------------------------

    def take_up(self, container: Container, life: Life, runtime: Runtime, handle: GuestProcessHandle) -> None:
        """Go on with a container whose VM an earlier daemon started."""
        life.hub.attach_process(handle)
        runtime.handles[container.id] = handle
        self._registry.put_pod(record(self._registry.pod(container.pod), runtime, self._driver))
        life.runtime = runtime
        life.stopped.clear()
        life.watch = self._own(self._watch(container, life, runtime, handle))

    def settle_lost(self, container: Container, message: str) -> None:
        """Record the end of a container whose VM is gone."""
        self._registry.put_pod(msgspec.structs.replace(self._registry.pod(container.pod), vm=None))
        container = self._update(
            container, status=ContainerStatus.EXITED, pid=0, exit_code=LOST_EXIT_CODE, finished_at=ids.now(), error=message
        )
        self._tell("die", container, exit_code=str(LOST_EXIT_CODE))
        if container.spec.auto_remove:
            self._discard(container)

    async def shut_down(self) -> None:
        """Stop all that runs, and wait until it has."""
        running = [c for c in self._registry.containers() if self.life(c).runtime]
        await asyncio.gather(*(self.stop(c.id) for c in running), return_exceptions=True)
        await self.release()

    async def release(self) -> None:
        """Leave what runs running; end this daemon's own tasks."""
        for task in list(self._tasks):
            task.cancel()
        await asyncio.gather(*self._tasks, return_exceptions=True)
        for life in self._lives.values():
            if life.runtime:
                life.runtime.session.close()
