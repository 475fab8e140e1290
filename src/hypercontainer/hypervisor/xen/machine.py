# SPDX-License-Identifier: Apache-2.0
"""A domain, launched by this daemon or by one before it.

xl stays with each domain that it has made, frees what that had when it ends,
and ends with it: so the process of xl stands for the domain here. Where xl was
killed, the domain is found by its name.
"""

from __future__ import annotations

import asyncio
import contextlib
import logging
import socket
from collections.abc import Mapping, Sequence
from functools import partial
from pathlib import Path
from typing import Any

from ...errors import HyperError, Unavailable
from ...jail.jail import Started
from ...sys import deadlines, process, tasks
from ..driver import AnyDisk, Disk
from ..process_machine import ProcessMachine, dial, telling
from . import document, tools
from .disks import loops, number
from .nics import ComingNics

log = logging.getLogger(__name__)
CHANNEL = "channel.sock"  # in the machine's directory: QEMU, as the agent's console, listens there
LOG = "xl.log"  # in the machine's directory: what its xl wrote
_TAIL = 8000  # bytes of the console, and of the log, that are looked at
_FIRST, _SECOND = 3.0, 2.0  # seconds for xl to end a domain and itself: together deadlines.DEATH
_CLEAN = "with status 0"  # how xl ends with its domain
_EXPECTED = "Primary console has invalid configuration"  # of a domain's first channel: document.CHANNELS
_HINT = "`hyperctl kill -s KILL` and `rm -f` end it"


class XenMachine(ComingNics, ProcessMachine):
    """Known by its domain's name and its xl; both outlive the daemon."""

    driver = "xen"
    program = "xl"
    accelerator = "xen"

    def __init__(
        self, directory: Path, started: Started, domain: str, names: Mapping[str, str], macs: Sequence[str] = ()
    ) -> None:
        super().__init__(*started)
        self.directory = directory
        self.domain = domain
        self.names: Mapping[str, str] = names
        self.macs = tuple(macs)
        self._plugging = asyncio.Lock()
        self._place = 0  # of the last disk that was added
        self._ending_it = asyncio.Lock()
        self._tidying: asyncio.Future[None] | None = None
        self._owed: asyncio.Future[None] | None = None  # its end, where xl did not answer in time
        self._detached = False

    @classmethod
    def of(cls, handle: Mapping[str, Any]) -> XenMachine:
        """The machine that a handle names, which may have ended."""
        started = Started(handle["pid"], handle["pidStarted"])
        return cls(Path(handle["directory"]), started, handle["domain"], handle["names"], handle.get("macs", ()))

    @property
    def handle(self) -> dict[str, Any]:
        return {
            "directory": str(self.directory),
            "pid": self.pid,
            "pidStarted": self.pid_started,
            "domain": self.domain,
            "names": dict(self.names),
            "macs": list(self.macs),
        }

    def connect(self) -> socket.socket:
        return dial(self.directory / CHANNEL)

    async def listen(self, domid: int) -> None:
        """Keep the end of what the guest writes to its console from here on, for `last_words`.

        Of a machine without a console there are none.
        """
        with contextlib.suppress(HyperError):
            self._console.open_terminal(await tools.terminal(domid))

    def watch(self) -> None:
        """End the domain when its xl ends otherwise than with it: nobody would free what it has."""
        if self._gone is None:
            self._gone = self._watch()
        self._gone.add_done_callback(self._xl_ended)

    def _xl_ended(self, _: asyncio.Future[None]) -> None:
        if not (self._killed or self._detached or self.ending() == _CLEAN):
            self._tidying = asyncio.ensure_future(self.kill())

    def detach(self) -> None:
        super().detach()
        self._detached = True

    def last_words(self) -> str:
        said = telling(self._console.tail()[-_TAIL:])
        return "; ".join(said) or tools.complaint(self.log()[-_TAIL:])

    def log(self) -> str:
        """What its xl has written so far, but for what it always complains of."""
        with contextlib.suppress(OSError):
            lines = (self.directory / LOG).read_text(errors="replace").splitlines(keepends=True)
            return "".join(line for line in lines if _EXPECTED not in line)
        return ""

    async def _forbidden_call(self) -> str:
        return ""  # it is in no jail

    async def kill(self) -> None:
        """xl frees what the domain had; one that does not is killed, and another one does, later where none answers."""
        async with self._ending_it:
            self._killed = self._killed or self.alive
            by = asyncio.get_running_loop().time() + _FIRST
            why = await tools.destroy(self.domain, _FIRST)
            self._console.tail()
            self._console.close()
            if why or not await self._ends(by):
                process.kill(self.pid, self.pid_started)
                why = await tools.destroy(self.domain, _SECOND)
            if why:
                log.error("the domain %s cannot be ended now: %s", self.domain, why)
                self._owed = self._owed or asyncio.ensure_future(tools.destroy_later(self.domain))
            await tasks.in_thread(partial(tools.drop_log, self.domain))

    async def add_disk(self, disk: AnyDisk) -> None:
        assert isinstance(disk, Disk)
        async with self._plugging:
            place = self._place = document.free_place(self.names, self.driver, self._place)
            with contextlib.ExitStack() as held:
                made = loops([disk], held)
                script = str(tools.binary("true"))
                described = document.disk(place, made.paths[0], script, read_only=disk.read_only)
                await self._ask("block-attach", described, timeout=deadlines.WORK)
                try:
                    await made.hand_over(domid := await self._domid(), place)
                    await tools.taken(domid, "vbd", number(place))
                except BaseException:
                    await asyncio.shield(self._give_up(place))
                    raise
            self.names = {**self.names, disk.serial: document.found_by(place)}

    async def _give_up(self, place: int) -> None:
        """A disk that did not come to be."""
        with contextlib.suppress(HyperError):
            await tools.ask("xl", "block-detach", self.domain, document.device(place), "--force")

    async def remove_disk(self, serial: str) -> None:
        async with self._plugging:
            if found := self.names.get(serial):
                await self._ask("block-detach", found.removeprefix("dev:"), timeout=deadlines.WORK)
                self.names = {known: name for known, name in self.names.items() if known != serial}

    @property
    def _domain(self) -> str:
        return self.domain

    async def pause(self) -> None:
        await self._ask("pause")

    async def resume(self) -> None:
        await self._ask("unpause")

    async def _ask(self, verb: str, *words: str, timeout: float = deadlines.MONITOR) -> None:
        try:
            await self._xl(verb, *words, timeout=timeout)
        except Unavailable as error:
            error.hint = error.hint or _HINT
            raise
