# SPDX-License-Identifier: Apache-2.0
"""Launching QEMU by libvirt, and finding its domains again."""

from __future__ import annotations

import asyncio
import contextlib
import logging
import os
import re
import shutil
from collections.abc import Callable, Container, Mapping
from dataclasses import dataclass
from functools import partial
from pathlib import Path
from typing import Any
from urllib.parse import urlsplit

from ...errors import Unavailable
from ...jail.jail import Started
from ...sys import process, tasks, users
from .. import found, taps
from ..driver import (
    CachedDisk,
    Disk,
    FormattedDisk,
    Machine,
    MachineConfig,
    Probe,
    TapNetwork,
    UserNetwork,
    check_takes,
)
from ..facets import Needs, facets_of
from ..probe import Prober
from ..qemu.confinement import KVM, footprint
from ..qemu.devices import check_places
from ..qemu.machine_types import AUTO, TYPES, MachineType
from ..qemu.ports import check_port_free
from . import binding, document, domain
from .boot_place import BootPlace
from .connection import Connection
from .document import Owner, Shape
from .libxl_driver import LibxlDriver
from .machine import LibvirtMachine, OpenMachine

log = logging.getLogger(__name__)
_OLDEST = 9_000_000  # release that takes disks as descriptors (virDomainFDAssociate)
_START = 60.0  # seconds: the first time libvirt asks its QEMU what it can
_LOOK = 30.0  # seconds, for the same
_INSTALL = "install libvirt-daemon-system and python3-libvirt, or pip install 'hypercontainer[libvirt]'"
_LOCAL = "set `libvirt_uri` to qemu:///system, qemu:///session or xen:///system: docs/hypervisors.md says why"
_DAEMONS = {"virtqemud": "virtqemud", "libvirtd": "libvirt"}  # programs, and names of their sockets
_PATH = f"{os.environ.get('PATH', os.defpath)}:/usr/sbin"
_HERE = re.compile(r"qemu(\+unix)?")  # schemes of a QEMU of this host


@dataclass(frozen=True)
class _Found:
    """What a libvirt can start."""

    machine_type: MachineType
    accelerators: tuple[str, ...]
    hypervisor: str  # its version


