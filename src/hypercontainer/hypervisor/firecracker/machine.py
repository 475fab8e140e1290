# SPDX-License-Identifier: Apache-2.0
"""A Firecracker process, launched by this daemon or by one before it."""

from __future__ import annotations

import asyncio
import contextlib
import logging
import os
import re
import socket
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any

from ...errors import Unavailable
from ...jail import violations
from ...jail.report import Grants
from ...model.specs import PortMapping
from ...sys import deadlines, tasks
from .. import taps
from ..driver import AnyDisk, Disk
from ..facets import Mount
from ..process_machine import ProcessMachine, dial, telling
from . import api, confinement
from .call import heard, listening
from .document import MIB, drive_id, nic_id
from .drives import Drives
from .holes import punch
from .late import Late
from .places import API, CALL, CONSOLE, FILES, FILES_PORT, NOTHING, PORT, STATE, VSOCK
from .saving import Saving, read_state

log = logging.getLogger(__name__)
_SAVE_TIMEOUT = 60.0  # seconds for a guest's memory to be written
_PAUSE = 0.01  # seconds between looks at a socket that is about to be there
_TAIL = 8000  # bytes of the console that are looked at
# https://github.com/firecracker-microvm/firecracker, src/vmm/src/lib.rs (FcExitCode) and signal_handler.rs of 1.12
_BAD_CALL = 148
_CALL = re.compile(rb"bad syscall \((\d{1,4})\)")


