# SPDX-License-Identifier: Apache-2.0
"""What the engine asks of the factory: a warm machine, or a template to start one from."""

from __future__ import annotations

import asyncio
import contextlib
import hashlib
import logging
import secrets
import time
from collections.abc import Callable, Iterator, Sequence
from dataclasses import dataclass, replace
from pathlib import Path

from ...errors import HyperError, InvalidState
from ...hypervisor.driver import AnyDisk, Disk, Driver, MachineConfig
from ...model.factory import FactoryStatus, PoolInfo, TemplateInfo
from ...model.pods import InterfaceSpec
from ...model.status import Container, Pod
from ...protocol.constants import FIRST_TOKEN
from ...sys import tasks
from ..paths import BootFiles, Paths
from .clones import CLONE_TIMEOUT, Card, Clone, exercise, launch
from .parts import Parts
from .pool import Kind, Pool
from .shapes import SLOTS, Shape, in_slots, shape_of
from .templates import Template, Templates, memory_files, seal

log = logging.getLogger(__name__)
_SETTLE = 0.2  # seconds until a guest has seen that its host went away
_RETRY = 60.0  # seconds after a template could not be made


@dataclass(frozen=True)
class FactorySettings:
    """Bytes; without templates there are no clones, and without a pool none wait."""

    enabled: bool = True
    templates: int = 512 << 20
    pool: int = 512 << 20


