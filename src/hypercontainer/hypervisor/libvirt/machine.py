# SPDX-License-Identifier: Apache-2.0
"""A domain that runs, launched by this daemon or by one before it."""

from __future__ import annotations

import asyncio
import contextlib
import logging
import signal
import socket
from collections.abc import Mapping, Sequence
from functools import partial
from pathlib import Path
from typing import Any

from ...jail.jail import Started
from ...sys import deadlines, process, tasks
from .. import taps
from ..driver import AnyDisk, Disk
from ..process_machine import ProcessMachine, dial, telling
from . import domain
from .connection import Connection
from .document import CHANNEL, CONSOLE, Known

log = logging.getLogger(__name__)
_TAIL = 8000  # bytes of the console that are looked at


class DomainMachine(ProcessMachine):
    """Known to libvirt by its UUID, and to this host by its process; both outlive the daemon."""

    driver = "libvirt"
    program = "libvirt's QEMU"
    names: Mapping[str, str] = {}  # the guest finds disks by their serial numbers

    def __init__(
        self, connection: Connection, directory: Path, known: Known, started: Started, accelerator: str
    ) -> None:
        super().__init__(*started)
        self._connection = connection
        self._directory = directory
        self._name, self._uuid = known
        self.accelerator = accelerator

    @property
    def handle(self) -> dict[str, Any]:
        return {
            "directory": str(self._directory),
            "name": self._name,
            "uuid": self._uuid,
            "pid": self.pid,
            "pidStarted": self.pid_started,
            "accelerator": self.accelerator,
        }

    def connect(self) -> socket.socket:
        return dial(self._directory / CHANNEL)

    def watch(self) -> None:
        """Hear of its end. Idempotent."""
        if self._gone is None:
            self._gone = self._watch()

    def _watch(self) -> asyncio.Future[None]:
        """By its process, which tells of its end without libvirt, and by libvirt's event: what comes first."""
        gone = super()._watch()
        if gone.done():
            return gone
        either: asyncio.Future[None] = asyncio.get_running_loop().create_future()

        def ended(*_: object) -> None:
            self._connection.forget(self._uuid)
            if not either.done():
                either.set_result(None)

        gone.add_done_callback(ended)
        self._connection.watch(self._uuid, ended)
        return either

    async def _ask(self, what: str, work: Any, timeout: float = deadlines.MONITOR, **how: Any) -> Any:
        return await self._connection.ask(what, partial(work, uuid=self._uuid, **how), timeout)

    async def pause(self) -> None:
        await self._ask("pause a virtual machine", domain.suspend)

    async def resume(self) -> None:
        await self._ask("let a virtual machine go on", domain.resume)

    def detach(self) -> None:
        self._connection.forget(self._uuid)
        super().detach()

    def last_words(self) -> str:
        return "; ".join([*self.violation(), *telling(self._console.tail()[-_TAIL:])])


class LibvirtMachine(DomainMachine):
    """Of libvirt's driver for QEMU."""

    holder = "libvirt"  # of its process: its user, its filter, its namespaces

    def __init__(
        self,
        connection: Connection,
        directory: Path,
        known: Known,
        started: Started,
        accelerator: str,
        nics: Sequence[str] = (),
    ) -> None:
        super().__init__(connection, directory, known, started, accelerator)
        self._nics = tuple(nics)  # names of its taps

    @classmethod
    def of(cls, connection: Connection, handle: Mapping[str, Any]) -> LibvirtMachine:
        """The machine that a handle names, which may have ended."""
        return cls(connection, *parts(handle), handle["taps"])

    @property
    def handle(self) -> dict[str, Any]:
        return {**super().handle, "taps": list(self._nics)}

    def listen(self) -> None:
        """Hear of its end, and keep the end of what the guest writes to its console, for `last_words`."""
        self._console.open(self._directory / CONSOLE)
        self.watch()

    async def stalled(self) -> bool:
        found: bool = await self._ask("tell how a virtual machine is", domain.stalled)
        return found

    async def kill(self) -> None:
        """libvirt would ask QEMU first, and wait ten seconds for one that stands still."""
        self._killed = self._killed or self.alive
        self._console.tail()
        self._console.close()
        process.kill(self.pid, self.pid_started, signal.SIGKILL)
        if self._uuid:
            await self._connection.end(self._uuid)
        with contextlib.suppress(TimeoutError, OSError):
            await tasks.within(self.wait(), deadlines.DEATH)
        self._connection.forget(self._uuid)
        taps.drop(self._nics)
        if self._name and not self.alive:
            await tasks.in_thread(partial(domain.drop_log, self._name))


class OpenMachine(LibvirtMachine):
    """Of a libvirt whose QEMU opens files by their paths, as our user.

    libvirt 9.0 hands descriptors of disks only to a machine that it starts: one that runs looks for them in vain.
    """

    async def add_disk(self, disk: AnyDisk) -> None:
        assert isinstance(disk, Disk)
        await self._ask("add a disk", domain.add_disk, disk=disk)

    async def remove_disk(self, serial: str) -> None:
        await self._ask("take a disk out", domain.remove_disk, serial=serial)


def parts(handle: Mapping[str, Any]) -> tuple[Path, Known, Started, str]:
    """What a machine is made of, as `DomainMachine.handle` has it."""
    known, started = Known(handle["name"], handle["uuid"]), Started(handle["pid"], handle["pidStarted"])
    return Path(handle["directory"]), known, started, handle["accelerator"]