class FirecrackerMachine(ProcessMachine):
    """Known by its process and its directory; both outlive the daemon."""

    driver = "firecracker"
    program = "Firecracker"
    accelerator = "kvm"
    fixed_devices = True  # it panics over queues of a balloon that a guest has let go

    def __init__(
        self,
        directory: Path,
        pid: int,
        pid_started: int,
        drives: Drives,
        nics: Sequence[str] = (),
        saving: Saving | None = None,
        late: Late | None = None,
        inside: Path | None = None,
    ) -> None:
        """`inside` is its directory as its process sees it."""
        super().__init__(pid, pid_started)
        self._late = late  # while it may get disks
        self._saving = saving
        self._kept: socket.socket | None = None
        self._restored = False  # it went on from what was saved, and was not saved since
        self._recall: socket.socket | None = None  # where the guest calls once its connections are broken
        self._drives = drives
        self.names: Mapping[str, str] = drives.names
        self._exchanging = asyncio.Lock()
        self._nics = tuple(nics)  # names of its taps
        self._directory = directory
        self._inside = inside

    @classmethod
    def of(cls, handle: Mapping[str, Any]) -> FirecrackerMachine:
        """The machine that a handle names, which may have ended."""
        late, inside = (Path(handle[key]) if handle.get(key) else None for key in ("late", "inside"))
        machine = cls(
            Path(handle["directory"]), handle["pid"], handle["pidStarted"], Drives.noted(handle),
            handle.get("taps", ()), Saving.noted(handle), Late(late) if late else None, inside,
        )  # fmt: skip
        machine._restored = handle.get("restored", False)
        return machine

    @property
    def handle(self) -> dict[str, Any]:
        return {
            "directory": str(self._directory),
            "pid": self.pid,
            "pidStarted": self.pid_started,
            "drives": self._drives.note(),
            "taps": list(self._nics),
            "late": str(self._late.directory) if self._late else "",
            "inside": str(self._inside or ""),
            "restored": self._restored,
            "memory": self._saving.memory if self._saving else None,
            "memorySize": self._saving.size if self._saving else 0,
        }

    @property
    def grants(self) -> Grants:
        return confinement.grants(taps=bool(self._nics))

    def connect(self) -> socket.socket:
        """A stream that begins with Firecracker's own line, which says OK: what precedes a token is passed over."""
        return dial(self._directory / VSOCK, b"CONNECT %d\n" % PORT)  # docs/vsock.md of Firecracker

    def keep(self, call: socket.socket, *, open: bool) -> None:
        """Take over the guest's call, which stays `open` where the machine is to be saved, and is ended else."""
        if open:
            self._kept = call
        else:
            call.close()

    def listen(self) -> None:
        """Keep the end of what the guest writes to its console from here on, for `last_words`."""
        self._console.open_pipe(self._directory / CONSOLE)

    def detach(self) -> None:
        self._console.close()
        self._end_calls()

    async def kill(self) -> None:
        await super().kill()
        taps.drop(self._nics)
        if self._late:
            self._late.remove()
        self._end_calls()

    def _end_calls(self) -> None:
        for sock in filter(None, (self._kept, self._recall)):
            sock.close()
        self._kept = self._recall = None

    def last_words(self) -> str:
        return "; ".join([*self.violation(), *telling(self._console.tail()[-_TAIL:])])

    def _was_caught(self, status: int) -> bool:
        return super()._was_caught(status) or (os.WIFEXITED(status) and os.WEXITSTATUS(status) == _BAD_CALL)

    async def _forbidden_call(self) -> str:
        """It catches the signal of its filters, and says itself which call it was."""
        said = _CALL.findall(self._console.tail()[-_TAIL:]) if self._caught else []
        return violations.named(int(said[-1])) if said else await super()._forbidden_call()

    # -- what is asked of the process -------------------------------------------------------

    async def answers(self) -> None:
        """Return when its socket takes questions, or it has ended: then they fail, and say so.

        :raise Unavailable: it does not come to that in time.
        """
        path, clock = self._directory / API, asyncio.get_running_loop().time
        end = clock() + deadlines.MONITOR
        while self.alive:
            with contextlib.suppress(OSError), socket.socket(socket.AF_UNIX) as sock:
                sock.connect(str(path))
                return
            if clock() > end:
                raise Unavailable(f"Firecracker took no questions within {deadlines.MONITOR:g} s")
            await asyncio.sleep(_PAUSE)

    async def _ask(self, method: str, what: str, body: dict[str, Any], **how: Any) -> None:
        try:
            await api.ask(self._directory / API, method, what, body, **how)
        except Unavailable as error:
            error.hint = error.hint or "`hyperctl kill -s KILL` and `rm -f` end it"
            raise

    async def pause(self) -> None:
        await self._ask("PATCH", "/vm", {"state": "Paused"})

    async def resume(self) -> None:
        await self._ask("PATCH", "/vm", {"state": "Resumed"})

    async def give_back(self, size: int) -> None:
        """By its balloon, in whole MiB."""
        await self._ask("PATCH", "/balloon", {"amount_mib": size // MIB})

    async def load(self, memory: str, state: str, nics: Sequence[str], *, timeout: float) -> None:
        """Go on from what `save` left, by paths as the process has them; `nics` are taps.

        It takes in the whole state before it answers, for which it has `timeout` seconds, as for a boot.
        """
        self._restored = True
        overrides = [{"iface_id": nic_id(index), "host_dev_name": tap} for index, tap in enumerate(nics)]
        await self._ask(
            "PUT",
            "/snapshot/load",
            {
                "snapshot_path": state,
                "mem_backend": {"backend_type": "File", "backend_path": memory},
                "resume_vm": True,
                **({"network_overrides": overrides} if overrides else {}),
            },
            timeout=timeout,
        )

    async def reconfigure(self, directory: Path, disks: Sequence[Disk], ports: Sequence[PortMapping]) -> None:
        """Ports are published by a user-mode network, which it has none of."""
        assert not ports
        self._directory = directory
        for disk in disks:
            index = self._drives.find(disk.serial)
            assert index is not None
            await self._exchange(index, disk.path)
        if self._late and self._drives.spare:
            self._late = self._late.rename(directory.name)
        elif self._late:
            self._late.remove()
            self._late = None

    async def _exchange(self, index: int, path: Path) -> None:
        """Put another file of ours behind a drive."""
        shown = self._late.shown(path, drive_id(index)) if self._late else contextlib.nullcontext(path)
        with shown as seen:
            await self._put(index, seen)

    async def _put(self, index: int, path: Path) -> None:
        drive = drive_id(index)
        await self._ask("PATCH", f"/drives/{drive}", {"drive_id": drive, "path_on_host": str(path)})

    async def add_disk(self, disk: AnyDisk) -> None:
        """In the place of nothing."""
        async with self._exchanging:
            index = self._drives.free(disk)
            assert isinstance(disk, Disk)
            try:
                await self._exchange(index, disk.path)
            except BaseException:
                await asyncio.shield(self._give_up(index))
                raise
            self._drives.put(index, disk.serial, disk.path)
            self.names = self._drives.names

    async def _give_up(self, index: int) -> None:
        with contextlib.suppress(Unavailable):
            await self._put_nothing(index)

    async def _put_nothing(self, index: int) -> None:
        if self._inside:  # a machine of an earlier version has none, and keeps its disks
            await self._put(index, self._inside / NOTHING)

    async def remove_disk(self, serial: str) -> None:
        async with self._exchanging:
            if (index := self._drives.find(serial)) is not None:
                await self._put_nothing(index)
                self._drives.clear(index)
                self.names = self._drives.names

    async def open_files(self, mount: Mount) -> socket.socket:
        """The guest connects to a port of the host's, by Firecracker's socket for it: there is one while it does."""
        path = self._directory / FILES
        with listening(path) as at:
            try:
                await mount(f"vsock:{FILES_PORT}")
                return (await tasks.within(asyncio.get_running_loop().sock_accept(at), deadlines.MONITOR))[0]
            except TimeoutError:
                raise Unavailable("the guest opened no stream for directories") from None
            finally:
                path.unlink(missing_ok=True)

    # -- what it is saved by ------------------------------------------------------------------

    async def write_down(self, state: int) -> None:
        """Stand still, with the devices' state in `state` and the memory in the file that the process has for it.

        From then on all of its connections with the guest are broken, also when it runs on.

        :raise Unavailable: it cannot be saved, or that fails.
        """
        saving = self._can_be_saved()
        await self.pause()
        if self._recall:
            self._recall.close()
        self._recall = listening(self._directory / CALL)
        # It writes the state down before it tells the guest, so that one that went on from that state has told one word
        # less than its guest has heard: the first word is lost.
        for _ in range(2 if self._restored else 1):
            await self._create_snapshot(saving)
        self._restored = False
        read_state(self._directory / STATE, state)

    async def _create_snapshot(self, saving: Saving) -> None:
        await self._ask(
            "PUT",
            "/snapshot/create",
            {
                "snapshot_type": "Full",
                "snapshot_path": str(saving.directory / STATE),
                "mem_file_path": f"/proc/self/fd/{saving.memory.descriptor}",
            },
            timeout=_SAVE_TIMEOUT,
        )

    def _can_be_saved(self) -> Saving:
        if self._saving is None:
            raise Unavailable("the virtual machine was not launched to be saved",
                              hint="stop its pod and start it again")  # fmt: skip
        return self._saving

    async def severed(self) -> bool:
        at, self._recall = self._recall, None
        if at is None:
            return False
        with at:
            try:
                (await heard(self, at, deadlines.MONITOR)).close()
            except Unavailable as error:  # an older guest does not call, nor does one that was not saved after all
                log.warning("a virtual machine that was saved does not say that it takes connections: %s", error)
        return True

    @property
    def memory_size(self) -> int:
        """In bytes, whatever the file is by now. :raise Unavailable: it cannot be saved."""
        return self._can_be_saved().size

    def open_memory(self) -> int:
        """A descriptor of the file that `write_down` has filled; its caller's to close.

        :raise Unavailable: it is not there any more, or hyperd may not.
        """
        return self._can_be_saved().opened(self.pid)

    def drop_memory(self) -> None:
        """What `write_down` has filled takes no memory any more. Idempotent; what fails is for the next one."""
        with contextlib.suppress(OSError, Unavailable):
            fd = self.open_memory()
            try:
                os.ftruncate(fd, 0)
            finally:
                os.close(fd)

    async def save(self, state: int) -> None:
        await self.write_down(state)
        await tasks.in_thread(self._punch)

    def _punch(self) -> None:
        fd = self.open_memory()
        try:
            punch(fd, self.memory_size)
        finally:
            os.close(fd)
