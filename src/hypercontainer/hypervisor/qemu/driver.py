# SPDX-License-Identifier: Apache-2.0
"""Launching QEMU and finding it again."""

from __future__ import annotations

import contextlib
import logging
import os
import shutil
import socket
from collections.abc import Callable, Container, Mapping
from dataclasses import replace
from functools import partial
from pathlib import Path
from typing import Any

from ...errors import HyperError, Unavailable
from ...jail.jail import Jail
from ...jail.plain import PlainJail
from ...model.architectures import is_foreign
from ...sys import process, tasks
from ...sys.trees import remove_tree
from .. import found
from ..ask import ask
from ..boot_files import for_all
from ..driver import (
    KINDS,
    Disk,
    Machine,
    MachineConfig,
    PciDevice,
    Probe,
    Snapshot,
    StreamNetwork,
    TapNetwork,
    UserNetwork,
    VirtioFs,
    check_takes,
    unsupported,
)
from ..facets import Instant, Needs, facets_of
from ..memory_file import MemoryFile
from ..probe import Prober, trouble_of
from . import checkpoint, command, confinement, devices, foreign
from .formats import check_image
from .machine import CHANNEL, CONSOLE, FILES, LOG, MONITOR, QemuMachine
from .machine_types import AUTO, MICROVM, Chosen, MachineType, TypeChooser, fitted, processor_of_host
from .ports import check_port_free

log = logging.getLogger(__name__)
# Each QEMU of root's runs as a user of its own, so that one that was taken
# over by its guest finds no other's process to touch.
_OLDEST = (5, 2)  # version of QEMU
_TYPE_HINT = "`hyperctl doctor --probe` tries again; see `machine_type` in docs/configuration.md"


