# SPDX-License-Identifier: Apache-2.0
"""A QEMU process, launched by this daemon or by one before it."""

from __future__ import annotations

import asyncio
import contextlib
import logging
import os
import re
import resource
import socket
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any

from ...errors import Unavailable
from ...jail.report import Grants
from ...model.specs import PortMapping
from ...sys import deadlines, process
from ..driver import AnyDisk, Disk, TapNetwork
from ..facets import Mount
from ..memory_file import MemoryFile
from ..process_machine import ProcessMachine, dial, telling
from . import devices, live_disks, migration, nics, snapshots
from .command import FILES_CHANNEL
from .confinement import grants, largest_file
from .machine_types import VIRT
from .monitor import Monitor
from .ports import check_port_free

log = logging.getLogger(__name__)
CHANNEL, FILES, MONITOR, CONSOLE = "guest.sock", "files.sock", "qmp.sock", "console.sock"
LOG = "qemu.log"
CONSOLE_FILE = "console.log"  # of machines that an earlier version launched, which stored all of it
SERVER_LOG = "server.log"  # of whoever serves shared directories
# It says so of each hub that a spare NIC is alone in (net/hub.c).
_SPARE_NIC = re.compile(rb"[^\n]*is not connected to host network[^\n]*\n?")
_TAIL = 8000  # bytes of the logs that are read for an error message: a panic, and the registers that follow it


