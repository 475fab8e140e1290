# SPDX-License-Identifier: Apache-2.0
"""A Firecracker process, launched by this daemon or by one before it."""

from __future__ import annotations

import asyncio
import contextlib
import ctypes
import os
import re
import socket
from collections.abc import Iterator, Mapping, Sequence
from functools import partial
from pathlib import Path
from typing import Any, NamedTuple

from ...errors import Unavailable
from ...jail import violations
from ...jail.report import Grants
from ...model.specs import PortMapping
from ...sys import deadlines, tasks
from .. import taps
from ..driver import Disk
from ..process_machine import ProcessMachine, dial, telling
from . import api, confinement
from .document import MIB, drive_id, nic_id
from .late import Late
from .places import API, CONSOLE, PORT, STATE, VSOCK

_SAVE_TIMEOUT = 60.0  # seconds for a guest's memory to be written
_CHUNK, _PAGE = 4 << 20, 4096  # bytes
_ZEROS = bytes(_PAGE)
_KEEP_SIZE, _PUNCH_HOLE = 0x01, 0x02  # linux/falloc.h
_PAUSE = 0.01  # seconds between looks at a socket that is about to be there
_TAIL = 8000  # bytes of the console that are looked at
# https://github.com/firecracker-microvm/firecracker, src/vmm/src/lib.rs (FcExitCode) and signal_handler.rs of 1.12
_BAD_CALL = 148
_CALL = re.compile(rb"bad syscall \((\d{1,4})\)")


class Saving(NamedTuple):
    """Where a machine that may be saved has what that takes."""

    directory: Path  # of the machine, as its process sees it
    memory: int  # descriptor of a file for the guest's memory, in the process
    own: int  # the same file's, of ours; closed with the machine


class FirecrackerMachine(ProcessMachine):
    """Known by its process and its directory; both outlive the daemon."""

    driver = "firecracker"
    program = "Firecracker"
    accelerator = "kvm"

    def __init__(
        self,
        directory: Path,
        pid: int,
        pid_started: int,
        names: Mapping[str, str],
        nics: Sequence[str] = (),
        saving: Saving | None = None,
        late: Late | None = None,
    ) -> None:
        super().__init__(pid, pid_started)
        self._late = late  # until it is a pod's
        self._saving = saving
        self._kept: socket.socket | None = None
        self.names = names
        self._nics = tuple(nics)  # names of its taps
        self._directory = directory

    @classmethod
    def of(cls, handle: Mapping[str, Any]) -> FirecrackerMachine:
        """The machine that a handle names, which may have ended."""
        return cls(
            Path(handle["directory"]), handle["pid"], handle["pidStarted"], handle["names"], handle.get("taps", ())
        )

    @property
    def handle(self) -> dict[str, Any]:
        return {
            "directory": str(self._directory),
            "pid": self.pid,
            "pidStarted": self.pid_started,
            "names": dict(self.names),
            "taps": list(self._nics),
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

    async def kill(self) -> None:
        await super().kill()
        taps.drop(self._nics)
        if self._late:
            self._late.remove()
        if self._saving:
            os.close(self._saving.own)
            self._saving = None
        if self._kept:
            self._kept.close()
            self._kept = None

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
        places = list(self.names)
        for disk in disks:
            drive = drive_id(places.index(disk.serial))
            with self._late.shown(disk.path, drive) if self._late else contextlib.nullcontext(disk.path) as path:
                await self._ask("PATCH", f"/drives/{drive}", {"drive_id": drive, "path_on_host": str(path)})
        if self._late:
            self._late.remove()
            self._late = None

    async def save(self, state: int) -> None:
        if self._saving is None:
            raise Unavailable("the virtual machine was not launched to be saved")
        await self.pause()
        await self._ask(
            "PUT",
            "/snapshot/create",
            {
                "snapshot_type": "Full",
                "snapshot_path": str(self._saving.directory / STATE),
                "mem_file_path": f"/proc/self/fd/{self._saving.memory}",
            },
            timeout=_SAVE_TIMEOUT,
        )
        path = self._directory / STATE
        os.pwrite(state, path.read_bytes(), 0)
        path.unlink()
        await tasks.in_thread(partial(punch, self._saving.own))


def punch(fd: int) -> None:
    """Make holes of the pages that are all zeros: the whole memory was written.

    :raise OSError: the file's system has no holes.
    """
    libc = ctypes.CDLL(None, use_errno=True)
    libc.fallocate.argtypes = (ctypes.c_int, ctypes.c_int, ctypes.c_long, ctypes.c_long)
    for at, length in _zeros(fd):
        if libc.fallocate(fd, _PUNCH_HOLE | _KEEP_SIZE, at, length):
            raise OSError(ctypes.get_errno(), "a hole cannot be made")


def _zeros(fd: int) -> Iterator[tuple[int, int]]:
    """Where zeros begin, and how many bytes they are, by whole pages."""
    begun = -1
    size = os.fstat(fd).st_size
    for at in range(0, size, _CHUNK):
        data = os.pread(fd, _CHUNK, at)
        for offset in range(0, len(data), _PAGE):
            zero = data.startswith(_ZEROS, offset)
            if zero and begun < 0:
                begun = at + offset
            elif not zero and begun >= 0:
                yield begun, at + offset - begun
                begun = -1
    if begun >= 0:
        yield begun, size - begun
