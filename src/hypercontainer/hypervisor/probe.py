# SPDX-License-Identifier: Apache-2.0
"""Does KVM boot our kernel? Only a boot tells.

A /dev/kvm that opens, even one that creates a VM, does not mean that a guest
runs: nested and restricted hosts let the guest hang. So one machine is booted
with KVM. It is waited for as long as it gets on: its kernel writes to the
console what it does. Meanwhile guests are emulated.

That KVM works is remembered per host boot, QEMU version and kernel. That it
does not is remembered too, so that no start waits; each daemon tries again.
"""

from __future__ import annotations

import asyncio
import contextlib
import hashlib
import json
import logging
import os
from collections.abc import Awaitable, Callable
from dataclasses import replace
from pathlib import Path
from typing import Protocol

from ..errors import HyperError
from ..protocol.constants import FIRST_TOKEN
from ..sys import tasks
from ..sys.files import write_atomically
from ..sys.trees import remove_tree
from .driver import Machine, MachineConfig

log = logging.getLogger(__name__)
PATIENCE = 2.0  # seconds that a start waits for the first answer on this host; a KVM guest gives it in well under one
SILENCE = 15.0  # seconds without a byte of the guest's kernel: it hangs; QEMU itself takes some on a slow host
LIMIT = 30.0  # seconds, for a guest that gets on
_LOOK = 0.1  # seconds between looks at the console
_BOOT_ID = Path("/proc/sys/kernel/random/boot_id")
_DEVICE = Path("/dev/kvm")
Choice = tuple[str, str]  # "kvm" or "tcg", and why


class TrialMachine(Machine, Protocol):
    """A machine that tells how much its guest has written."""

    @property
    def heard(self) -> int:
        """Bytes that came from the console so far."""


Launch = Callable[[MachineConfig, str], Awaitable[TrialMachine]]


class Prober:
    """Chooses between KVM and TCG."""

    def __init__(self, cache: Path, launch: Launch, device: Path = _DEVICE, *, name: str = "accelerator") -> None:
        """`launch` starts a machine with an accelerator; `name` is that of the file with the answer."""
        self.config: MachineConfig | None = None
        self._cache = cache / f"{name}.json"
        self._launch = launch
        self._device = device
        self._choice: Choice | None = None
        self._trial: asyncio.Task[Choice] | None = None
        self._begun = 0.0  # when the trial began, by the event loop's clock

    async def choose(self, qemu_version: str) -> Choice:
        """What serves now. Where nothing is known, a trial begins, and is waited for a moment."""
        if why := self._hindrance():
            return "tcg", why
        if self._choice is None:
            self._choice = self._remembered(qemu_version)
        if self._choice is None:
            trial = self._try_once(qemu_version)
            left = self._begun + PATIENCE - asyncio.get_running_loop().time()
            await asyncio.wait({trial}, timeout=max(left, 0))
            if trial.done():
                return trial.result()
        return self._choice or ("tcg", "/dev/kvm is still being tried, and guests are emulated until it has answered")

    async def probe(self, qemu_version: str) -> Choice:
        """The answer of a trial, of one that is under way or of a new one; it serves from now on."""
        if why := self._hindrance():
            return "tcg", why
        return await asyncio.shield(self._try_once(qemu_version))

    async def close(self) -> None:
        """End a trial that is under way."""
        await tasks.end([self._trial] if self._trial else [])

    def _hindrance(self) -> str:
        """Why there is nothing to try; "" if there is."""
        if not self._device.exists():
            return "there is no /dev/kvm"
        if not os.access(self._device, os.R_OK | os.W_OK):
            return "/dev/kvm may not be opened: add your user to the group kvm"
        if self.config is None:
            return "there is no kernel to try /dev/kvm with"
        return ""

    # -- what is remembered -----------------------------------------------------------------

    def _remembered(self, qemu_version: str) -> Choice | None:
        with contextlib.suppress(OSError, ValueError, KeyError, TypeError):
            known = json.loads(self._cache.read_text())
            if known["key"] == self._key(qemu_version):
                return known["accelerator"], known["reason"]
        return None

    def _remember(self, choice: Choice, qemu_version: str) -> None:
        record = {"key": self._key(qemu_version), "accelerator": choice[0], "reason": choice[1]}
        try:
            write_atomically(self._cache, json.dumps(record).encode())
        except OSError as error:  # the next daemon tries again
            log.warning("cannot keep the answer of the KVM probe: %s", error)

    def _key(self, qemu_version: str) -> str:
        assert self.config
        stat = self.config.kernel.stat()
        parts = (_BOOT_ID.read_text().strip(), qemu_version, str(self.config.kernel), stat.st_size, stat.st_mtime_ns)
        return hashlib.sha256(repr(parts).encode()).hexdigest()

    # -- a trial ----------------------------------------------------------------------------

    def _try_once(self, qemu_version: str) -> asyncio.Task[Choice]:
        if self._trial is None or self._trial.done():
            self._begun = asyncio.get_running_loop().time()
            self._trial = asyncio.create_task(self._choose_by_trial(qemu_version))
        return self._trial

    async def _choose_by_trial(self, qemu_version: str) -> Choice:
        assert self.config
        choice = await self._try(replace(self.config, disks=(), networks=(), talkative=True))
        if choice != self._choice:
            log.info("accelerator %s: %s", *choice)
        self._choice = choice
        self._remember(choice, qemu_version)
        return choice

    async def _try(self, config: MachineConfig) -> Choice:
        try:
            machine = await tasks.within(self._launch(config, "kvm"), LIMIT)
            try:
                return await self.hear(machine)
            finally:
                await machine.kill()
        except (HyperError, OSError) as error:
            return "tcg", f"KVM could not be tried: {error}"
        finally:
            remove_tree(config.directory)

    async def hear(self, machine: TrialMachine) -> Choice:
        """What a guest answers."""
        why = await trouble_of(machine)
        return ("tcg", f"/dev/kvm opens, but {why}") if why else ("kvm", "a probe guest booted with KVM")


async def trouble_of(machine: TrialMachine) -> str:
    """Why its guest does not answer; "" when it does."""
    try:
        with machine.connect() as sock:
            loop = asyncio.get_running_loop()
            await loop.sock_sendall(sock, FIRST_TOKEN)
            answer = await _while_it_gets_on(loop.sock_recv(sock, len(FIRST_TOKEN)), machine)
        return "" if answer == FIRST_TOKEN else f"a probe guest ended early: {machine.last_words() or 'no message'}"
    except TimeoutError as error:
        return f"a probe guest {error}"
    except (HyperError, OSError) as error:
        return f"a probe guest cannot be reached: {machine.last_words() or error}"


async def _while_it_gets_on(answer: Awaitable[bytes], machine: TrialMachine) -> bytes:
    """:raise TimeoutError: with what the guest did, when it stands still or takes too long."""
    loop = asyncio.get_running_loop()
    task = asyncio.ensure_future(answer)
    begun = moved = loop.time()
    heard = machine.heard
    try:
        while not task.done():
            now = loop.time()
            if machine.heard != heard:
                heard, moved = machine.heard, now
            if now - moved >= SILENCE:
                raise TimeoutError(f"said nothing for {SILENCE:g} s")
            if now - begun >= LIMIT:
                raise TimeoutError(f"did not boot within {LIMIT:g} s")
            await asyncio.wait({task}, timeout=_LOOK)
        return task.result()
    finally:
        await tasks.end([] if task.done() else [task])