class LibvirtDriver:
    """QEMU's machines, that libvirt's daemon starts and holds."""

    name = "libvirt"
    takes: frozenset[type] = frozenset({Disk, FormattedDisk, CachedDisk, TapNetwork, UserNetwork})
    facets = facets_of(LibvirtMachine)
    _machines: type[LibvirtMachine] = LibvirtMachine
    _handed = True  # disks go as descriptors to a QEMU that has a user of its own; else it opens them, as ours

    def __init__(
        self,
        *,
        uri: str,
        accelerator: str,
        cache: Path,
        run: Path,
        machine_type: str = AUTO,
        tsc_khz: Callable[[], int] = lambda: 0,
    ) -> None:
        """`uri` "" is that of this user; `run` is a directory that no other daemon has."""
        self._uri = uri or ("qemu:///system" if os.geteuid() == 0 else "qemu:///session")
        self._wanted, self._type = accelerator, machine_type
        self._tsc_khz = tsc_khz
        self._connection = Connection(self._uri)
        self._run, self._boot = run, BootPlace(run)
        self._prober = Prober(cache, self._launch, name="libvirt")
        self._found: _Found | None = None
        self._swept = False
        self._looking = asyncio.Lock()

    def set_probe_machine(self, config: MachineConfig) -> None:
        """The machine that a probe of KVM boots."""
        self._prober.config = config

    @property
    def version(self) -> str:
        return binding.version()

    # -- what is found on this host ------------------------------------------------------------

    async def probe(self) -> Probe:
        if self._asleep():
            return Probe("tcg", f"the libvirtd of {self._uri} is started with the first machine")
        try:
            seen, accelerator, why = await self._usable()
            await self._connection.ask("answer", lambda connection: connection.getLibVersion())
        except Unavailable as error:
            return Probe("tcg", error.message, error.message, error.hint or "")
        reason = f"{why}; QEMU {seen.hypervisor} by {self._uri}"
        return Probe(accelerator, reason, machine_type=f"{seen.machine_type.name}: the first that libvirt has")

    def _asleep(self) -> bool:
        """Whether to ask would start a daemon: the library does that for a user's."""
        if self._uri != "qemu:///session" or self._found or not self.version:
            return False
        run = Path(os.environ.get("XDG_RUNTIME_DIR") or Path.home() / ".cache") / "libvirt"
        there = any((run / f"{name}-sock").exists() for name in _DAEMONS.values())
        return not there and any(shutil.which(name, path=_PATH) for name in _DAEMONS)

    async def _usable(self) -> tuple[_Found, str, str]:
        """What it can start, an accelerator, and why that one. :raise Unavailable: it can start nothing."""
        if not self.version:
            raise Unavailable("libvirt's Python module is not installed", hint=_INSTALL)
        parts = urlsplit(self._uri)
        if not _HERE.fullmatch(parts.scheme) or parts.netloc:
            raise Unavailable(f"{self._uri} is neither QEMU nor Xen of this host", hint=_LOCAL)
        if parts.path == "/system" and not self._handed:
            raise Unavailable(f"{self._uri} takes a hyperd of root's", hint=_LOCAL)
        seen = await self._look()
        return seen, *await self._accelerator(seen)

    async def _look(self) -> _Found:
        """:raise Unavailable: it cannot be asked, or can start nothing."""
        async with self._looking:
            if self._found is None:
                wanted = tuple(TYPES.values()) if self._type == AUTO else (TYPES[self._type],)
                examine = partial(_examine, wanted, handed=self._handed)
                seen = await self._connection.ask("say what it can", examine, _LOOK)
                if not self._swept:  # before this daemon starts anything
                    await self._connection.ask("say what it has", partial(domain.sweep, run=self._run))
                self._found, self._swept = seen, True
        return self._found

    async def _accelerator(self, seen: _Found) -> tuple[str, str]:
        if self._wanted != "auto":
            if self._wanted not in seen.accelerators:
                raise Unavailable(f"libvirt has no {self._wanted} here")
            return self._wanted, "chosen in the configuration"
        if "kvm" not in seen.accelerators:
            return "tcg", "libvirt has no KVM here"
        return await self._prober.choose(self.version)

    async def try_again(self) -> Probe:
        found = await self.probe()
        if found.trouble or self._found is None:
            return found
        if self._wanted == "auto" and "kvm" in self._found.accelerators:
            await self._prober.probe(self.version)
        return await self.probe()

    async def close(self) -> None:
        await self._prober.close()
        await self._connection.close()
        await tasks.in_thread(self._boot.remove)

    # -- machines ----------------------------------------------------------------------------

    async def launch(self, config: MachineConfig) -> LibvirtMachine:
        check_takes(self, config)
        _, accelerator, _ = await self._usable()
        return await self._launch(config, accelerator)

    async def _launch(self, config: MachineConfig, accelerator: str) -> LibvirtMachine:
        kind = (await self._look()).machine_type
        check_places(config, kind)
        for network in config.networks:
            for port in network.ports if isinstance(network, UserNetwork) else ():
                check_port_free(port)
        config.directory.mkdir(mode=0o700, parents=True, exist_ok=True)
        for name in (document.CHANNEL, document.CONSOLE):
            (config.directory / name).unlink(missing_ok=True)
        nics = [name for name, _ in config.taps]
        async with contextlib.AsyncExitStack() as undo:
            start = await self._described(config, accelerator, kind)
            undo.callback(domain.drop_log, start.known.name)
            undo.callback(taps.drop, nics)
            undo.push_async_callback(self._connection.end, start.known.uuid)
            undo.callback(start.given_up.set)
            taps.note(config.directory, nics)
            if nics:
                taps.hand_over([n for n in config.networks if isinstance(n, TapNetwork)], os.geteuid())
            started = await self._connection.ask("start a virtual machine", start.run, _START)
            machine = self._machines(self._connection, config.directory, start.known, started, accelerator, nics)
            undo.push_async_callback(machine.kill)
            found.write(self.name, config.directory, started)
            if nics:
                taps.tie(machine.pid)
            machine.listen()
            await machine.resume()
            undo.pop_all()
        return machine

    async def _described(self, config: MachineConfig, accelerator: str, kind: MachineType) -> domain.Start:
        kernel, initramfs, owner = config.kernel, config.initramfs, None
        if self._handed:
            owner = _owner(config, accelerator)
            kernel, initramfs = await tasks.in_thread(lambda: (self._boot.copy(kernel), self._boot.copy(initramfs)))
        known = document.known_anew(config.name)
        rate = self._tsc_khz() if accelerator == "tcg" else 0
        shape = Shape(known, accelerator, kind, kernel, initramfs, owner, rate)
        text = document.domain(config, shape, found.mark(self.name, config.directory))
        log.debug("a domain of libvirt: %s", text)
        disks = tuple(d for d in config.disks if isinstance(d, Disk))
        return domain.Start(
            text, known, disks, handed=owner is not None, control_groups=config.control_groups
        )  # fmt: skip

    async def footprint(self, vcpus: int, memory: int, architecture: str = "") -> Needs:
        _, accelerator, _ = await self._usable()
        return footprint(accelerator, vcpus, memory)

    async def reattach(self, handle: Mapping[str, Any]) -> LibvirtMachine | None:
        machine = self._machines.of(self._connection, handle)
        if not machine.alive:
            return None
        machine.listen()
        return machine

    def strays(self, parent: Path, keep: Container[Path]) -> list[Machine]:
        """A start that a killed daemon did not finish may have left a tap: it goes now."""
        left = [f for f in found.strays(self.name, parent, keep) if self._is_its_user(f.pid)]
        return [
            self._machines(
                self._connection,
                f.directory,
                domain.known_as(f.pid),
                Started(f.pid, f.started),
                "", taps.noted(f.directory),
            )
            for f in left
        ]  # fmt: skip

    def _is_its_user(self, pid: int) -> bool:
        """Its command line says which domain is ended: it is to be nobody's but QEMU's."""
        return not self._handed or users.is_ours(process.real_user(pid))


