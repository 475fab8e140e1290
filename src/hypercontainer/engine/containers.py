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
from pathlib import Path

import msgspec

from ..errors import Conflict, DeadlineExceeded, InvalidArgument, InvalidState, Unavailable
from ..images.layout import StoredImage
from ..images.store import ImageStore
from ..model import ids
from ..model.pods import SHM_DEFAULT, PodSpec
from ..model.ports import published
from ..model.signals import parse_signal
from ..model.specs import ContainerSpec
from ..model.status import Container, ContainerState, ContainerStatus, Pod
from ..sys import tasks
from ..sys.files import copy_sparse, no_space_as_error, remove_tree
from ..volumes.scratch import ScratchDisks
from . import environment, health, resolve
from .events import Events
from .life import LOST_EXIT_CODE, Life
from .logs import KeepNothing, Log, LogWriter
from .machines import Machines, check_awake
from .networks import Networks
from .paths import Paths
from .provision import Provisioner
from .registry import Registry
from .runs import Runs
from .runtime import Runtime
from .streams import Hub
from .volumes import Volumes

_SIGKILL = 9
ALIVE = (ContainerStatus.RUNNING, ContainerStatus.PAUSED, ContainerStatus.RESTARTING)


class Containers:
    """Create, start, stop, remove and what lies between."""

    def __init__(
        self, *, paths: Paths, registry: Registry, images: ImageStore, provisioner: Provisioner, scratch: ScratchDisks,
        machines: Machines, networks: Networks, volumes: Volumes, events: Events, log_size: int, log_files: int,
    ) -> None:  # fmt: skip
        self._paths = paths
        self._registry = registry
        self._images = images
        self._machines = machines
        self._networks = networks
        self._scratch = scratch
        self._volumes = volumes
        self._log_limits = (log_size, log_files)
        self._lives: dict[str, Life] = {}
        self.runs = Runs(
            registry=registry,
            machines=machines,
            provisioner=provisioner,
            events=events,
            life=self.life,
            erase=self._erase,
            withdraw=self._withdraw,
        )

    def life(self, container: Container) -> Life:
        """The container's life, begun at the first need."""
        life = self._lives.get(container.id)
        if life is None:
            life = self._lives[container.id] = Life(Hub(lambda: self._log(container)))
        return life

    def _log(self, container: Container) -> Log:
        options = container.spec.log
        if options.driver == "none":
            return KeepNothing(self._paths.container(container.id) / "offsets")
        size, files = self._log_limits
        return LogWriter(
            Path(container.log_path), max_size=options.max_size or size, max_files=options.max_files or files
        )

    def runtime(self, container: Container) -> Runtime:
        """:raise InvalidState: when the container does not run."""
        self._check_awake(container)
        runtime = self.life(container).runtime
        if runtime is None and self._machines.is_late(container.pod):
            raise Unavailable(
                f"the virtual machine of container {container.name} has not answered since hyperd was started",
                hint="wait, or end it with `hyperctl kill -s KILL` or `rm -f`",
            )
        if runtime is None or container.state.status not in (ContainerStatus.RUNNING, ContainerStatus.PAUSED):
            raise InvalidState(
                f"container {container.name} is not running", hint=f"start it with `hyperctl start {container.name}`"
            )
        return runtime

    def _check_awake(self, container: Container) -> None:
        """:raise InvalidState: when the pod's machine is paused: its guest would not answer."""
        check_awake(self._registry.pod(container.pod))

    # -- create and remove --------------------------------------------------------

    async def create(self, spec: ContainerSpec, *, starting: bool = False) -> Container:
        """Create a container, in the pod that it names or in one of its own; the image must be in the store.

        When it is `starting`, a start follows at once: a crash until that has ended leaves nothing of a container with `auto_remove`.

        :raise NotFound: no such image or pod. :raise Conflict: the name is taken.
        """
        resolve.validate(spec)
        image = self._images.find(spec.image, platform=spec.platform)
        spec = msgspec.structs.replace(spec, ports=published(spec, image.config.config.get("ExposedPorts") or {}))
        if spec.pod:
            return await self._join(spec, image, starting)
        name = self._registry.reserve(spec.name)
        id_ = ids.new_id()
        try:
            pod = self._implicit_pod(spec, id_, name)
            self._registry.check_pod_name(name)
            return await self.add(pod, spec, image, id_, name, starting=starting)
        finally:
            self._registry.release(name)

    async def _join(self, spec: ContainerSpec, image: StoredImage, starting: bool) -> Container:
        pod = self._registry.pod(spec.pod)
        if pod.implicit:
            raise InvalidState(
                f"{pod.name} is a container of its own, no pod", hint="make one with `hyperctl pod create`"
            )
        if spec.ports:
            raise InvalidArgument("ports are published by the pod, not by a container in it",
                                  hint=f"use `hyperctl ports add {pod.name}`")  # fmt: skip
        name = self._registry.reserve(spec.name)
        try:
            return await self.add(pod, spec, image, ids.new_id(), name, starting=starting)
        finally:
            self._registry.release(name)

    def _implicit_pod(self, spec: ContainerSpec, id_: str, name: str) -> Pod:
        vcpus, memory = resolve.machine_size([spec])
        pod_spec = PodSpec(
            network=spec.network,
            networks=spec.networks,
            ports=spec.ports,
            shm_size=spec.shm_size or SHM_DEFAULT,
            allow=spec.allow,
            ingress_rate=spec.ingress_rate,
            egress_rate=spec.egress_rate,
            dns=spec.dns,
            dns_search=spec.dns_search,
            dns_options=spec.dns_options,
            hosts=spec.hosts,
        )
        pod_spec, attachments = self._networks.plan(id_, pod_spec, spec.aliases)
        hostname = spec.hostname or ids.short(id_)
        return Pod(
            id=id_,
            name=name,
            created_at=ids.now(),
            hostname=hostname,
            vcpus=vcpus,
            memory=memory,
            implicit=True,
            spec=pod_spec,
            attachments=attachments,
        )

    async def add(
        self, pod: Pod, spec: ContainerSpec, image: StoredImage, id_: str, name: str, *, starting: bool = False
    ) -> Container:
        """A container's files, and then its record, with the pod's if that is its own; nothing is left behind when it fails, or in a crash."""
        directory = self._paths.container(id_)
        before = pod if pod.implicit else self._registry.pod(pod.id)
        self._registry.begin(id_)
        try:
            config = image.config.config
            volumes, mounts = await self._volumes.resolve(before, spec, config)
            container = Container(
                id=id_,
                name=name,
                pod=pod.id,
                created_at=ids.now(),
                image=spec.image,
                image_id=image.id,
                hostname=pod.hostname,
                state=ContainerState(starting=starting),
                process=resolve.process_of(
                    environment.resolved(spec, environment.addresses(pod, self._networks)), config, pod.hostname
                ),
                spec=spec,
                mounts=mounts,
                log_path=spec.log.path or str(self._paths.log(id_)),
                health=None if spec.no_health else spec.health or health.of_image(config),
            )
            with no_space_as_error(directory):
                directory.mkdir(mode=0o700, parents=True)
            await self._make_scratch(spec, id_)
            before = pod if pod.implicit else self._registry.pod(pod.id)
            if added := [v for v in volumes if v.name not in {x.name for x in before.volumes}]:
                before = msgspec.structs.replace(before, volumes=[*before.volumes, *added])
            self._registry.create(before, container, done=id_)
        except BaseException:
            remove_tree(directory)
            self._registry.finish(id_)
            raise
        self.runs.tell("create", container)
        return container

    async def _make_scratch(self, spec: ContainerSpec, id_: str) -> None:
        if not spec.base:
            await self._scratch.create(self._paths.scratch(id_))
            return
        base = self._registry.container(spec.base)
        if base.state.status in ALIVE:
            raise InvalidState(f"container {base.name} is running", hint="stop it before its files are taken")
        await tasks.in_thread(lambda: copy_sparse(self._paths.scratch(base.id), self._paths.scratch(id_)))

    async def remove(self, key: str, *, force: bool = False) -> Container:
        """Remove a container, its files, and its pod if that was its own.

        :raise Conflict: when it runs and `force` is off.
        """
        container = self._registry.container(key)
        life = self.life(container)
        while self._registry.exists(container.id):
            container = self._registry.container(container.id)
            self._check_awake(container)
            starting = life.starting is not None
            if (starting or container.state.status in ALIVE) and not force:
                status = "starting" if starting else container.state.status
                raise Conflict(f"container {container.name} is {status}", hint="stop it first, or use --force")
            if starting or container.state.status in ALIVE:
                life.stop_requested.set()
                await self._machines.give_up(container.pod)
                await self.runs.give_up_start(container)
                await self.runs.end(container)
                await self.runs.settled(life)
                self._settle_unfollowed(container.id, life)
            async with life.lock:  # another start may have been before us
                if (
                    self._registry.exists(container.id)
                    and self._registry.container(container.id).state.status not in ALIVE
                ):
                    await self._erase(self._registry.container(container.id))
        return container

    def _settle_unfollowed(self, id_: str, life: Life) -> None:
        """A record that says that it runs, with nobody who follows it."""
        if self._registry.exists(id_) and life.starting is None and (life.watch is None or life.watch.done()):
            container = self._registry.container(id_)
            if container.state.status in ALIVE:
                self.settle_lost(container, "nobody followed it")

    async def _erase(self, container: Container) -> None:
        """Take an ended container out of a machine that goes on, and forget it; a machine of its own ends, whoever copies from it."""
        pod = self._registry.pod(container.pod) if self._registry.has_pod(container.pod) else None
        if pod is None or pod.implicit:
            await self._machines.down(container.pod, clean=False)
        else:
            await self._machines.drop(container, volumes=self._own_volumes(container))
        if self._registry.exists(container.id):
            self._discard(self._registry.container(container.id))
        elif pod is None:  # it was withdrawn before
            self._machines.forget(container.pod)
            self.remove_files(container.id)

    def _withdraw(self, container: Container) -> None:
        """Forget a container and the pod of its own, whose machine is about to end; `_erase` removes what is left."""
        self._registry.erase(container, self._registry.pod(container.pod), files=container.id)
        self._farewell(container)

    def _own_volumes(self, container: Container) -> list[str]:
        """The volumes that nothing else in the pod uses, and that its specification did not name."""
        pod = self._registry.pod(container.pod)
        others = {m.volume for c in self._registry.members(pod.id) if c.id != container.id for m in c.mounts}
        mine = {m.volume for m in container.mounts if m.volume}
        # The place of a directory in the tree of a machine that runs is its name there.
        kept = {v.name for v in pod.volumes if v.declared or (v.kind == "directory" and pod.vm)}
        return sorted(mine - others - kept)

    def _discard(self, container: Container) -> None:
        pod = self._registry.pod(container.pod)
        gone = set(self._own_volumes(container))
        self._registry.erase(container, *([pod] if pod.implicit else []), files=container.id)
        if pod.implicit:
            self._machines.forget(pod.id)
        elif gone:
            self._registry.put_pod(msgspec.structs.replace(pod, volumes=[v for v in pod.volumes if v.name not in gone]))
        self.remove_files(container.id)
        self._farewell(container)

    def _farewell(self, container: Container) -> None:
        life = self._lives.pop(container.id, None)
        if life:
            life.hub.discard()
            life.removed.set()
            life.stopped.set()
        self.runs.tell("destroy", container)

    def remove_files(self, id_: str) -> None:
        """Of a container, or of a pod, that has no record any more."""
        for directory in (self._paths.container(id_), self._paths.pod(id_)):
            remove_tree(directory)
        self._registry.finish(id_)

    def rename(self, key: str, new: str) -> Container:
        """:raise Conflict: the name is taken. :raise InvalidArgument: malformed."""
        container = self._registry.container(key)
        if new == container.name:
            raise InvalidArgument(f"container {key} has that name already")
        self._registry.check_name(new)
        renamed = msgspec.structs.replace(container, name=new)
        pod = self._registry.pod(container.pod)
        if pod.implicit:
            self._registry.check_pod_name(new)
            self._registry.put_pod(msgspec.structs.replace(pod, name=new))
        self._registry.put(renamed)
        self.runs.tell("rename", renamed, old_name=container.name)
        return renamed

    # -- run ------------------------------------------------------------------------

    async def start(self, key: str, size: tuple[int, int] = (0, 0)) -> bool:
        """Start a container; False when it ran already.

        :raise StartFailed: when its program cannot be executed; the container is exited then.
        """
        return await self.runs.start(key, size)

    async def stop(self, key: str, timeout: int | None = None) -> bool:
        """Signal, wait, kill; False when it did not run. `timeout` in seconds."""
        container = self._registry.container(key)
        self._check_awake(container)
        if self._machines.is_late(container.pod):
            self.life(container).stop_requested.set()
            return await self._machines.give_up(container.pod)
        if container.state.status is ContainerStatus.PAUSED:
            with contextlib.suppress(DeadlineExceeded):  # it ends all the same
                await self.unpause(container.id)
        return await self.runs.stop(self._registry.container(container.id), timeout)

    async def restart(self, key: str, timeout: int | None = None) -> None:
        container = self._registry.container(key)
        await self.stop(container.id, timeout)
        await self.start(container.id)
        self.runs.tell("restart", self._registry.container(container.id))

    async def kill(self, key: str, signal: str) -> None:
        """:raise InvalidState: when it does not run."""
        container = self._registry.container(key)
        number = parse_signal(signal)
        if number in (_SIGKILL, container.process.stop_signal) and await self.runs.give_up_start(container):
            return
        if number == _SIGKILL and self._machines.is_late(container.pod):
            self.life(container).stop_requested.set()
            await self._machines.give_up(container.pod)
            return
        runtime = self.runtime(container)
        if number in (_SIGKILL, container.process.stop_signal):
            self.life(container).stop_requested.set()  # as Docker: who kills does not want it back
        if number == _SIGKILL:  # whatever its guest does
            await self.runs.end(container)
        else:
            await runtime.session.signal(runtime.handles[container.id], number)
        self.runs.tell("kill", container, signal=str(number))

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
        self._check_not_paused(container)
        self.runtime(container)
        async with self.life(container).lock:  # it may have ended until it is ours
            container = self._registry.container(container.id)
            self._check_not_paused(container)
            await self.runtime(container).session.freeze_container(container.id[:12], True)
            self.runs.tell("pause", self.runs.update(container, status=ContainerStatus.PAUSED))

    def _check_not_paused(self, container: Container) -> None:
        if container.state.status is ContainerStatus.PAUSED:
            self._check_awake(container)
            raise InvalidState(f"container {container.name} is paused already")

    async def unpause(self, key: str) -> None:
        container = self._registry.container(key)
        self.runtime(container)
        async with self.life(container).lock:
            container = self._registry.container(container.id)
            runtime = self.runtime(container)
            if container.state.status is not ContainerStatus.PAUSED:
                raise InvalidState(f"container {container.name} is not paused")
            await runtime.session.freeze_container(container.id[:12], False)
            self.runs.tell("unpause", self.runs.update(container, status=ContainerStatus.RUNNING))

    # -- the daemon's own life ------------------------------------------------------

    def settle_lost(self, container: Container, message: str) -> None:
        """Record the end of a container whose VM is gone."""
        container = self.runs.update(
            container,
            status=ContainerStatus.EXITED,
            starting=False,
            pid=0,
            exit_code=LOST_EXIT_CODE,
            finished_at=ids.now(),
            error=message,
        )
        self.runs.tell("die", container, exit_code=str(LOST_EXIT_CODE))
        if container.spec.auto_remove:
            self._discard(container)

    async def shut_down(self) -> None:
        """Stop all that runs, and wait until it has."""
        running = [c for c in self._registry.containers() if self.life(c).runtime]
        with contextlib.suppress(asyncio.CancelledError):
            await asyncio.gather(*(self.stop(c.id) for c in running), return_exceptions=True)
        await asyncio.gather(*(self._machines.down(p.id) for p in self._registry.pods()), return_exceptions=True)
        await self.release()

    async def release(self) -> None:
        """Leave what runs running; end this daemon's own tasks."""
        await self.runs.leave()
        await self._machines.leave()
