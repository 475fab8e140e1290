# SPDX-License-Identifier: Apache-2.0
"""Containers in a guest that runs: built when they are first started, and taken out when they are removed."""

from __future__ import annotations

from collections.abc import Callable

from ..errors import Unavailable
from ..guest.agent import Process
from ..hypervisor.driver import AnyDisk
from ..hypervisor.facets import DiskHotplug, require
from ..model.status import Container, ContainerStatus, Pod
from ..protocol.constants import Builtin
from ..protocol.messages import GuestProcess
from ..sys.spans import GUEST, span
from . import resolve
from .booted import BootedMachine
from .builtins import run_process
from .guest_files import files_of, injected_archive
from .guest_mounts import guest_mounts, mount_volume, unmount_volume
from .machine_disks import MachineDisks, image_serial, scratch_serial, volume_serial
from .pod_network import PodNetwork
from .runtime import Runtime
from .secrets import Secrets
from .shares import Shares
from .streams import FanOut
from .volume_sources import bind_name, root_mount, volumes_of


class Builder:
    """Builds them, mounts their volumes, starts their main processes."""

    def __init__(self, disks: MachineDisks, secrets: Secrets, network: PodNetwork, shares: Shares) -> None:
        self._disks = disks
        self._shares = shares
        self._secrets = secrets
        self._network = network

    async def build(self, runtime: Runtime, pod: Pod, container: Container, names: list[str]) -> None:
        """Let the guest have the container; its process is not started. Idempotent.

        `names` are those of the pod's containers, for /etc/hosts.
        """
        if container.id in runtime.built:
            return
        if not {image_serial(container), scratch_serial(container)} <= runtime.disks:  # it joined after the boot
            for disk in await self._disks.of_root(container):
                await self._plug_in(runtime, disk)
        for name in volumes_of(container):
            await self._mount(runtime, pod, name)
        await self._shares.follow(runtime, pod, [container])
        mounts = guest_mounts(container, runtime.volumes)
        files = files_of(pod, container, self._secrets, self._network, names)
        image, scratch = runtime.name_of(image_serial(container)), runtime.name_of(scratch_serial(container))
        if container.spec.rootfs:
            image, scratch = runtime.volumes[bind_name(root_mount(container.spec))], ""
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

    async def rename(self, booted: BootedMachine, pod: Pod, container: Container, names: list[str], old: str) -> None:
        """Let a container that the guest has under the id `old` be this one, with its files and limits.

        Its programs stand still meanwhile.
        """
        files = files_of(pod, container, self._secrets, self._network, names)
        image, scratch = (booted.names.get(s, s) for s in (image_serial(container), scratch_serial(container)))
        guest = resolve.guest_container(container, pod.memory, image, scratch, (), files, old[:12])
        await booted.agent.create_container(guest)

    async def _mount(self, runtime: Runtime, pod: Pod, name: str) -> None:
        if name in runtime.volumes:
            return
        volume = next(v for v in pod.volumes if v.name == name)
        disk = await self._disks.of_volume(pod, volume)
        if disk:
            await self._plug_in(runtime, disk)
        runtime.volumes[name] = await mount_volume(runtime, pod, volume, self._shares)

    async def drop(self, runtime: Runtime, pod: Pod, container: Container) -> None:
        """Take an ended container out of the running guest, with the volumes that only it had."""
        if container.id in runtime.built:
            await runtime.agent.delete_container(container.id[:12])
            runtime.built.discard(container.id)
            runtime.handles.pop(container.id, None)
            runtime.processes.pop(container.id, None)
        for serial in (image_serial(container), scratch_serial(container)):
            await self._unplug(runtime, serial)

    async def drop_volume(self, runtime: Runtime, pod: Pod, name: str, save: Callable[[], None]) -> None:
        """Unmount a volume that no container of the guest uses any more; `save` puts down what is known of it."""
        volume = next(v for v in pod.volumes if v.name == name)
        if volume.kind == "directory":
            runtime.volumes.pop(name, None)
            if place := runtime.late.pop(name, None):
                save()  # first: a place that is known is there
                await self._shares.forget(runtime, pod, place)
            return
        if name in runtime.volumes:
            await unmount_volume(runtime, volume)
            del runtime.volumes[name]
        await self._unplug(runtime, volume_serial(volume))

    @staticmethod
    async def _plug_in(runtime: Runtime, disk: AnyDisk) -> None:
        if disk.serial not in runtime.disks:
            await require(runtime.machine, DiskHotplug).add_disk(disk)
            runtime.disks.add(disk.serial)
            if name := runtime.machine.names.get(disk.serial):
                runtime.names[disk.serial] = name

    @staticmethod
    async def _unplug(runtime: Runtime, serial: str) -> None:
        if serial in runtime.disks and isinstance(runtime.machine, DiskHotplug):  # else it stays until the machine ends
            if serial in runtime.machine.names:  # the machine's own name for it, not a template's
                runtime.names.pop(serial, None)
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
