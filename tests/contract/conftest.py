# SPDX-License-Identifier: Apache-2.0
"""One host for each implementation of the hypervisor's port; the tests know only the port."""

from __future__ import annotations

import asyncio
import atexit
import contextlib
import ctypes
import functools
import os
import shutil
import signal
import socket
import tempfile
import time
from abc import ABC, abstractmethod
from collections.abc import AsyncIterator, Callable, Iterator
from pathlib import Path
from typing import Any

import pytest

from hypercontainer.guest import initramfs
from hypercontainer.guest.fake import FakeGuest
from hypercontainer.guest.session import GuestSession
from hypercontainer.hypervisor.driver import AnyNetwork, Disk, Driver, Machine, MachineConfig, TapNetwork, UserNetwork
from hypercontainer.hypervisor.fake import FakeDriver, FakeHost
from hypercontainer.hypervisor.firecracker.driver import FirecrackerDriver, make
from hypercontainer.hypervisor.libvirt.driver import LibvirtDriver
from hypercontainer.hypervisor.libvirt.libxl_driver import LibxlDriver
from hypercontainer.hypervisor.qemu.driver import QemuDriver
from hypercontainer.hypervisor.xen import tools
from hypercontainer.hypervisor.xen.driver import XenDriver
from hypercontainer.jail.hyperjail import HyperJail
from hypercontainer.kernel.locate import locate
from hypercontainer.model.architectures import MACHINES
from hypercontainer.model.specs import PortMapping
from hypercontainer.network import tap
from hypercontainer.network.fake_taps import FakeTaps
from hypercontainer.protocol.constants import FIRST_TOKEN
from tests import arm64, libvirtd

from .toy import ToyDriver

DEADLINE = 60.0 * float(os.environ.get("HYPER_TEST_SLOWNESS", "1"))  # seconds for anything that a machine does
MAC = "52:54:00:12:34:56"
MEMORY = 128 << 20
ACCELERATOR = os.environ.get("HYPER_TEST_ACCELERATOR", "tcg")  # of QEMU, by itself and by libvirt; tests/lab says kvm
_CLONE_NEWNET = 0x40000000


def _network_namespace() -> int:
    """A descriptor of a new one."""
    libc = ctypes.CDLL(None, use_errno=True)
    with open("/proc/thread-self/ns/net") as home:
        if libc.unshare(_CLONE_NEWNET):
            pytest.skip("needs the right to make network namespaces")
        made = os.open("/proc/thread-self/ns/net", os.O_RDONLY | os.O_CLOEXEC)
        assert libc.setns(home.fileno(), _CLONE_NEWNET) == 0
    return made


@contextlib.contextmanager
def _in_network_of(namespace: int) -> Iterator[None]:
    """What this thread does meanwhile, it does in another network namespace."""
    libc = ctypes.CDLL(None, use_errno=True)
    with open("/proc/thread-self/ns/net") as home:
        assert libc.setns(namespace, _CLONE_NEWNET) == 0
        try:
            yield
        finally:
            assert libc.setns(home.fileno(), _CLONE_NEWNET) == 0


class Host(ABC):
    """Where machines run, and daemons come and go."""

    words = ""  # of the machine that `broken` launches
    slots = 0  # of each machine, for NICs that come while it runs

    def __init__(self, place: Path) -> None:
        self.place = place
        self.parent = place / "pods"
        self.parent.mkdir()
        self.launched: list[Machine] = []

    @abstractmethod
    def driver(self) -> Driver:
        """As a further daemon would have it."""

    @abstractmethod
    async def broken(self) -> Machine:
        """A machine that ends at once, with `words`."""

    def config(self, name: str = "a", **how: Any) -> MachineConfig:
        nothing = self.place / "nothing"
        return MachineConfig(
            **{"name": name, "directory": self.parent / name, "vcpus": 1, "memory": MEMORY, "kernel": nothing,
               "initramfs": nothing, **how}
        )  # fmt: skip

    async def launch(self, name: str = "a", **how: Any) -> Machine:
        machine = await asyncio.wait_for(self.driver().launch(self.config(name, **how)), DEADLINE)
        self.launched.append(machine)
        return machine

    def networks(self) -> tuple[AnyNetwork, ...]:
        """Of a machine that gets further ones while it runs."""
        return user_network()

    def disk(self, name: str) -> Disk:
        path = self.place / name
        path.write_bytes(bytes(1 << 20))
        return Disk(name, path, read_only=False)

    def has_open(self, machine: Machine, path: Path) -> bool:
        """Whether the machine's process has the file."""
        return any(f.samefile(path) for f in Path(f"/proc/{machine.pid}/fd").iterdir() if f.exists())

    @contextlib.contextmanager
    def tap(self) -> Iterator[tuple[TapNetwork, Callable[[], bool]]]:
        """A tap whose descriptor is closed at the end; and whether somebody has it."""
        taps = FakeTaps()
        fd = taps.create_tap("spare")
        try:
            yield TapNetwork(MAC, fd, "spare"), lambda: "spare" in taps.present()
        finally:
            os.close(fd)

    async def close(self) -> None:
        for machine in self.launched:
            await machine.kill()


