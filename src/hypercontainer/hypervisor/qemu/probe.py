# SPDX-License-Identifier: Apache-2.0
"""Does KVM boot our kernel? Only a timed boot tells.

A /dev/kvm that opens, even one that creates a VM, does not mean that a guest
runs: nested and restricted hosts let the guest hang. So one machine is booted
with KVM, and the answer kept per host boot, QEMU version and kernel.
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

from ...errors import HyperError
from ...protocol.constants import FIRST_TOKEN
from ...sys import tasks
from ...sys.files import remove_tree, write_atomically
from ..driver import MachineConfig
from .machine import QemuMachine

log = logging.getLogger(__name__)
PROBE_TIMEOUT = 4.0  # seconds; a KVM guest answers in well under one
_BOOT_ID = Path("/proc/sys/kernel/random/boot_id")
_DEVICE = Path("/dev/kvm")

Launch = Callable[[MachineConfig, str], Awaitable[QemuMachine]]


class Prober:
    """Chooses between KVM and TCG, once per host boot."""

    def __init__(self, cache: Path, launch: Launch) -> None:
        self.config: MachineConfig | None = None
        self._cache = cache / "accelerator.json"
        self._launch = launch
        self._lock = asyncio.Lock()
        self._choice: tuple[str, str] | None = None

    async def choose(self, qemu_version: str) -> tuple[str, str]:
        """`("kvm" or "tcg", why)`."""
        async with self._lock:
            if self._choice is None:
                self._choice = await self._decide(qemu_version)
            return self._choice

    async def _decide(self, qemu_version: str) -> tuple[str, str]:
        if not _DEVICE.exists():
            return "tcg", "there is no /dev/kvm"
        if not os.access(_DEVICE, os.R_OK | os.W_OK):
            return "tcg", "/dev/kvm may not be opened: add your user to the group kvm"
        if self.config is None:
            return "tcg", "there is no kernel to try /dev/kvm with"
        key = self._key(self.config, qemu_version)
        with contextlib.suppress(OSError, ValueError, KeyError):
            known = json.loads(self._cache.read_text())
            if known["key"] == key:
                return known["accelerator"], known["reason"]
        choice = await self._try(self.config)
        record = {"key": key, "accelerator": choice[0], "reason": choice[1]}
        write_atomically(self._cache, json.dumps(record).encode())
        return choice

    @staticmethod
    def _key(config: MachineConfig, qemu_version: str) -> str:
        stat = config.kernel.stat()
        parts = (_BOOT_ID.read_text().strip(), qemu_version, str(config.kernel), stat.st_size, stat.st_mtime_ns)
        return hashlib.sha256(repr(parts).encode()).hexdigest()

    async def _try(self, config: MachineConfig) -> tuple[str, str]:
        config = replace(config, disks=(), networks=())
        loop = asyncio.get_running_loop()
        try:
            machine = await self._launch(config, "kvm")
        except (HyperError, OSError) as error:
            return "tcg", f"KVM could not be tried: {error}"
        try:
            sock = machine.connect()
            with sock:
                await loop.sock_sendall(sock, FIRST_TOKEN)
                answer = await tasks.within(loop.sock_recv(sock, len(FIRST_TOKEN)), PROBE_TIMEOUT)
            if answer == FIRST_TOKEN:
                return "kvm", "a probe guest booted with KVM"
            return "tcg", f"a probe guest with KVM ended early: {machine.last_words() or 'no message'}"
        except TimeoutError:
            return "tcg", f"/dev/kvm opens, but a probe guest did not boot within {PROBE_TIMEOUT:g} s"
        except (HyperError, OSError) as error:
            return "tcg", f"KVM could not be tried: {machine.last_words() or error}"
        finally:
            await machine.kill()
            remove_tree(config.directory)
