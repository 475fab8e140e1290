# SPDX-License-Identifier: Apache-2.0
"""From a pod to its running VM, and from containers to what the guest has of them.

Every step that takes something registers its release on an exit stack; a
failure unwinds it, success hands it to the runtime.
"""

from __future__ import annotations

import asyncio
import logging
from collections.abc import Awaitable, Callable
from pathlib import Path

from ..errors import HyperError, Unavailable
from ..guest.agent import Agent, Process
from ..guest.greet import find
from ..hypervisor.driver import KINDS, AnyDisk, Disk, Driver, Machine, VirtioFs, unsupported
from ..hypervisor.drivers import Drivers
from ..hypervisor.facets import DiskHotplug, Pause, require
from ..images.store import ImageStore
from ..model.status import Container, ContainerStatus, Pod, PodStatus
from ..protocol.constants import Builtin
from ..protocol.messages import GuestProcess
from ..sys.files import remove_tree
from ..sys.spans import GUEST, span
from . import resolve
from .builtins import run_process
from .factory.factory import Factory
from .factory.shapes import Image, Kind, is_plain
from .guest_files import files_of, injected_archive
from .guest_mounts import guest_mounts, mount_volume, unmount_volume
from .machine_config import interface_specs, kinds
from .machine_disks import MachineDisks, image_serial, scratch_serial, volume_serial
from .networks import Networks
from .paths import BootFiles, Paths
from .runtime import Runtime, handle_of
from .secrets import Secrets
from .sources import Cloned, Cold, MachineSource, Order, Setup, Warm, first
from .streams import FanOut

log = logging.getLogger(__name__)