class QemuDriver:
    """QEMU's machines, without firmware's menus, graphics or buses that take something while they run."""

    name = "qemu"
    takes = frozenset(KINDS)
    facets = facets_of(QemuMachine)

    def __init__(
        self,
        *,
        binary: str,
        accelerator: str,
        cache: Path,
        tsc_khz: Callable[[], int] = lambda: 0,
        jail: Jail | None = None,
        machine_type: str = AUTO,
    ) -> None:
        """`tsc_khz` gives the rate of the host's time stamp counter, for emulated guests; 0 if it is not known."""
        self._types = TypeChooser(machine_type, self._trouble, processor_of_host().types)
        if not self._types.may_have_bus:
            self.takes = self.takes - {PciDevice}
        self._emulators = foreign.emulators()
        self._jail = jail or PlainJail()
        self._tsc_khz = tsc_khz
        self._binary = binary
        self._wanted = accelerator
        self._prober = Prober(cache, self._launch)
        self._version = ""

    def set_probe_machine(self, config: MachineConfig) -> None:
        """The machine that a probe of KVM boots."""
        self._prober.config = config

    @property
    def version(self) -> str:
        # One that is not there, or did not answer on a busy host, may be there the next time.
        if not self._version and shutil.which(self._binary):
            self._version = ask(self._binary, "--version").partition("version ")[2].split("\n")[0].split(" ")[0]
        return self._version

    async def probe(self) -> Probe:
        if not self.version:
            if shutil.which(self._binary):
                return Probe(self._wanted, f"{self._binary} does not say its version", "it does not say its version")
            return Probe(self._wanted, f"{self._binary} is not installed", "not installed", _install_hint())
        accelerator, reason = await self.accelerator()
        if tuple(int(p) for p in self.version.split(".")[:2] if p.isdecimal()) < _OLDEST:
            hint = "machines with descriptors that they are handed need QEMU 5.2 or newer"
            return Probe(accelerator, reason, f"QEMU {self.version}", hint)
        kind, why = await self._machine_type()
        if kind is None:
            return Probe(accelerator, reason, why, _TYPE_HINT)
        return Probe(accelerator, reason, machine_type=f"{kind.name}: {why}")

    async def _machine_type(self, *, bus: bool = False) -> Chosen:
        """`bus`: one that devices of the host can be on."""
        choose = self._types.choose_with_bus if bus else self._types.choose
        return await choose(shutil.which(self._binary) or self._binary, self.version)

    async def _trouble(self, kind: MachineType) -> str:
        """Why no guest answers by a machine of this type; "" when one does."""
        if self._prober.config is None:
            return ""  # there is no kernel to try it with, nor to start anything with
        config = replace(self._prober.config, talkative=True)
        config = replace(config, directory=config.directory.with_name(f"{config.directory.name}-{kind.name}"))
        why = ""
        for accelerator in self._to_try():
            why = await self._trial(config, accelerator, kind)
            if not why:
                break
        return why

    def _to_try(self) -> list[str]:
        """Accelerators by which some guest may boot; one of them may be missing in this QEMU."""
        if self._wanted != "auto":
            return [self._wanted]
        return ["tcg", *(["kvm"] if os.access(confinement.KVM, os.R_OK | os.W_OK) else [])]

    async def _trial(self, config: MachineConfig, accelerator: str, kind: MachineType) -> str:
        try:
            binary = shutil.which(self._binary) or self._binary
            machine = await self._start(config, accelerator, Chosen(kind, "it is tried"), binary)
            try:
                return await trouble_of(machine)
            finally:
                await machine.kill()
        except (HyperError, OSError) as error:
            return str(error)
        finally:
            remove_tree(config.directory)

    async def accelerator(self) -> tuple[str, str]:
        """The accelerator in use and why."""
        if self._wanted != "auto":
            return self._wanted, "chosen in the configuration"
        return await self._prober.choose(self.version)

    async def try_again(self) -> Probe:
        self._types.try_again()
        if self._wanted == "auto" and self.version:
            await self._prober.probe(self.version)
        return await self.probe()

    async def close(self) -> None:
        await self._prober.close()

    async def launch(self, config: MachineConfig) -> QemuMachine:
        check_takes(self, config)
        if is_foreign(config.architecture):
            emulator = self._emulator(config.architecture)
            chosen = Chosen(emulator.machine_type, f"the one for {config.architecture}")
            return await self._start(config, foreign.ACCELERATOR, chosen, emulator.binary())
        accelerator, _ = await self.accelerator()
        return await self._launch(config, accelerator)

    async def emulation(self, architecture: str) -> Probe:
        return await self._emulator(architecture).probe()

    def _emulator(self, architecture: str) -> foreign.Emulator:
        if found := self._emulators.get(architecture):
            return found
        raise unsupported(self.name, f"virtual machines of the architecture {architecture}")

    async def _launch(self, config: MachineConfig, accelerator: str) -> QemuMachine:
        if not shutil.which(self._binary):
            raise Unavailable(f"{self._binary} is not installed", hint=_install_hint())
        chosen = await self._machine_type(bus=bool(config.devices))
        if chosen.machine_type is None:
            raise Unavailable(f"QEMU starts nothing on this host: {chosen.reason}", hint=_TYPE_HINT)
        return await self._start(config, accelerator, chosen, shutil.which(self._binary) or self._binary)

    async def _start(self, config: MachineConfig, accelerator: str, chosen: Chosen, binary: str) -> QemuMachine:
        assert chosen.machine_type
        kind = fitted(chosen.machine_type, self.version)
        devices.check_places(config, kind)
        for network in config.networks:
            for port in network.ports if isinstance(network, UserNetwork) else ():
                check_port_free(port)
        config.directory.mkdir(mode=0o700, parents=True, exist_ok=True)
        with contextlib.ExitStack() as stack:
            fds = _open_descriptors(config, stack, jailed=self._jail.confines)
            line = command.command_line(
                binary,
                config,
                accelerator,
                fds,
                self._rate(accelerator),
                machine_type=kind,
                filtered=confinement.filtered(config, jailed=self._jail.confines),
            )
            log.debug("launching %s", process.command_line(line))
            output = stack.enter_context(open(config.directory / LOG, "wb"))
            order = confinement.order(
                tuple(line), config, accelerator, _numbers(fds), output.fileno(), jailed=self._jail.confines
            )
            order = replace(order, environment={**order.environment, **found.mark(self.name, config.directory)})
            started = await self._jail.spawn(order, partial(found.write, self.name, config.directory))
            state = fds.boot[-1]
        machine = QemuMachine(
            config.directory, *started, accelerator, machine_type=f"{kind.name}: {chosen.reason}",
            host_devices=[str(device.directory) for device in config.devices],
            memory_file=MemoryFile.of(config.snapshot.memory) if config.snapshot else None,
        )  # fmt: skip
        machine.listen()
        if config.early:
            machine.awaits(state)
        elif config.snapshot:
            try:
                if config.snapshot.live:
                    machine.connect_early()
                await machine.load(state)
            except BaseException:
                await machine.kill()
                raise
        return machine

    def _rate(self, accelerator: str) -> int:
        return self._tsc_khz() if accelerator == "tcg" else 0

    async def fingerprint(self, config: MachineConfig) -> str:
        version, accelerator, kind = await self._basis(config.architecture)
        kind = fitted(kind or MICROVM, version)
        line = command.command_line(
            self._binary, config, accelerator, command.Descriptors((0, 0), 0, 0, 0), machine_type=kind
        )
        # Under KVM the host's processor is the guest's.
        return repr((version, process.cpu_model() if accelerator == "kvm" else "", line))

    async def _basis(self, architecture: str) -> tuple[str, str, MachineType | None]:
        """Version, accelerator and machine type of such machines."""
        if is_foreign(architecture):
            emulator = self._emulator(architecture)
            return await emulator.version(), foreign.ACCELERATOR, emulator.machine_type
        return self.version, (await self.accelerator())[0], (await self._machine_type())[0]

    async def checkpoint(self, machine: Machine, snapshot: Snapshot, instant: Instant) -> Snapshot:
        assert isinstance(machine, QemuMachine)
        return await checkpoint.checkpoint(machine, snapshot, instant)

    async def put_away(self, machine: Machine, stream: int) -> None:
        assert isinstance(machine, QemuMachine)
        try:
            await machine.send(stream)
        except BaseException:
            await tasks.to_the_end(machine.go_on())
            raise

    async def launch_from(self, config: MachineConfig, stream: int) -> QemuMachine:
        machine = await self.launch(replace(config, incoming=stream))
        try:
            machine.connect_early()
            await machine.receive(stream)
            await machine.resume()
        except BaseException:
            await machine.kill()
            raise
        return machine

    async def footprint(self, vcpus: int, memory: int, architecture: str = "") -> Needs:
        accelerator, _ = await self.accelerator()
        accelerator = foreign.ACCELERATOR if is_foreign(architecture) else accelerator
        return confinement.footprint(accelerator, vcpus, memory)

    async def reattach(self, handle: Mapping[str, Any]) -> QemuMachine | None:
        machine = QemuMachine.of(handle)
        if not machine.alive:
            return None
        machine.listen()
        return machine

    def strays(self, parent: Path, keep: Container[Path]) -> list[Machine]:
        return [QemuMachine(f.directory, f.pid, f.started, "") for f in found.strays(self.name, parent, keep)]


