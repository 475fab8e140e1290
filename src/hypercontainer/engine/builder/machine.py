# SPDX-License-Identifier: Apache-2.0
"""The builder: a container of the daemon's own, with dockerd as its process 1.

It is started when somebody needs it, stays some minutes after its last use, and is removed then; its cache is a named
volume, which stays. A daemon that finds one which an earlier daemon left goes on with it.
"""

from __future__ import annotations

import asyncio
import contextlib
import logging
from collections.abc import AsyncIterator
from dataclasses import dataclass, field
from typing import Any

from msgspec import UNSET

from ...errors import HyperError, NotFound
from ...images.store import ImageStore
from ...model.network import Egress
from ...model.pods import VolumeSpec
from ...model.principal import Tenant
from ...model.specs import ContainerSpec, Mount, Resources
from ...model.status import Container, ContainerStatus
from ...sys import tasks
from .. import principal
from ..containers import Containers
from ..naming import SYSTEM_LABEL, is_system
from ..registry import Registry
from ..volumes import Volumes
from . import image

log = logging.getLogger(__name__)
NAME = "hyper-builder"
VOLUME = "hyper-build-cache"
DATA = "/var/lib/docker"
_GRACE = 5  # seconds for dockerd's end
_ROOM = 2  # a volume's size as a multiple of the cache that is kept: what is being built needs room, too


@dataclass(frozen=True)
class BuilderSettings:
    """What the configuration says of it."""

    image: str = ""  # a name; "" is what `make builder-image` made
    memory: int = 1 << 30  # bytes
    cpus: float = 2.0
    keep: float = 300.0  # seconds that it waits for the next build
    cache: int = 16 << 30  # bytes of the build cache that are kept
    network: str = ""  # "" is the daemon's default
    allow: tuple[Egress, ...] = ()  # the only destinations that builds may reach; none: all
    insecure: frozenset[str] = field(default_factory=frozenset)  # registries without TLS
    tenant: Tenant = UNSET  # for whom it builds; nothing that the configuration says


class BuilderMachine:
    """Starts, keeps and removes the one builder of a tenant."""

    def __init__(
        self, containers: Containers, registry: Registry, images: ImageStore, volumes: Volumes,
        settings: BuilderSettings,
    ) -> None:  # fmt: skip
        self._containers = containers
        self._registry = registry
        self._images = images
        self._volumes = volumes
        self._settings = settings
        self._users = 0
        self._starting: asyncio.Task[Container] | None = None
        self._idle: asyncio.TimerHandle | None = None
        self._ending: asyncio.Task[None] | None = None
        self._closed = False

    def open(self) -> None:
        """One that an earlier daemon left has its time from now on."""
        if self.found():
            self._rest()

    async def close(self) -> None:
        """Begin no other, and end none: the engine ends what runs, or leaves it running."""
        self._closed = True
        if self._idle:
            self._idle.cancel()
        await tasks.end(t for t in (self._starting, self._ending) if t)

    def found(self) -> Container | None:
        """The builder that there is, if there is one."""
        own = (c for c in self._registry.containers() if c.tenant == self._settings.tenant and is_system(c))
        return next((c for c in own if c.spec.labels[SYSTEM_LABEL] == NAME), None)

    @property
    def running(self) -> bool:
        """Whether there is one that runs; its dockerd may not listen yet."""
        found = self.found()
        return found is not None and found.state.status is ContainerStatus.RUNNING

    @property
    def has_cache(self) -> bool:
        """Whether an earlier builder has left a cache."""
        return self._registry.find_volume(VOLUME) is not None

    @contextlib.asynccontextmanager
    async def use(self) -> AsyncIterator[Container]:
        """The builder, which runs and stays while it is used; its dockerd may not listen yet.

        :raise HyperError: why it does not start.
        """
        self._users += 1
        if self._idle:
            self._idle.cancel()
        try:
            yield await self._up()
        finally:
            self._users -= 1
            if not self._users:
                self._rest()

    async def remove(self, container: Container) -> None:
        """It is broken, or not needed: whoever comes next has another."""
        with contextlib.suppress(NotFound):
            await self._containers.remove(container.id, force=True)

    async def stop(self) -> None:
        """End it, whoever uses it; that there is none is no error."""
        if found := self.found():
            await self._end(found)

    async def _up(self) -> Container:
        if self._starting is None or (self._starting.done() and not self.running):
            # A task of its own: whoever asked first may go, and others have come meanwhile.
            self._starting = asyncio.create_task(self._start())
            self._starting.add_done_callback(_seen)
        return await asyncio.shield(self._starting)

    async def _start(self) -> Container:
        principal.forget(self._settings.tenant)
        if found := self.found():
            if self.running:
                return found
            await self.remove(found)
        s = self._settings
        if not self.has_cache:
            await self._volumes.create(VolumeSpec(name=VOLUME, size=s.cache * _ROOM, labels={SYSTEM_LABEL: NAME}))
        container = await self._containers.create(self._spec(await image.ensure(self._images, s.image)), starting=True)
        try:
            await self._containers.start(container.id)
        except BaseException:
            await self.remove(container)
            raise
        log.info("the builder runs: container %s", container.id[:12])
        return self._registry.container(container.id)

    def _spec(self, name: str) -> ContainerSpec:
        s = self._settings
        return ContainerSpec(
            image=name, name=NAME, command=[f"--insecure-registry={r}" for r in sorted(s.insecure)],
            env=[f"BUILDER_CACHE={s.cache}"], labels={SYSTEM_LABEL: NAME}, privileged=True, auto_remove=True,
            resources=Resources(memory=s.memory, cpus=s.cpus), mounts=[Mount(target=DATA, source=VOLUME)],
            network=s.network, allow=list(s.allow), stop_timeout=_GRACE, hostname="builder",
        )  # fmt: skip

    def _rest(self) -> None:
        if not self._closed:
            self._idle = asyncio.get_running_loop().call_later(self._settings.keep, self._retire)

    def _retire(self) -> None:
        if (found := self.found()) and not self._users:
            log.info("the builder was not needed for %g s: it ends", self._settings.keep)
            self._ending = asyncio.create_task(self._end(found))

    async def _end(self, container: Container) -> None:
        principal.forget(self._settings.tenant)
        try:
            await self._containers.stop(container.id)
            await self.remove(container)
        except HyperError as error:
            log.warning("the builder does not end: %s", error)


def _seen(task: asyncio.Task[Any]) -> None:
    """Whoever wanted it may have gone."""
    if not task.cancelled():
        task.exception()