class Provisioner:
    """Boots pods, builds containers in them."""

    def __init__(
        self,
        paths: Paths,
        drivers: Drivers,
        images: ImageStore,
        disks: MachineDisks,
        secrets: Secrets,
        networks: Networks,
        boot: Callable[[], BootFiles],
        *,
        factory: Factory,
        virtiofs: bool,
    ) -> None:
        self._factory = factory
        self._drivers = drivers
        self._images = images
        self._disks = disks
        self._secrets = secrets
        self._networks = networks
        self._virtiofs = virtiofs
        setup = Setup(paths, networks, boot, factory)
        self._sources: tuple[MachineSource, ...] = (Warm(setup), Cloned(setup), Cold(setup))

    async def boot(self, pod: Pod, members: list[Container]) -> Runtime:
        """The VM of a pod with its members' disks, a warm one where it can; the guest has no container yet.

        :raise Unavailable: when the guest does not come up; the message has its last words.
        """
        with span("disks found"):
            disks = await self._disks.of_pod(pod, members)
        driver = self._drivers.get(pod.spec.driver)
        shape = self._factory.shape_of(pod, members, disks, interface_specs(pod, self._networks))
        kind = Kind(shape) if shape else None
        if shape and is_plain(members[0]):
            kind = Kind(shape, self._image_of(members[0], disks[0]))
        order = Order(pod, disks, driver, kind, self._uses_virtiofs(driver))
        with self._factory.foreground(kind):
            booted = await first(self._sources, order)
        self._factory.started[booted.source] += 1
        return Runtime.of(booted, {d.serial for d in disks})

    def _uses_virtiofs(self, driver: Driver) -> bool:
        return self._virtiofs and VirtioFs in driver.takes

    def check(self, pod: Pod) -> None:
        """Whether the pod's driver can run it, before anything is taken.

        :raise Unsupported: with what it cannot. :raise InvalidArgument: there is no such driver.
        """
        driver = self._drivers.get(pod.spec.driver)
        for kind in kinds(pod, self._networks, virtiofs=self._uses_virtiofs(driver)):
            if kind not in driver.takes:
                raise unsupported(driver.name, KINDS[kind])

    def _image_of(self, container: Container, disk: AnyDisk) -> Image:
        assert isinstance(disk, Disk)
        return Image(disk.path, resolve.rehearsal_of(self._images.find(container.image_id).config.config))

    # -- containers ----------------------------------------------------------------

    async def build(self, runtime: Runtime, pod: Pod, container: Container, names: list[str]) -> None:
        """Let the guest have the container; its process is not started. Idempotent.

        `names` are those of the pod's containers, for /etc/hosts.
        """
        if container.id in runtime.built:
            return
        if not {image_serial(container), scratch_serial(container)} <= runtime.disks:  # it joined after the boot
            for disk in await self._disks.of_root(container):
                if disk.serial not in runtime.disks:
                    await require(runtime.machine, DiskHotplug).add_disk(disk)
                    runtime.disks.add(disk.serial)
        for name in dict.fromkeys(m.volume for m in container.mounts if m.volume):
            await self._mount(runtime, pod, name)
        mounts = guest_mounts(container, runtime.volumes)
        files = files_of(pod, container, self._secrets, self._networks, names)
        image, scratch = runtime.name_of(image_serial(container)), runtime.name_of(scratch_serial(container))
        guest = resolve.guest_container(container, pod.memory, image, scratch, mounts, files, runtime.prepared)
        with span("root file system built", GUEST):
            await runtime.agent.create_container(guest)
        runtime.built.add(container.id)
        runtime.prepared = ""
        if container.state.status is ContainerStatus.CREATED and (archive := injected_archive(container)):
            process = GuestProcess(args=("/",), container=container.id[:12], builtin=Builtin.TAR_EXTRACT, stdin=True)
            done = await run_process(runtime.agent, process, stdin=archive)
            if done.status:
                raise Unavailable(f"the files of container {container.name} could not be written: {done.errors}")

    async def _mount(self, runtime: Runtime, pod: Pod, name: str) -> None:
        if name in runtime.volumes:
            return
        volume = next(v for v in pod.volumes if v.name == name)
        disk = self._disks.of_volume(pod, volume)
        if disk and disk.serial not in runtime.disks:
            await require(runtime.machine, DiskHotplug).add_disk(disk)
            runtime.disks.add(disk.serial)
        runtime.volumes[name] = await mount_volume(
            runtime, pod, volume, virtiofs=self._uses_virtiofs(self._drivers.get(runtime.machine.driver))
        )

    async def drop(self, runtime: Runtime, pod: Pod, container: Container) -> None:
        """Take an ended container out of the running guest, with the volumes that only it had."""
        if container.id in runtime.built:
            await runtime.agent.delete_container(container.id[:12])
            runtime.built.discard(container.id)
            runtime.handles.pop(container.id, None)
            runtime.processes.pop(container.id, None)
        for serial in (image_serial(container), scratch_serial(container)):
            await self._unplug(runtime, serial)

    async def drop_volume(self, runtime: Runtime, pod: Pod, name: str) -> None:
        """Unmount a volume that no container of the guest uses any more."""
        volume = next(v for v in pod.volumes if v.name == name)
        if name in runtime.volumes:
            await unmount_volume(runtime, volume)
            del runtime.volumes[name]
        await self._unplug(runtime, volume_serial(volume))

    @staticmethod
    async def _unplug(runtime: Runtime, serial: str) -> None:
        if serial in runtime.disks and isinstance(runtime.machine, DiskHotplug):  # else it stays until the machine ends
            await runtime.machine.remove_disk(serial)
            runtime.disks.discard(serial)

    async def start_main(
        self, runtime: Runtime, pod: Pod, container: Container, fan_out: FanOut, size: tuple[int, int]
    ) -> Process:
        """:raise StartFailed: when the program cannot be executed. :raise NoSpace: its log cannot be opened.

        What runs again by its policy runs without its log for as long as that cannot be opened.
        """
        fan_out.begin(must=container.state.status is not ContainerStatus.RESTARTING)
        try:
            with span("program started", GUEST):
                handle = await runtime.agent.start(resolve.main_process(pod, container, size), fan_out)
        except BaseException:
            fan_out.finish()
            raise
        fan_out.attach_process(handle)
        runtime.handles[container.id] = handle
        runtime.processes[container.id] = handle.id
        return handle

    async def kill_machine(self, pod: Pod) -> None:
        """End a VM that an earlier daemon left, without a word with its guest."""
        if pod.vm and (machine := await self.left_behind(pod)):
            await machine.kill()
            remove_tree(Path(pod.vm.directory))

    async def reattach(self, pod: Pod) -> Runtime | None:
        """The running VM that an earlier daemon left; None when it has ended or does not answer."""
        vm = pod.vm
        if vm is None:
            return None
        directory = Path(vm.directory)
        machine = await self.left_behind(pod)
        if machine is None:
            remove_tree(directory)
            return None
        token = bytes.fromhex(vm.token)
        agent = await self._wake(
            machine, lambda: find(machine.connect, machine.wait, token), paused=pod.status is PodStatus.PAUSED
        )
        if agent is None:
            log.warning("pod %s: its VM does not answer and is ended: %s", pod.name, machine.last_words())
            await machine.kill()
            remove_tree(directory)
            return None
        agent.kill_orphans(keep=set(vm.processes.values()))  # execs, and what else was the earlier daemon's
        return Runtime(
            machine,
            agent,
            directory,
            nics=dict(vm.nics),
            disks=set(vm.disks),
            names=dict(vm.disk_names),
            volumes=dict(vm.volumes),
            built=set(vm.built),
            processes=dict(vm.processes),
        )

    async def renew(self, runtime: Runtime, *, paused: bool) -> bool:
        """Another connection in place of one that was lost, and all that it carried; False when there is none."""
        machine = runtime.machine
        agent = await self._wake(machine, lambda: runtime.agent.renew(machine.connect, machine.wait), paused=paused)
        if agent is None:
            return False
        runtime.agent = agent
        return True

    async def left_behind(self, pod: Pod) -> Machine | None:
        """The machine that an earlier daemon left to this pod, whatever it does."""
        return await self._drivers.get(pod.vm.driver).reattach(handle_of(pod.vm)) if pod.vm else None

    @staticmethod
    async def _wake(
        machine: Machine, connected: Callable[[], Awaitable[Agent | None]], *, paused: bool
    ) -> Agent | None:  # fmt: skip
        """Its agent, which `connected` gives when the machine does not stand still; None when it does not answer."""
        agent = None
        try:
            if paused:  # or it would not answer
                await require(machine, Pause).resume()
            agent = await connected()
            if paused and agent:
                await require(machine, Pause).pause()
        except HyperError as error:
            log.warning("a virtual machine does not wake up: %s", error)
            if agent:
                agent.close()
            return None
        except asyncio.CancelledError:
            machine.detach()
            raise
        return agent