class QemuMachine(ProcessMachine):
    """Known by its process and its directory; both outlive the daemon."""

    driver = "qemu"
    program = "QEMU"
    names: Mapping[str, str] = {}  # the guest finds disks by their serial numbers

    def __init__(
        self, directory: Path, pid: int, pid_started: int, accelerator: str, *, machine_type: str = "",
        host_devices: Sequence[str] = (), memory_file: MemoryFile | None = None,
    ) -> None:  # fmt: skip
        """`host_devices` are directories in sysfs of PCI devices that it was handed."""
        super().__init__(pid, pid_started)
        self.accelerator = accelerator
        self.machine_type = machine_type
        self.memory_file = memory_file
        self._host_devices = list(host_devices)
        self._directory = directory
        self._nodes: dict[
            str, str
        ] = {}  # serial number of a disk -> node of the file behind it, where that was exchanged
        self._early: socket.socket | None = None  # a connection that waits for who asks for one
        self._state = -1  # its descriptor of the state that it goes on from, until that is there
        self._disk_errors: dict[str, int] | None = None  # as they were when they were last asked for

    @classmethod
    def of(cls, handle: Mapping[str, Any]) -> QemuMachine:
        """The machine that a handle names, which may have ended."""
        return cls(
            Path(handle["directory"]), handle["pid"], handle["pidStarted"], handle.get("accelerator", ""),
            machine_type=handle.get("machineType", ""), host_devices=handle.get("hostDevices", ()),
            memory_file=MemoryFile(*handle["memoryFile"]) if handle.get("memoryFile") else None,
        )  # fmt: skip

    @property
    def handle(self) -> dict[str, Any]:
        return {
            "directory": str(self._directory),
            "pid": self.pid,
            "pidStarted": self.pid_started,  # clock ticks since the host's boot: a pid alone may be reused
            "accelerator": self.accelerator,
            "machineType": self.machine_type,
            "hostDevices": self._host_devices,
            "memoryFile": self.memory_file,
        }

    @property
    def grants(self) -> Grants:
        return grants(self._host_devices)

    def connect(self) -> socket.socket:
        early, self._early = self._early, None
        return early or dial(self._directory / CHANNEL)

    def connect_early(self) -> None:
        """Before `load`, of a machine that was saved while it was connected: the guest is told of no change then.

        Else it hears that its host went away, in the midst of what it is told by the next one: that word takes another
        way than data (hw/char/virtio-serial-bus.c, fetch_active_ports_list).
        """
        self._early = self.connect()

    async def open_files(self, mount: Mount) -> socket.socket:
        stream = dial(self._directory / FILES)
        try:
            await mount(f"port:{FILES_CHANNEL}")
        except BaseException:
            stream.close()
            raise
        return stream

    async def kill(self) -> None:
        if self._early:
            self._early.close()
        await super().kill()

    def listen(self) -> None:
        """Keep the end of what the guest writes to its console from here on, for `last_words`."""
        self._console.open(self._directory / CONSOLE)

    def _monitor(self) -> Monitor:
        return Monitor(self._directory / MONITOR)

    async def pause(self) -> None:
        await self._order("stop")

    async def resume(self) -> None:
        await self._order("cont")

    async def _order(self, command: str) -> None:
        try:
            async with asyncio.timeout(deadlines.MONITOR), self._monitor() as monitor:
                await monitor.execute(command)
        except TimeoutError:
            raise Unavailable(
                f"QEMU did not answer {command!r} within {deadlines.MONITOR:g} s",
                hint="`hyperctl kill -s KILL` and `rm -f` end it",
            ) from None

    async def stalled(self) -> bool:
        # https://www.qemu.org/docs/master/interop/qemu-qmp-ref.html, RunState
        async with self._monitor() as monitor:
            status: str = (await monitor.execute("query-status"))["status"]
        return status == "io-error"

    async def disk_errors(self) -> Mapping[str, int]:
        if self._disk_errors is None or self._console.complains:
            self._console.complains = False
            async with self._monitor() as monitor:
                self._disk_errors = await live_disks.failed_requests(monitor)
        return self._disk_errors

    async def load(self, state: int) -> None:
        """Go on from a saved state; its number is the descriptor's in the hypervisor."""
        async with self._monitor() as monitor:
            await snapshots.load(monitor, state)

    def awaits(self, state: int) -> None:
        """It goes on from a state when it is told to; the number is the descriptor's in the hypervisor."""
        self._state = state

    async def begin(self, directory: Path, disks: Sequence[Disk]) -> None:
        self._directory = directory
        self._let_write(disks)
        self.connect_early()
        async with self._monitor() as monitor:
            await snapshots.load_early(monitor, self._state, disks, self._nodes)

    async def save_devices(self, state: int) -> None:
        """Their state into an empty file. The machine stands still then, until `resume`, whatever becomes of it."""
        fd = os.open(f"/proc/self/fd/{state}", os.O_WRONLY | os.O_CLOEXEC)
        try:
            async with self._monitor() as monitor:
                await snapshots.save_devices(monitor, fd)
        finally:
            os.close(fd)

    async def address_of_memory(self) -> int:
        """Where its guest's memory begins in its process's."""
        kind = self.machine_type.partition(":")[0]
        async with self._monitor() as monitor:
            return await snapshots.address_of_memory(monitor, VIRT.memory_at if kind == VIRT.name else 0)

    async def receive(self, stream: int) -> None:
        """Become what another machine sends, and stand still; the number is the descriptor's in the hypervisor."""
        async with self._monitor() as monitor:
            await migration.receive(monitor, stream)

    async def send(self, stream: int) -> None:
        """Send all of it to a descriptor; it stands still then, until `go_on`."""
        async with self._monitor() as monitor:
            await migration.send(monitor, stream)

    async def go_on(self) -> None:
        """After a `send`, whatever became of it; one that is under way ends."""
        async with self._monitor() as monitor:
            await migration.go_on(monitor)

    async def save(self, state: int) -> None:
        async with self._monitor() as monitor:
            await snapshots.save(monitor, state)

    async def reconfigure(self, directory: Path, disks: Sequence[Disk], ports: Sequence[PortMapping]) -> None:
        self._directory = directory
        for port in ports:
            check_port_free(port)
        if not disks and not ports:
            return
        self._let_write(disks)
        async with self._monitor() as monitor:
            await live_disks.exchange(monitor, disks, self._nodes)
            for port in ports:
                await monitor.human(f"hostfwd_add net0 {_forward(port)}")

    def _let_write(self, disks: Sequence[AnyDisk]) -> None:
        """To all of disks that it has only now: a longer file than before needs a higher limit.

        :raise Unavailable: hyperd may not raise it.
        """
        size = largest_file(disks)
        try:
            now = process.file_size_limit(self.pid)
            if now >= 0 and not 0 <= size <= now:
                resource.prlimit(self.pid, resource.RLIMIT_FSIZE, (size, size))  # -1 is no limit
        except ProcessLookupError:
            return  # it has ended: its monitor says so
        except PermissionError as error:
            raise Unavailable("hyperd may not let the virtual machine write to a disk of this size") from error

    async def add_disk(self, disk: AnyDisk) -> None:
        self._let_write([disk])
        async with self._monitor() as monitor:
            await live_disks.add(monitor, disk)

    async def remove_disk(self, serial: str) -> None:
        async with self._monitor() as monitor:
            await live_disks.remove(monitor, serial)

    async def plugged(self, nic: int) -> bool:
        async with self._monitor() as monitor:
            return await nics.plugged(monitor, nic)

    async def plug_in(self, nic: int, network: TapNetwork) -> None:
        async with self._monitor() as monitor:
            await nics.plug_in(monitor, nic, network.fd)

    async def add_nic(self, nic: int, mac: str) -> None:
        async with self._monitor() as monitor:
            await nics.add(monitor, nic, mac)

    async def pull_out(self, nic: int) -> None:
        async with self._monitor() as monitor:
            await nics.pull_out(monitor, nic)

    async def add_port(self, port: PortMapping) -> None:
        check_port_free(port)
        async with self._monitor() as monitor:
            await monitor.human(f"hostfwd_add net0 {_forward(port)}")

    async def remove_port(self, port: PortMapping) -> None:
        async with self._monitor() as monitor:
            await monitor.human(f"hostfwd_remove net0 {_forward(port).partition('-:')[0]}")

    def last_words(self) -> str:
        texts = []
        for name in (SERVER_LOG, LOG, CONSOLE_FILE) if not self.alive else (LOG, CONSOLE_FILE):
            with contextlib.suppress(OSError):
                texts.append(_tail(self._directory / name))
        words = self.violation()
        for text in (*texts, self._console.tail()[-_TAIL:]):
            words += telling(_SPARE_NIC.sub(b"", text))
        return "; ".join(words)


def _tail(path: Path) -> bytes:
    """The guest decides how long its console's log is."""
    with open(path, "rb") as f:
        f.seek(max(0, os.fstat(f.fileno()).st_size - _TAIL))
        return f.read(_TAIL)


def _forward(port: PortMapping) -> str:
    return devices.forward(port.protocol, port.host_ip, port.host_port, port.container_port)