class FakeOne(Host):
    """Of objects."""

    words = "it fell over"

    def __init__(self, place: Path) -> None:
        super().__init__(place)
        self.hardware = FakeHost(lambda _: FakeGuest())
        self.hardware.slots = self.slots = 2

    def has_open(self, machine: Machine, path: Path) -> bool:
        return True

    def driver(self) -> FakeDriver:
        return FakeDriver(self.hardware)

    async def broken(self) -> Machine:
        machine = await self.launch()
        self.hardware.machines[machine.pid].die(self.words)
        return machine


class ToyOne(Host):
    """Of namespaces."""

    words = "usage: nothing at all"

    def driver(self) -> ToyDriver:
        return ToyDriver()

    async def broken(self) -> Machine:
        script = self.place / "agent"
        script.write_text(f"#!/bin/sh\necho {self.words}\n")
        script.chmod(0o755)
        machine = await ToyDriver(script).launch(self.config())
        self.launched.append(machine)
        return machine


class QemuOne(Host):
    """Of virtual machines."""

    words = "Error while loading elf kernel"
    namespace = 0  # a descriptor
    machine_type = "microvm"

    @contextlib.contextmanager
    def tap(self) -> Iterator[tuple[TapNetwork, Callable[[], bool]]]:
        """A real one, in a network namespace of its own."""
        name = "htcontract1"
        self.namespace = self.namespace or _network_namespace()

        def held() -> bool:
            with _in_network_of(self.namespace):
                return name in [n for _, n in socket.if_nameindex()]

        with _in_network_of(self.namespace):
            fd = tap.create_tap(name)
        try:
            yield TapNetwork(MAC, fd, name), held
        finally:
            os.close(fd)

    async def close(self) -> None:
        await super().close()
        if self.namespace:
            os.close(self.namespace)

    def driver(self) -> QemuDriver:
        return QemuDriver(
            binary="qemu-system-x86_64", accelerator=ACCELERATOR, cache=self.place, machine_type=self.machine_type
        )

    def config(self, name: str = "a", **how: Any) -> MachineConfig:
        boot = {"kernel": locate("").path, "initramfs": initramfs.cached(self.place)}
        return super().config(name, **{**boot, **how})

    async def broken(self) -> Machine:
        kernel = self.place / "vmlinux"
        kernel.write_bytes(b"\x7fELF" + bytes(5000))
        return await self.launch(kernel=kernel)


class Q35One(QemuOne):
    """Of virtual machines with a PCI bus."""

    machine_type = "q35"
    slots = 2


class PcOne(QemuOne):
    """The same, of an older kind."""

    machine_type = "pc"


class VirtOne(QemuOne):
    """Of virtual machines with processors that this host does not have."""

    words = "Kernel panic"

    def config(self, name: str = "a", **how: Any) -> MachineConfig:
        init = initramfs.cached(self.place, MACHINES[arm64.OTHER])
        boot = {"kernel": locate(architecture=arm64.OTHER).path, "initramfs": init, "architecture": arm64.OTHER}
        return super().config(name, **{**boot, **how})

    async def broken(self) -> Machine:
        return await self.launch(initramfs=_nothing(self.place))


class FirecrackerOne(Host):
    """Of virtual machines, with KVM: in the lab."""

    words = "intercepting signal"

    def driver(self) -> FirecrackerDriver:
        jail = HyperJail(self.place / "jail")
        return make(binary="firecracker", accelerator="kvm", cache=self.place, boot_timeout=DEADLINE, jail=jail)

    def config(self, name: str = "a", **how: Any) -> MachineConfig:
        boot = {"kernel": locate("").path, "initramfs": initramfs.cached(self.place)}
        return super().config(name, **{**boot, **how})

    async def broken(self) -> Machine:
        """It has come up by the time that there is one: its process breaks."""
        machine = await self.launch()
        os.kill(machine.pid, signal.SIGBUS)
        return machine


class LibvirtOne(QemuOne):
    """Of libvirt's domains, by a daemon of the tests' own."""

    words = "Kernel panic"

    def __init__(self, place: Path) -> None:
        super().__init__(place)
        self._drivers: list[LibvirtDriver] = []

    def driver(self) -> LibvirtDriver:  # type: ignore[override]
        uri = libvirtd_of_tests().uri
        self._drivers.append(LibvirtDriver(uri=uri, accelerator=ACCELERATOR, cache=self.place, run=self.place))
        return self._drivers[-1]

    @contextlib.contextmanager
    def tap(self) -> Iterator[tuple[TapNetwork, Callable[[], bool]]]:
        """Where its daemon is, which opens it by name."""
        self.namespace = os.open(f"/proc/{libvirtd_of_tests().pid}/ns/net", os.O_RDONLY | os.O_CLOEXEC)
        with super().tap() as made:
            yield made

    async def broken(self) -> Machine:
        return await self.launch(initramfs=_nothing(self.place))

    async def close(self) -> None:
        await super().close()
        left = await asyncio.to_thread(_left, libvirtd_of_tests())
        for driver in self._drivers:
            await driver.close()
        assert left == []