def _install_hint() -> str:
    return f"install the package {processor_of_host().package}"


def _numbers(fds: command.Descriptors) -> list[int]:
    channels = [fd for fd in (fds.channel, fds.files, fds.monitor, fds.console) if fd >= 0]
    return [*fds.boot, *channels, *fds.disks, *fds.others]


def _open_descriptors(config: MachineConfig, stack: contextlib.ExitStack, *, jailed: bool) -> command.Descriptors:
    def opened(path: Path, flags: int) -> int:
        try:
            fd = os.open(path, flags | os.O_CLOEXEC, 0o600)
        except FileNotFoundError:
            raise Unavailable(f"{path} does not exist") from None
        stack.callback(os.close, fd)
        return fd

    def disk(of: Disk) -> int:
        fd = opened(of.path, os.O_RDONLY if of.read_only else os.O_RDWR)
        check_image(fd, of.format, of.path)
        return fd

    def in_memory(text: str) -> int:
        fd = os.memfd_create("key", os.MFD_CLOEXEC)  # the command line is for all to read
        stack.callback(os.close, fd)
        os.write(fd, text.encode())
        return fd

    def listening(name: str) -> int:
        path = config.directory / name
        path.unlink(missing_ok=True)
        sock = stack.enter_context(socket.socket(socket.AF_UNIX))
        sock.bind(str(path))
        sock.listen(1)
        return sock.fileno()

    boot: tuple[int, ...]
    if config.incoming is not None:
        boot = (config.incoming,)
    elif config.snapshot:  # each machine reads the state from its begin
        boot = (
            config.snapshot.memory,
            opened(Path(f"/proc/self/fd/{config.snapshot.state}"), os.O_RDONLY),
        )
    else:
        boot = tuple(for_all(opened(p, os.O_RDONLY), jailed=jailed) for p in (config.kernel, config.initramfs))
    return command.Descriptors(
        boot=boot,
        channel=listening(CHANNEL),
        files=listening(FILES) if config.expandable else -1,
        monitor=listening(MONITOR),
        console=listening(CONSOLE),
        disks=tuple(
            disk(d) if isinstance(d, Disk) else in_memory(d.keyring)
            for d in config.disks
            if isinstance(d, Disk) or d.keyring
        ),
        others=tuple([n.fd for n in config.networks if isinstance(n, TapNetwork | StreamNetwork)])
        + ((config.share.socket,) if isinstance(config.share, VirtioFs) else ())
        + ((config.memory_file,) if config.memory_file is not None else ()),
    )
