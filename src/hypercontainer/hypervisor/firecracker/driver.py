# SPDX-License-Identifier: Apache-2.0
"""Launching Firecracker and finding it again."""

from __future__ import annotations

import contextlib
import logging
import os
import shutil
from collections.abc import Container, Mapping
from dataclasses import replace
from functools import partial
from pathlib import Path
from typing import Any, NamedTuple

import msgspec

from ...errors import Unavailable
from ...jail.jail import Jail, Started
from ...jail.plain import PlainJail
from ...sys import process, tasks
from .. import found, taps
from ..ask import ask
from ..boot_files import for_all
from ..driver import Disk, Machine, MachineConfig, Probe, Snapshot, TapNetwork, check_takes
from ..facets import Instant, Needs, Reconfigure, Save, facets_of
from ..memory_file import MemoryFile
from ..probe import Choice, Prober, TrialMachine
from . import checkpoint, confinement
from .call import heard, listening
from .document import check, document, drive_id
from .drives import SECTOR, Drives
from .handed import in_memory, opened, pipe
from .late import Late, sweep
from .machine import FirecrackerMachine
from .places import API, CALL, CONSOLE, DIRECTORY, NOTHING, VSOCK, Places, places
from .saving import Saving
from .stream import read

log = logging.getLogger(__name__)
_OLDEST = (1, 7)  # version that boots an uncompressed kernel with an initramfs and without a root device as here
_CLONES = (1, 12)  # version whose machines can be given another tap than their template's
_HINT = "put the binary `firecracker` of its release on GitHub into the PATH, or name it with --firecracker"


class _Prober(Prober):
    """A guest that has called is one that has booted: `launch` has waited for that."""

    async def hear(self, machine: TrialMachine) -> Choice:
        return "kvm", "a probe guest booted with KVM"


class _Boot(NamedTuple):
    """What a process starts with: descriptors of its own, and arguments that name them."""

    descriptors: tuple[int, ...]
    arguments: tuple[str, ...] = ()
    saving: Saving | None = None


