# SPDX-License-Identifier: Apache-2.0
"""What the engine asks of the factory: a warm machine, or a template to start one from."""

from __future__ import annotations

import asyncio
import contextlib
import hashlib
import logging
import secrets
from collections.abc import Iterator, Sequence
from dataclasses import dataclass, replace
from pathlib import Path

from ...errors import HyperError, InvalidState
from ...hypervisor.abilities import refusal
from ...hypervisor.driver import AnyDisk, Disk, MachineConfig
from ...hypervisor.drivers import Drivers
from ...hypervisor.facets import DiskHotplug, Reconfigure, Save, Snapshots, require
from ...model.factory import FactoryStatus, PoolInfo, TemplateInfo
from ...model.status import Container, Pod
from ...network.backend import Link
from ...network.idle import IdleNic
from ...protocol.constants import FIRST_TOKEN
from ...sys import clock, tasks
from ...sys.digests import FileDigests
from ...sys.files import copy_sparse
from ...sys.removal import unlinked
from ...sys.trees import remove_tree
from ..allotments import Allotments
from ..memory_files import memory_files, seal
from ..paths import FindBootFiles, Paths
from .clones import CLONE_TIMEOUT, PREPARED, Clone, bare, exercise, introduce, launch, networks_like, rehearse
from .parts import Parts
from .pool import Pool
from .shapes import SLOTS, Kind, Shape, in_slots, shape_of
from .templates import Template, Templates