def _left(daemon: libvirtd.Libvirtd) -> list[str]:
    """Domains that it does not end, though it may be at it for a while."""
    left, end = ["?"], time.monotonic() + DEADLINE
    while left and time.monotonic() < end:
        left = daemon.domains()
    return left


def _nothing(place: Path) -> Path:
    """An initramfs in which a kernel finds nothing to run."""
    path = place / "nothing.cpio"
    path.write_bytes(bytes(512))
    return path


@functools.cache
def libvirtd_of_tests() -> libvirtd.Libvirtd:
    """One for all tests of a process."""
    if why := libvirtd.missing():
        pytest.skip(why)
    directory = Path(tempfile.mkdtemp(prefix="hl"))
    made = libvirtd.Libvirtd(directory)
    atexit.register(shutil.rmtree, directory, ignore_errors=True)
    atexit.register(made.end)
    made.start()
    return made


class XenOne(Host):
    """Of domains, in the lab whose hypervisor is Xen."""

    words = "to die"

    def networks(self) -> tuple[AnyNetwork, ...]:
        """It has no network of the user's."""
        return ()

    @contextlib.contextmanager
    def tap(self) -> Iterator[tuple[TapNetwork, Callable[[], bool]]]:
        """A real one, whose place an interface of the domain's takes."""
        name = "htcontract1"
        fd = tap.create_tap(name)
        try:
            yield TapNetwork(MAC, fd, name), lambda: name in [n for _, n in socket.if_nameindex()]
        finally:
            os.close(fd)

    def driver(self) -> XenDriver:
        return XenDriver(boot_timeout=DEADLINE)

    def config(self, name: str = "a", **how: Any) -> MachineConfig:
        boot = {"kernel": locate("").path, "initramfs": initramfs.cached(self.place)}
        return super().config(name, **{**boot, **how})

    async def broken(self) -> Machine:
        """It has come up by the time that there is one: its xl ends."""
        machine = await self.launch()
        os.kill(machine.pid, signal.SIGKILL)
        return machine

    async def close(self) -> None:
        await super().close()
        if slow := set(tools._asking):
            await asyncio.wait(slow, timeout=DEADLINE)


class LibxlOne(XenOne):
    """Of domains, by a libvirtd of the tests' own."""

    words = "registered"  # the end of what a kernel says that boots

    def __init__(self, place: Path) -> None:
        super().__init__(place)
        self._drivers: list[LibxlDriver] = []

    def driver(self) -> LibxlDriver:  # type: ignore[override]
        self._drivers.append(LibxlDriver(uri=libvirtd_of_dom0().uri, boot_timeout=DEADLINE))
        return self._drivers[-1]

    async def broken(self) -> Machine:
        """It has come up by the time that there is one: its QEMU ends."""
        machine = await self.launch(talkative=True)
        os.kill(machine.pid, signal.SIGKILL)
        return machine

    async def close(self) -> None:
        await super().close()
        left = await asyncio.to_thread(_left, libvirtd_of_dom0())
        for driver in self._drivers:
            await driver.close()
        assert left == []


@functools.cache
def libvirtd_of_dom0() -> libvirtd.Dom0Libvirtd:
    """One for all tests of a process."""
    directory = Path(tempfile.mkdtemp(prefix="hl"))
    made = libvirtd.Dom0Libvirtd(directory)
    atexit.register(shutil.rmtree, directory, ignore_errors=True)
    atexit.register(made.end)
    made.start()
    return made


HOSTS: dict[str, type[Host]] = {"fake": FakeOne, "toy": ToyOne, "qemu": QemuOne, "q35": Q35One, "pc": PcOne,
                                "libvirt": LibvirtOne}  # fmt: skip
if os.environ.get("HYPER_TEST_ACCELERATOR") == "kvm" and shutil.which("firecracker"):
    HOSTS["firecracker"] = FirecrackerOne
if arm64.DEMANDED:
    HOSTS["arm64"] = VirtOne
if tools.is_dom0():
    HOSTS |= {"xen": XenOne, "libxl": LibxlOne}
SELDOM = ("pc",)  # as q35


@pytest.fixture(params=[pytest.param(n, marks=pytest.mark.slow) if n in SELDOM else n for n in HOSTS])
async def host(request: pytest.FixtureRequest) -> AsyncIterator[Host]:
    with tempfile.TemporaryDirectory(prefix="hc") as short:  # sockets need short paths
        made = HOSTS[request.param](Path(short))
        yield made
        await made.close()


async def greet(
    machine: Machine, token: bytes = FIRST_TOKEN, *, inherited: bool = False, timeout: float = DEADLINE
) -> GuestSession:
    """A session, when the guest has answered HELLO."""
    return await GuestSession.open(machine.connect(), token, timeout=timeout, inherited=inherited)


def user_network(*ports: PortMapping) -> tuple[UserNetwork, ...]:
    return (UserNetwork(MAC, ports),)


def free_port() -> PortMapping:
    with socket.socket() as sock:
        sock.bind(("127.0.0.1", 0))
        return PortMapping(container_port=80, host_port=sock.getsockname()[1], host_ip="127.0.0.1")
