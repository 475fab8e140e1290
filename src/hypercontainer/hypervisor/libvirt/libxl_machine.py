# SPDX-License-Identifier: Apache-2.0
"""A domain of Xen that libvirt holds, launched by this daemon or by one before it."""

from __future__ import annotations

import asyncio
import contextlib
import logging
from collections.abc import Mapping, Sequence
from functools import partial
from pathlib import Path
from types import MappingProxyType
from typing import Any

from ...errors import HyperError
from ...jail.jail import Started
from ...sys import deadlines, process, tasks
from ..driver import AnyDisk, Disk
from ..process_machine import telling
from ..xen import tools
from ..xen.disks import loops, number
from ..xen.document import found_by, free_place
from ..xen.nics import ComingNics
from . import domain, libxl_document
from .connection import Connection
from .document import Known
from .machine import DomainMachine, parts

log = logging.getLogger(__name__)
_TAIL = 8000  # bytes of the console that are looked at
_LOGS = Path("/var/log/libvirt/libxl")  # of domains (src/libxl/libxl_conf.h of libvirt)
_LIBVIRTS, _XLS = 2.0, 3.0  # seconds for libvirt to end a domain and its QEMU, then for xl: together deadlines.DEATH


class LibxlMachine(ComingNics, DomainMachine):
    """Its process is the QEMU in dom0 that has the agent's channel; libxl starts it, and ends it with the domain."""

    program = "the QEMU of a domain"

    def __init__(
        self,
        connection: Connection,
        directory: Path,
        known: Known,
        started: Started,
        domid: int = 0,
        names: Mapping[str, str] = MappingProxyType({}),
        macs: Sequence[str] = (),
    ) -> None:
        """`domid` is the domain's number, 0 where that is not known."""
        super().__init__(connection, directory, known, started, "xen")
        self.domid = domid
        self.names: Mapping[str, str] = names
        self.macs = tuple(macs)
        self._plugging = asyncio.Lock()
        self._place = 0  # of the last disk that was added
        self._ending_it = asyncio.Lock()

    @classmethod
    def of(cls, connection: Connection, handle: Mapping[str, Any]) -> LibxlMachine:
        """The machine that a handle names, which may have ended."""
        directory, known, started, _ = parts(handle)
        macs = handle.get("macs", ())
        return cls(connection, directory, known, started, handle["domid"], handle["names"], macs)

    @property
    def handle(self) -> dict[str, Any]:
        return {**super().handle, "domid": self.domid, "names": dict(self.names), "macs": list(self.macs)}

    async def listen(self, domid: int) -> None:
        """Hear of its end, and keep the end of what the guest writes to its console from here on, for `last_words`."""
        with contextlib.suppress(HyperError):
            self._console.open_terminal(await tools.terminal(domid))
        self.watch()

    async def add_disk(self, disk: AnyDisk) -> None:
        assert isinstance(disk, Disk)
        async with self._plugging:
            place = self._place = free_place(self.names, self.driver, self._place)
            with contextlib.ExitStack() as held:
                made = loops([disk], held)
                described = libxl_document.disk(place, made.paths[0], read_only=disk.read_only)
                try:
                    await self._ask("add a disk", domain.attach, deadlines.WORK, described=described)
                    await made.opened(self.domid, place)
                    await tools.taken(self.domid, "vbd", number(place))
                except BaseException:
                    await asyncio.shield(self._give_up(place))
                    raise
            self.names = {**self.names, disk.serial: found_by(place)}

    async def _give_up(self, place: int) -> None:
        """A disk that did not come to be."""
        with contextlib.suppress(HyperError):
            target = found_by(place).removeprefix("dev:")
            await self._ask("take a disk out", domain.detach_disk, deadlines.WORK, target=target)

    async def remove_disk(self, serial: str) -> None:
        async with self._plugging:
            if found := self.names.get(serial):
                target = found.removeprefix("dev:")
                await self._ask("take a disk out", domain.detach_disk, deadlines.WORK, target=target)
                self.names = {known: name for known, name in self.names.items() if known != serial}

    @property
    def _domain(self) -> str:
        return self._name

    async def _domid(self) -> int:
        return self.domid

    async def _forbidden_call(self) -> str:
        return ""  # it is in no jail

    async def kill(self) -> None:
        """The hypervisor has the domain, so its process's end is not the domain's: where libvirt does not answer, or
        knows of no such domain any more, xl is asked."""
        async with self._ending_it:
            self._killed = self._killed or self.alive
            by = asyncio.get_running_loop().time() + _LIBVIRTS
            ended = await self._connection.end(self._uuid, _LIBVIRTS) if self._uuid else False
            self._console.tail()
            self._console.close()
            if self._name and not (ended and await self._ends(by)):
                if why := await tools.destroy(self._name, _XLS):
                    log.error("the domain %s cannot be ended now: %s", self._name, why)
                process.kill(self.pid, self.pid_started)
            self._connection.forget(self._uuid)
            if self._name:
                await tasks.in_thread(partial(drop_logs, self._name))

    def last_words(self) -> str:
        return "; ".join(telling(self._console.tail()[-_TAIL:]))


def drop_logs(name: str) -> None:
    """What libvirt and libxl keep of a domain of this name. Idempotent."""
    tools.drop_log(name)
    with contextlib.suppress(OSError):
        (_LOGS / f"{name}.log").unlink()