class FirecrackerDriver:
    """Machines of Firecracker, which has KVM or nothing."""

    name = "firecracker"
    takes: frozenset[type] = frozenset({Disk, TapNetwork})
    facets = facets_of(FirecrackerMachine) - {Save, Reconfigure}

    def __init__(
        self,
        *,
        binary: str,
        accelerator: str,
        cache: Path,
        boot_timeout: float,
        jail: Jail | None = None,
        io_rate: int = 0,
    ) -> None:
        """`accelerator` is kvm, or auto, which tries it; with tcg there are no machines.

        `boot_timeout` in seconds; `io_rate` in bytes per second, of each disk, 0 for no limit.
        """
        self._io_rate = io_rate
        self._wanted = accelerator
        self._jail = jail or PlainJail()
        self._binary = binary
        self._boot_timeout = boot_timeout
        self._late = cache / "firecracker"
        self._prober = _Prober(cache, self._try, name="firecracker")
        self._version = ""

    def set_probe_machine(self, config: MachineConfig) -> None:
        """The machine that a probe of KVM boots."""
        self._prober.config = config

    @property
    def version(self) -> str:
        if not self._version and shutil.which(self._binary):
            self._version = ask(self._binary, "--version").partition("Firecracker v")[2].split("\n")[0].strip()
        return self._version

    @property
    def _release(self) -> tuple[int, ...]:
        return tuple(int(p) for p in self.version.split(".")[:2] if p.isdecimal())

    # -- what is found on this host ------------------------------------------------------------

    async def probe(self) -> Probe:
        return await self._probe(wait=False)

    async def _probe(self, *, wait: bool) -> Probe:
        """`wait` for a trial that is under way."""
        if not self.version:
            there = shutil.which(self._binary)
            why = "it does not say its version" if there else f"{self._binary} is not in the PATH"
            return Probe("kvm", why, why, _HINT)
        if self._release < _OLDEST:
            return Probe("kvm", "it is too old", f"Firecracker {self.version}", "1.7 is the oldest that will do")
        accelerator, why = await self._accelerator(wait=wait)
        if accelerator != "kvm":
            return Probe("kvm", why, f"it needs KVM: {why}", "`hyperctl doctor --probe` tries again; use --driver qemu")
        return Probe("kvm", why)

    async def _accelerator(self, *, wait: bool) -> Choice:
        if self._wanted != "auto":
            return self._wanted, "chosen in the configuration"
        return await (self._prober.probe if wait else self._prober.choose)(self.version)

    async def try_again(self) -> Probe:
        return await self._probe(wait=True)

    async def close(self) -> None:
        await self._prober.close()

    # -- machines ----------------------------------------------------------------------------

    async def launch(self, config: MachineConfig) -> FirecrackerMachine:
        check_takes(self, config)
        check(config)
        if (probe := await self._probe(wait=False)).trouble:
            raise Unavailable(f"Firecracker starts nothing on this host: {probe.trouble}", hint=probe.hint)
        if (config.snapshot or config.memory_file is not None) and self._release < _CLONES:
            raise Unavailable(f"machines from a template need Firecracker 1.12 or newer, and this is {self.version}")
        return await self._launch(config)

    async def _try(self, config: MachineConfig, _: str) -> TrialMachine:
        return await self._launch(config)

    async def _launch(self, config: MachineConfig) -> FirecrackerMachine:
        """:raise Unavailable: it is not installed, or its guest does not come up: with its last words."""
        binary = shutil.which(self._binary)
        if not binary:
            raise Unavailable(f"{self._binary} is not in the PATH", hint=_HINT)
        config.directory.mkdir(mode=0o700, parents=True, exist_ok=True)
        nics = [name for name, _ in config.taps]
        where = places(config, jailed=self._jail.confines)
        async with contextlib.AsyncExitStack() as undo:
            with contextlib.ExitStack() as handed_over:
                call = handed_over.enter_context(listening(config.directory / CALL))
                undo.callback(taps.drop, nics)
                late = Late.make(self._late, config.directory.name) if self._jail.confines else None
                if late:
                    undo.callback(late.remove)
                boot = self._described(config, where, handed_over)
                started = await self._start(Path(binary), config, where, boot, late, handed_over)
                machine = FirecrackerMachine(
                    config.directory, *started, Drives.of(config), nics, boot.saving, late, where.directory
                )
                undo.push_async_callback(machine.kill)
                machine.listen()
                if config.snapshot:
                    await self._load(machine, config, boot, late)
                machine.keep(await heard(machine, call, self._boot_timeout), open=config.memory_file is not None)
            taps.tie(machine.pid)
            undo.pop_all()
        return machine

    async def _load(self, machine: FirecrackerMachine, config: MachineConfig, boot: _Boot, late: Late | None) -> None:
        """What was saved has the paths of its disks: those of a jail, and of files that came later, for such drives."""
        assert config.snapshot
        await machine.answers()
        memory, state = (f"/proc/self/fd/{fd}" for fd in boot.descriptors[:2])
        with contextlib.ExitStack() as shown:
            for index, disk in enumerate(config.disks if late and config.snapshot.live else ()):
                assert late and isinstance(disk, Disk)
                with contextlib.suppress(Unavailable):  # no file of that file system came later
                    shown.enter_context(late.shown(disk.path, drive_id(index)))
            await machine.load(memory, state, [n for n, _ in config.taps], timeout=self._boot_timeout)

    def _described(self, config: MachineConfig, where: Places, handed_over: contextlib.ExitStack) -> _Boot:
        """What it boots, or the machine that it goes on with, of which it is told later."""
        saving = self._saving(config, where.directory, handed_over)
        if config.snapshot:  # each machine reads the state from its begin
            state = opened(Path(f"/proc/self/fd/{config.snapshot.state}"), handed_over)
            return _Boot((config.snapshot.memory, state), saving=saving)
        jailed = self._jail.confines
        kernel, initramfs = (for_all(opened(p, handed_over), jailed=jailed) for p in (config.kernel, config.initramfs))
        text = msgspec.json.encode(document(config, (kernel, initramfs), where, self._io_rate))
        log.debug("a machine of Firecracker: %s", text.decode())
        described = in_memory(text, handed_over)
        return _Boot((kernel, initramfs, described), ("--config-file", f"/proc/self/fd/{described}"), saving)

    def _saving(self, config: MachineConfig, inside: Path, handed_over: contextlib.ExitStack) -> Saving | None:
        """What a machine that may be saved is handed."""
        return None

    async def _start(
        self,
        binary: Path,
        config: MachineConfig,
        where: Places,
        boot: _Boot,
        late: Late | None,
        handed_over: contextlib.ExitStack,
    ) -> Started:
        for name in (API, VSOCK, CONSOLE):
            (config.directory / name).unlink(missing_ok=True)
        (config.directory / NOTHING).write_bytes(bytes(SECTOR))
        line = (
            str(binary), "--api-sock", str(where.directory / API), *boot.arguments,
            "--id", "".join(c if c.isalnum() else "-" for c in config.name)[:60], "--level", "Error",
        )  # fmt: skip
        log.debug("launching %s", process.command_line(line))
        output = pipe(config.directory / CONSOLE, handed_over)
        descriptors = [*boot.descriptors, *([boot.saving.memory.descriptor] if boot.saving else [])]
        order = confinement.order(line, config, where, descriptors, output, late=late.directory if late else None)
        mark = found.mark(self.name, config.directory)
        order = replace(order, environment={**order.environment, **mark})
        taps.note(config.directory, [name for name, _ in config.taps])
        taps.hand_over([n for n in config.networks if isinstance(n, TapNetwork)], order.user)
        return await self._jail.spawn(order, partial(found.write, self.name, config.directory))

    async def footprint(self, vcpus: int, memory: int, architecture: str = "") -> Needs:
        return confinement.footprint(vcpus, memory)

    async def reattach(self, handle: Mapping[str, Any]) -> FirecrackerMachine | None:
        machine = FirecrackerMachine.of(handle)
        if not machine.alive:
            return None
        machine.listen()
        machine.drop_memory()  # of a daemon that ended while it was being saved
        return machine

    def strays(self, parent: Path, keep: Container[Path]) -> list[Machine]:
        """A start that a killed daemon did not finish may have left a tap: it goes now."""
        sweep(self._late, parent)
        left = found.strays(self.name, parent, keep)
        theirs = {f.directory for f in left}
        for directory in parent.iterdir() if parent.is_dir() else ():
            if directory not in keep and directory not in theirs:
                taps.drop(taps.noted(directory))
        return [FirecrackerMachine(f.directory, f.pid, f.started, Drives([]), taps.noted(f.directory)) for f in left]


