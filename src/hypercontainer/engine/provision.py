# SPDX-License-Identifier: Apache-2.0
"""From a pod to its running VM, and back.

Every step that takes something registers its release on an exit stack; a
failure unwinds it, success hands it to the runtime.
"""

from __future__ import annotations

import asyncio
import contextlib
import logging
from collections.abc import Callable
from dataclasses import dataclass, field
from pathlib import Path

import msgspec

from ..errors import HyperError, Unavailable
from ..guest.process import GuestProcessHandle
from ..guest.session import GuestSession, next_token
from ..hypervisor.driver import Disk, Driver, Machine, MachineConfig, UserNetwork
from ..images.store import ImageStore
from ..model.status import Container, Pod, Vm
from ..network import usermode
from ..protocol.constants import FIRST_TOKEN
from ..protocol.messages import GuestFile, Interface
from ..sys.files import remove_tree
from . import resolve
from .paths import Paths
from .streams import Hub

log = logging.getLogger(__name__)
_RECONNECT = (0.5, 0.5, 1.0, 2.0, 4.0, 8.0, 16.0)  # seconds that each attempt may take
SHUTDOWN_TIMEOUT = 10.0  # seconds until a guest that does not sync is killed
_LOOPBACK = Interface("lo", ("127.0.0.1/8", "::1/128"))


@dataclass
class Runtime:
    """A pod's running VM."""

    machine: Machine
    session: GuestSession
    directory: Path
    handles: dict[str, GuestProcessHandle] = field(default_factory=dict)

    async def stop(self, *, clean: bool) -> None:
        """End the VM and free what it held; `clean` makes what was written safe first. Idempotent."""
        if clean:
            with contextlib.suppress(HyperError):
                await self.session.shut_down(SHUTDOWN_TIMEOUT)
        self.session.close()
        await self.machine.kill()
        remove_tree(self.directory)


@dataclass(frozen=True)
class BootFiles:
    """What every machine boots, and how long that may take, in seconds."""

    kernel: Path
    initramfs: Path
    timeout: float


class Provisioner:
    """Boots pods."""

    def __init__(self, paths: Paths, driver: Driver, images: ImageStore, boot: Callable[[], BootFiles]) -> None:
        self._paths = paths
        self._driver = driver
        self._images = images
        self._boot_files = boot

    async def boot(self, pod: Pod, containers: list[Container]) -> Runtime:
        """Boot the VM of a pod and build its containers; their processes are not started.

        :raise Unavailable: when the guest does not come up; the message has its last words.
        """
        directory = self._paths.machine(pod.id)
        async with contextlib.AsyncExitStack() as undo:
            undo.callback(remove_tree, directory)
            machine = await self._driver.launch(await self._config(pod, containers, directory))
            undo.push_async_callback(machine.kill)
            session = await self._greet(machine)
            undo.callback(session.close)
            interfaces = [_LOOPBACK]
            if containers[0].spec.network == "user":
                interfaces.append(Interface("eth0", (usermode.ADDRESS,), (usermode.GATEWAY,)))
            await session.setup_pod(pod.hostname, interfaces, {})
            for index, container in enumerate(containers):
                files = _files(pod, container)
                await session.create_container(
                    resolve.guest_container(container, pod.memory, f"image{index}", "squashfs", f"scratch{index}", files)
                )
            undo.pop_all()
            return Runtime(machine, session, directory)

    async def _config(self, pod: Pod, containers: list[Container], directory: Path) -> MachineConfig:
        boot = self._boot_files()
        disks: list[Disk] = []
        for index, container in enumerate(containers):
            image = await self._images.disk(self._images.find(container.image_id))
            disks += [
                Disk(f"image{index}", image.path, read_only=True),
                Disk(f"scratch{index}", self._paths.scratch(container.id), read_only=False),
            ]
        network = None
        if containers[0].spec.network == "user":
            network = UserNetwork(usermode.new_mac(), tuple(p for c in containers for p in c.ports))
        return MachineConfig(
            name=pod.id[:12],
            directory=directory,
            vcpus=pod.vcpus,
            memory=pod.memory,
            kernel=boot.kernel,
            initramfs=boot.initramfs,
            disks=tuple(disks),
            network=network,
        )

    async def _greet(self, machine: Machine) -> GuestSession:
        try:
            return await GuestSession.open(machine.connect(), FIRST_TOKEN, timeout=self._boot_files().timeout)
        except HyperError as error:
            with contextlib.suppress(TimeoutError):  # its last words come with its end
                await asyncio.wait_for(machine.wait(), 0.5)
            words = machine.last_words()
            raise Unavailable(
                f"the virtual machine did not start: {words or error.message}",
                hint="see `hyperctl doctor` for the kernel and the accelerator in use",
            ) from error

    async def start_main(self, runtime: Runtime, container: Container, hub: Hub, size: tuple[int, int]) -> GuestProcessHandle:
        """:raise StartFailed: when the program cannot be executed."""
        hub.begin()
        try:
            handle = await runtime.session.start(resolve.main_process(container, size), hub)
        except BaseException:
            hub.finish()
            raise
        hub.attach_process(handle)
        runtime.handles[container.id] = handle
        return handle

    async def reattach(self, pod: Pod) -> Runtime | None:
        """The running VM that an earlier daemon left; None when it has ended or does not answer."""
        vm = pod.vm
        if vm is None:
            return None
        directory = Path(vm.directory)
        machine = self._driver.attach(directory, vm.pid, vm.pid_started, vm.accelerator)
        if machine is None:
            remove_tree(directory)
            return None
        session = await _reconnect(machine, bytes.fromhex(vm.token))
        if session is None:
            log.warning("pod %s: its VM does not answer and is ended: %s", pod.name, machine.last_words())
            await machine.kill()
            remove_tree(directory)
            return None
        return Runtime(machine, session, directory)


async def _reconnect(machine: Machine, token: bytes) -> GuestSession | None:
    """A session with a guest that an earlier daemon left; None when it never answers.

    A guest that was writing at the moment when its connection broke leaves
    QEMU's port throttled for good (virtio-console.c, flush_buf); closing
    another connection resets it. So the first attempts are short.
    """
    for patience in _RECONNECT:
        for candidate in (token, next_token(token)):
            try:
                return await GuestSession.open(machine.connect(), candidate, timeout=patience)
            except HyperError as error:
                log.debug("reconnecting: %s", error)
    return None


def record(pod: Pod, runtime: Runtime, driver: str) -> Pod:
    """The pod with what is needed to find its VM again."""
    vm = Vm(
        driver=driver,
        pid=runtime.machine.pid,
        pid_started=runtime.machine.pid_started,
        directory=str(runtime.directory),
        token=runtime.session.next_token.hex(),
        accelerator=runtime.machine.accelerator,
        processes={container: handle.id for container, handle in runtime.handles.items()},
    )
    return msgspec.structs.replace(pod, vm=vm)


def _files(pod: Pod, container: Container) -> tuple[GuestFile, ...]:
    networked = container.spec.network == "user"
    address = usermode.ADDRESS if networked else None
    return (
        GuestFile("/etc/hostname", f"{pod.hostname}\n".encode()),
        GuestFile("/etc/hosts", usermode.hosts_file(pod.hostname, address)),
        GuestFile("/etc/resolv.conf", usermode.resolv_conf() if networked else b""),
    )