class Factory:
    """Templates, clones and the pool of one daemon."""

    def __init__(
        self,
        driver: Driver,
        paths: Paths,
        parts: Parts,
        boot: Callable[[], BootFiles],
        settings: FactorySettings,
        *,
        passt: Callable[[], bool],
    ) -> None:
        self._driver = driver
        self._paths = paths
        self._parts = parts
        self._boot_files = boot
        self._passt = passt
        self.enabled = settings.enabled and driver.capabilities.snapshots
        self.templates = Templates(paths.cache / "templates", settings.templates, self._key, self._make_template)
        self.pool = Pool(settings.pool if self.enabled else 0, self._make_clone)
        self.started = {"pool": 0, "clone": 0, "cold": 0}
        for left in paths.waiting.glob("*"):
            left.unlink(missing_ok=True)
        self._failed: dict[Shape, float] = {}
        self._tasks: dict[Shape, asyncio.Task[None]] = {}

    def shape_of(self, pod: Pod, members: Sequence[Container], disks: Sequence[AnyDisk], cards: Sequence[InterfaceSpec]) -> Shape | None:
        """None: this machine must be booted."""
        if not self.enabled:
            return None
        return shape_of(pod, members, disks, cards, self._parts.slot_size, passt=self._passt())

    @contextlib.contextmanager
    def foreground(self, kind: Kind | None) -> Iterator[None]:
        """While somebody waits for a start; what is missing for the next one is made after it."""
        with self.pool.foreground(kind):
            yield
        shape = kind.shape if kind else None
        if shape and not self.templates.get(shape) and shape not in self._tasks:
            self._tasks[shape] = task = asyncio.create_task(self._prepare(shape))
            task.add_done_callback(lambda _: self._tasks.pop(shape, None))

    async def _prepare(self, shape: Shape) -> None:
        if time.monotonic() - self._failed.get(shape, -_RETRY) < _RETRY:
            return
        await self.pool.quiet()
        try:
            await self.templates.ensure(shape)
        except (HyperError, OSError) as error:
            self._failed[shape] = time.monotonic()
            log.warning("no template %s: machines of this shape are booted: %s", shape.name, error)

    # -- clones -----------------------------------------------------------------------------

    def take(self, kind: Kind | None) -> Clone | None:
        """A warm machine, which is the caller's from now on; at best one that has a container of the image."""
        return self.pool.take(kind) if kind else None

    def place(self, disks: Sequence[AnyDisk]) -> tuple[list[Disk], dict[str, str]]:
        """Disks as a clone has them, and what the guest calls each."""
        return in_slots(disks, self._parts.slot_size)

    def from_template(self, template: Template, config: MachineConfig) -> tuple[MachineConfig, dict[str, str]]:
        """The configuration of a clone that has its disks from the start, and what the guest calls them."""
        disks, names = self.place(config.disks)
        config.directory.mkdir(mode=0o700, parents=True, exist_ok=True)
        blank = config.directory / "blank.img"
        self._parts.blank(blank)
        disks += [Disk(slot, blank, read_only=False) for slot in SLOTS[len(disks) :]]
        template.clones += 1
        return replace(config, disks=tuple(disks), snapshot=template.snapshot), names

    async def _make_clone(self, kind: Kind) -> Clone:
        shape = kind.shape
        template = await self.templates.ensure(shape)
        directory = self._paths.machine(f"pool-{secrets.token_hex(4)}")
        clone = await self._launch(shape, directory, template)
        template.clones += 1
        try:
            await exercise(clone.session, shape)
            if kind.image:
                scratch = self._paths.waiting / f"{secrets.token_hex(8)}.img"
                await self._parts.scratch(scratch)
                await clone.prepare(kind.image.path, scratch, kind.image.program)
        except BaseException:
            await clone.end()
            raise
        return clone

    async def _launch(self, shape: Shape, directory: Path, template: Template | None, memory_file: int | None = None) -> Clone:
        files = self._boot_files()
        directory.mkdir(mode=0o700, parents=True)
        card = Card.make(shape.card)
        config = MachineConfig(
            name=directory.name, directory=directory, vcpus=shape.vcpus, memory=shape.memory, kernel=files.kernel, initramfs=files.initramfs,
            disks=tuple(await self._parts.disks(directory)), networks=card.networks, memory_file=memory_file,
            snapshot=template.snapshot if template else None,
        )  # fmt: skip
        token, timeout = (template.token, CLONE_TIMEOUT) if template else (FIRST_TOKEN, files.timeout)
        return await launch(self._driver, shape, config, card, token, timeout)

    # -- templates ----------------------------------------------------------------------------

    async def _key(self, shape: Shape) -> str:
        files = self._boot_files()
        config = MachineConfig("", Path(), shape.vcpus, shape.memory, files.kernel, files.initramfs, networks=Card.kind(shape.card))
        parts = (
            await asyncio.to_thread(_digest, files.kernel),
            files.initramfs.name,
            await self._driver.fingerprint(config),
            shape.name,
            self._parts.slot_size,
            SLOTS,
        )
        return hashlib.sha256(repr(parts).encode()).hexdigest()

    async def _make_template(self, shape: Shape, key: str) -> Template:
        snapshot = memory_files(shape.memory)
        clone = None
        try:
            directory = self._paths.machine(f"make-{secrets.token_hex(4)}")
            clone = await self._launch(shape, directory, None, snapshot.memory)
            await exercise(clone.session, shape)
            token = clone.session.next_token
            clone.session.close()
            await asyncio.sleep(_SETTLE)
            await clone.machine.save(snapshot.state)
            await clone.end()
            clone = None
            await seal(snapshot)
        except BaseException:
            if clone:
                await clone.end()
            Template(shape, key, snapshot, b"").close()
            raise
        return Template(shape, key, snapshot, token)

    def suspect(self, shape: Shape) -> None:
        """A clone did not come up: what it came from is made again."""
        log.warning("a clone of %s did not start: its template is made again", shape.name)
        self.templates.discard(shape)

    # -- what users ask -----------------------------------------------------------------------

    def status(self) -> FactoryStatus:
        counts = self.pool.counts()
        return FactoryStatus(
            enabled=self.enabled,
            templates=[
                TemplateInfo(shape=t.shape.name, key=t.key[:12], made_at=t.made_at, memory=t.memory, clones=t.clones)
                for t in self.templates.all()
            ],
            pool=[
                PoolInfo(shape=k.shape.name, image=k.image.path.stem[:12] if k.image else "", waiting=waiting, target=target)
                for k, (waiting, target) in counts.items()
                if waiting or target
            ],
            template_limit=self.templates.limit,
            pool_limit=self.pool.budget,
            pool_memory=self.pool.memory,
            started=dict(self.started),
        )

    async def warm(self, shape: Shape, count: int) -> FactoryStatus:
        """Make the template, and let `count` clones wait from now on.

        :raise InvalidState: when the factory is off. :raise HyperError: when it fails.
        """
        if not self.enabled:
            raise InvalidState("the factory is off", hint="start hyperd with --factory")
        await self.templates.ensure(shape)
        if count:
            waiting = await self.pool.warm(Kind(shape, None), count)
            if waiting < count:
                raise InvalidState(
                    f"only {waiting} machines fit into the pool's memory", hint="raise pool_memory in hyperd's configuration"
                )
        return self.status()

    async def drain(self, *, templates: bool) -> int:
        """End the clones that wait, and forget the templates if asked; how many ended."""
        gone = await self.pool.drain()
        if templates:
            for template in self.templates.all():
                self.templates.discard(template.shape)
        return gone

    async def close(self) -> None:
        await tasks.end(list(self._tasks.values()))
        await self.pool.close()
        self.templates.close()


def _digest(path: Path) -> str:
    with open(path, "rb") as f:
        return hashlib.file_digest(f, "sha256").hexdigest()