class CloningDriver(FirecrackerDriver):
    """One whose machines can be saved, and wait: a saved machine's paths are its clones' too, which takes a jail."""

    takes = FirecrackerDriver.takes | {Snapshot}
    facets = facets_of(FirecrackerMachine)

    async def fingerprint(self, config: MachineConfig) -> str:
        described = document(config, (0, 0), Places(DIRECTORY, ()))
        return repr((self.version, process.cpu_model(), described, self._io_rate))

    def _saving(self, config: MachineConfig, inside: Path, handed_over: contextlib.ExitStack) -> Saving | None:
        memory = config.memory_file
        if memory is None:
            memory = in_memory(b"", handed_over)
        return Saving(inside, MemoryFile.of(memory), config.memory)

    async def checkpoint(self, machine: Machine, snapshot: Snapshot, instant: Instant) -> Snapshot:
        assert isinstance(machine, FirecrackerMachine)
        return await checkpoint.checkpoint(machine, snapshot, instant)

    async def put_away(self, machine: Machine, stream: int) -> None:
        assert isinstance(machine, FirecrackerMachine)
        await checkpoint.put_away(machine, stream)

    async def launch_from(self, config: MachineConfig, stream: int) -> FirecrackerMachine:
        found: list[Snapshot] = []
        try:
            await tasks.in_thread(lambda: found.append(read(stream, config.memory)))
            return await self.launch(replace(config, snapshot=found[0]))
        finally:
            for snapshot in found:
                os.close(snapshot.memory)
                os.close(snapshot.state)


def make(
    *, binary: str, accelerator: str, cache: Path, boot_timeout: float, jail: Jail | None = None, io_rate: int = 0
) -> FirecrackerDriver:
    """The driver that this jail allows."""
    kind = CloningDriver if jail and jail.confines else FirecrackerDriver
    return kind(
        binary=binary, accelerator=accelerator, cache=cache, boot_timeout=boot_timeout, jail=jail, io_rate=io_rate
    )