log = logging.getLogger(__name__)
_DISCONNECT_DELAY = 0.2  # seconds until a guest has seen that its host went away
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
        drivers: Drivers,
        paths: Paths,
        parts: Parts,
        boot: FindBootFiles,
        settings: FactorySettings,
        allotments: Allotments,
    ) -> None:
        self._allotments = allotments
        self._drivers = drivers
        self._paths = paths
        self._parts = parts
        self._boot_files = boot
        self.enabled = settings.enabled and any(isinstance(d, Snapshots) for d in drivers)
        self.templates = Templates(paths.cache / "templates", settings.templates, self._key, self._make_template)
        self.pool = Pool(settings.pool if self.enabled else 0, self._make_clone)
        self.started = {"pool": 0, "clone": 0, "cold": 0}
        for left in paths.waiting.glob("*"):
            left.unlink(missing_ok=True)
        self._digests = FileDigests()
        self._failed: dict[Kind, float] = {}
        self._tasks: dict[Kind, asyncio.Task[None]] = {}

    def shape_of(
        self, pod: Pod, members: Sequence[Container], disks: Sequence[AnyDisk], links: Sequence[Link]
    ) -> Shape | None:
        """None: this machine must be booted."""
        if not self.enabled or not isinstance(self._drivers.get(pod.spec.driver), Snapshots):
            return None
        shape = shape_of(pod, members, disks, links, self._parts.slot_size)
        return shape if shape and (not shape.pod or self._may_wait(shape)) else None

    @contextlib.contextmanager
    def foreground(self, kind: Kind | None) -> Iterator[None]:
        """While somebody waits for a start; what is missing for the next one is made after it."""
        with self.pool.foreground(kind if kind and self._may_wait(kind.shape) else None):
            yield
        if kind and not self.templates.get(kind) and kind not in self._tasks:
            self._tasks[kind] = task = asyncio.create_task(self._prepare(kind))
            task.add_done_callback(lambda _: self._tasks.pop(kind, None))

    def _may_wait(self, shape: Shape) -> bool:
        """Whether its driver's machines can become a pod's after they have waited."""
        wanted = {Reconfigure, DiskHotplug} if shape.pod else {Reconfigure}
        return wanted <= self._drivers.get(shape.driver).facets

    async def _prepare(self, kind: Kind) -> None:
        if clock.seconds() - self._failed.get(kind, -_RETRY) < _RETRY:
            return
        await self.pool.quiet()
        try:
            await self.templates.ensure(kind)
        except (HyperError, OSError) as error:
            self._failed[kind] = clock.seconds()
            log.warning("no template %s: machines like it are booted: %s", kind.name, error)

    # -- clones -----------------------------------------------------------------------------

    def take(self, kind: Kind | None) -> Clone | None:
        """A warm machine, which is the caller's from now on; at best one that has a container of the image."""
        return self.pool.take(kind) if kind else None

    def place(self, disks: Sequence[AnyDisk]) -> tuple[list[Disk], dict[str, str]]:
        """Disks as a clone has them, and what the guest calls each."""
        return in_slots(disks, self._parts.slot_size)

    def template(self, kind: Kind | None) -> Template | None:
        """What a machine can start from, at best with the image's container."""
        return (self.templates.get(kind) or self.templates.get(kind.generic)) if kind else None

    async def from_template(self, template: Template, config: MachineConfig) -> tuple[MachineConfig, dict[str, str]]:
        """The configuration of a clone that has its disks from the start, and what the guest calls them."""
        driver = self._drivers.get(template.kind.shape.driver)
        networks = config.networks + networks_like(template.kind.shape.nic, driver.takes)[len(config.networks) :]
        if template.kind.shape.pod:
            template.clones += 1
            return replace(config, networks=networks, snapshot=template.snapshot), {}
        disks, names = self.place(config.disks)
        if template.scratch:  # the container that is ready goes on with its disk
            source, target = template.scratch, disks[1].path
            await tasks.in_thread(lambda: _put_in_place(source, target))
        config.directory.mkdir(mode=0o700, parents=True, exist_ok=True)
        blank = config.directory / "blank.img"
        self._parts.blank(blank)
        disks += [Disk(slot, blank, read_only=False) for slot in SLOTS[len(disks) :]]
        template.clones += 1
        return replace(config, disks=tuple(disks), networks=networks, snapshot=template.snapshot), names

    async def _make_clone(self, kind: Kind) -> Clone:
        template = await self.templates.ensure(kind)
        directory = self._paths.machine(f"pool-{secrets.token_hex(4)}")
        scratch = self._paths.waiting / f"{secrets.token_hex(8)}.img" if template.scratch else None
        try:
            if template.scratch and scratch:
                source, target = template.scratch, scratch
                await tasks.in_thread(lambda: copy_sparse(source, target))
            with template.in_use():
                clone = await self._launch(kind, directory, scratch, template)
        except BaseException:
            if scratch:
                await unlinked(scratch)
            raise
        template.clones += 1
        clone.scratch = scratch
        try:
            if kind.image:
                await introduce(clone.agent, kind.shape)
                await rehearse(clone.agent, kind.image.program)
            else:
                await self._exercise(clone)
        except BaseException:
            await clone.end()
            raise
        return clone

    async def _launch(
        self,
        kind: Kind,
        directory: Path,
        scratch: Path | None,
        template: Template | None,
        memory_file: int | None = None,
    ) -> Clone:
        """A machine of the factory's own; `scratch` is the disk of the container that is ready in it."""
        shape = kind.shape
        files = self._boot_files(shape.architecture)
        with contextlib.ExitStack() as undo:
            undo.callback(remove_tree, directory)
            directory.mkdir(mode=0o700, parents=True)
            image = kind.image.path if kind.image else None
            disks = [] if shape.pod else await self._parts.disks(directory, image, scratch)
            nic = IdleNic.make(shape.nic)
            undo.callback(nic.close)
            driver = self._drivers.get(shape.driver)
            allotment = await self._allotments.take(
                driver, directory.name, shape.vcpus, shape.memory, architecture=shape.architecture
            )
            undo.pop_all()  # `launch` takes them over
        config = MachineConfig(
            name=directory.name,
            directory=directory,
            vcpus=shape.vcpus,
            memory=shape.memory,
            kernel=files.kernel,
            initramfs=files.initramfs,
            disks=tuple(disks),
            networks=networks_like(shape.nic, driver.takes, nic.fd, nic.tap),
            memory_file=memory_file,
            snapshot=template.snapshot if template else None,
            expandable=shape.pod,
            architecture=shape.architecture,
        )
        token, timeout = (template.token, CLONE_TIMEOUT) if template else (FIRST_TOKEN, files.timeout)
        return await launch(driver, shape, config, nic, allotment, token, timeout)

    # -- templates ----------------------------------------------------------------------------

    async def _key(self, kind: Kind) -> str:
        shape = kind.shape
        files = self._boot_files(shape.architecture)
        driver = self._drivers.get(shape.driver)
        config = MachineConfig(
            "", Path(), shape.vcpus, shape.memory, files.kernel, files.initramfs,
            networks=networks_like(shape.nic, driver.takes), expandable=shape.pod, architecture=shape.architecture,
        )  # fmt: skip
        kernel = await self._digests.of(files.kernel)
        fingerprint = await require(driver, Snapshots).fingerprint(config)
        parts = (
            kernel,
            files.initramfs.name,
            fingerprint,
            kind.name,
            kind.image and kind.image.program,
            self._parts.slot_size,
            SLOTS,
        )
        return hashlib.sha256(repr(parts).encode()).hexdigest()

    async def _make_template(self, kind: Kind, key: str, scratch: Path) -> Template:
        """Boot a machine, let it do what comes before a start, and save it.

        `scratch` is where an image's container has its disk.
        """
        snapshot = memory_files(kind.shape.memory)
        clone = None
        try:
            if kind.image:
                scratch.unlink(missing_ok=True)
                await self._parts.scratch(scratch)
            directory = self._paths.machine(f"make-{secrets.token_hex(4)}")
            clone = await self._launch(kind, directory, scratch if kind.image else None, None, snapshot.memory)
            await self._get_ready(kind, clone)
            token = clone.agent.next_token
            clone.agent.close()
            await asyncio.sleep(_DISCONNECT_DELAY)
            await require(clone.machine, Save).save(snapshot.state)
            await clone.end()
            clone = None
            await seal(snapshot)
        except BaseException:
            if clone:
                await clone.end()
            Template(kind, key, snapshot, b"").close()
            raise
        return Template(kind, key, snapshot, token, scratch if kind.image else None)

    async def _get_ready(self, kind: Kind, clone: Clone) -> None:
        if kind.image is None:
            await self._exercise(clone)
            return
        await introduce(clone.agent, kind.shape)
        await clone.agent.create_container(bare(PREPARED, clone))
        await rehearse(clone.agent, kind.image.program)

    async def _exercise(self, clone: Clone) -> None:
        """One for a pod is lent disks for that long."""
        if not clone.shape.pod:
            await exercise(clone)
            return
        machine = require(clone.machine, DiskHotplug)
        disks = (await self._parts.disks(clone.directory))[:2]
        for disk in disks:
            await machine.add_disk(disk)
        clone.names |= clone.machine.names
        await exercise(clone)
        for disk in disks:
            await machine.remove_disk(disk.serial)
            clone.names.pop(disk.serial, None)
            if disk.path.parent == clone.directory:
                disk.path.unlink()

    def suspect(self, kind: Kind) -> None:
        """A clone did not come up: what it came from is made again."""
        log.warning("a clone of %s did not start: its template is made again", kind.name)
        self.templates.discard(kind)

    # -- what users ask -----------------------------------------------------------------------

    def status(self) -> FactoryStatus:
        """What there is of templates and of machines that wait, for `hyperctl factory status`."""
        counts = self.pool.counts()
        return FactoryStatus(
            enabled=self.enabled,
            templates=[
                TemplateInfo(
                    shape=t.kind.shape.name,
                    image=_shown(t.kind),
                    key=t.key[:12],
                    made_at=t.made_at,
                    memory=t.memory,
                    clones=t.clones,
                )
                for t in self.templates.all()
            ],
            pool=[
                PoolInfo(shape=k.shape.name, image=_shown(k), waiting=waiting, target=target)
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
        driver = self._drivers.get(shape.driver)
        if not self._may_wait(shape):
            raise refusal(driver, Reconfigure, list(self._drivers))
        if count > self.pool.room:
            raise InvalidState(
                f"only {self.pool.room} machines fit into the pool's memory",
                hint="raise pool_memory in hyperd's configuration",
            )
        await self.templates.ensure(Kind(shape))
        await self.pool.warm(Kind(shape), count)
        return self.status()

    async def drain(self, *, templates: bool) -> int:
        """End the clones that wait, and forget the templates if asked; how many ended."""
        gone = await self.pool.drain()
        if templates:
            await self.templates.clear()
        return gone

    async def close(self) -> None:
        await tasks.end(list(self._tasks.values()))
        await self.pool.close()
        self.templates.close()


def _shown(kind: Kind) -> str:
    return kind.image.path.stem[:12] if kind.image else ""


def _put_in_place(source: Path, target: Path) -> None:
    """A copy in place of what is there, which is whole whenever somebody looks."""
    new = target.with_suffix(".new")
    copy_sparse(source, new)
    new.replace(target)