class OpenDriver(LibvirtDriver):
    """A user's, whose QEMU is that user's, too."""

    takes = LibvirtDriver.takes - {TapNetwork}
    facets = facets_of(OpenMachine)
    _machines = OpenMachine
    _handed = False


def make(*, uri: str, boot_timeout: float, **how: Any) -> LibvirtDriver | LibxlDriver:
    """The driver for the hypervisor that a URI is of, which this user can have; `boot_timeout` in seconds."""
    if urlsplit(uri).scheme.partition("+")[0] == "xen":
        return LibxlDriver(uri=uri, boot_timeout=boot_timeout)
    return LibvirtDriver(uri=uri, **how) if os.geteuid() == 0 else OpenDriver(uri=uri, **how)


def _owner(config: MachineConfig, accelerator: str) -> Owner:
    """A user that nothing else has, in the group that may use KVM."""
    user = config.user or users.pick()
    return Owner(user, os.stat(KVM).st_gid if accelerator == "kvm" else user)


def _examine(wanted: tuple[MachineType, ...], connection: Any, *, handed: bool) -> _Found:
    """:raise Unavailable: it has none of these machine types, or is too old."""
    module = binding.library()
    if handed and connection.getLibVersion() < _OLDEST:
        raise Unavailable("it is too old", hint="9.0 is the oldest that will do")
    for kind in wanted:
        able = []
        for accelerator, type_ in (("kvm", "kvm"), ("tcg", "qemu")):
            with contextlib.suppress(module.libvirtError):
                connection.getDomainCapabilities(None, "x86_64", kind.name, type_)
                able.append(accelerator)
        if able:
            return _Found(kind, tuple(able), binding.release(connection.getVersion()))
    names = " or ".join(kind.name for kind in wanted)
    raise Unavailable(f"libvirt has no QEMU here with a machine type {names}", hint="install qemu-system-x86")
