# SPDX-License-Identifier: Apache-2.0
"""QMP: what is asked of a running QEMU. One connection per need; QEMU takes one at a time."""

from __future__ import annotations

import asyncio
import contextlib
import os
from collections.abc import Sequence
from pathlib import Path
from typing import TYPE_CHECKING, Any

from ...errors import Conflict, InvalidState, Unavailable
from ..driver import AnyDisk, Disk
from .devices import FDSET_EXCHANGED, block_node, disk_device

if TYPE_CHECKING:
    from qemu.qmp import QMPClient

_SAVE_TIMEOUT = 30.0  # seconds
_LOAD_TIMEOUT = 10.0
_UNPLUG_TIMEOUT = 10.0  # seconds for the guest to let a disk go


class Monitor:
    """Connected for the time of an `async with`."""

    def __init__(self, path: Path) -> None:
        self._path = path
        self._client: QMPClient | None = None

    async def __aenter__(self) -> Monitor:
        # Imported late: starting a machine does not need it.
        from qemu.qmp import QMPClient, QMPError

        self._client = QMPClient()
        try:
            await self._client.connect(str(self._path))
        except (QMPError, OSError) as error:
            raise Unavailable(f"QEMU's monitor cannot be reached: {error}") from error
        return self

    async def __aexit__(self, *_: object) -> None:
        from qemu.qmp import QMPError

        assert self._client is not None
        with contextlib.suppress(QMPError):
            await self._client.disconnect()

    async def execute(self, command: str, arguments: dict[str, object] | None = None) -> Any:
        """:raise Unavailable: when QEMU refuses, with its words."""
        from qemu.qmp import QMPError

        assert self._client is not None
        try:
            return await self._client.execute(command, arguments)
        except QMPError as error:
            raise Unavailable(f"QEMU did not take {command!r}: {error}") from error

    async def human(self, line: str) -> None:
        """A command that has no counterpart in QMP; any answer is a complaint.

        :raise Conflict: with that answer.
        """
        answer = await self.execute("human-monitor-command", {"command-line": line})
        if answer.strip() and "removed" not in answer:
            raise Conflict(f"QEMU refused {line!r}: {answer.strip()}")

    async def add_disk(self, disk: AnyDisk) -> None:
        assert self._client is not None
        node, fdset = f"disk-{disk.serial}", -1
        if isinstance(disk, Disk):
            fd = os.open(disk.path, os.O_RDONLY if disk.read_only else os.O_RDWR | os.O_CLOEXEC)
            try:
                self._client.send_fd_scm(fd)
                fdset = (await self.execute("add-fd"))["fdset-id"]
            finally:
                os.close(fd)
        elif disk.keyring:
            await self.execute("object-add", {"qom-type": "secret", "id": f"{node}-key", "data": disk.keyring, "format": "base64"})
        await self.execute("blockdev-add", block_node(disk, node, fdset))
        try:
            await self.execute("device_add", disk_device(disk, node, scsi=True))
        except Unavailable as error:
            await self.execute("blockdev-del", {"node-name": node})
            raise InvalidState("this virtual machine takes no further disks while it runs", hint="stop the pod first") from error

    async def remove_disk(self, serial: str) -> None:
        from qemu.qmp import EventListener

        assert self._client is not None
        device, node = f"dev-{serial}", f"disk-{serial}"
        nodes = await self.execute("query-named-block-nodes", {"flat": True})
        if not any(n.get("node-name") == node for n in nodes):
            return
        with self._client.listener("DEVICE_DELETED") as gone:
            assert isinstance(gone, EventListener)
            with contextlib.suppress(Unavailable):  # it may be gone already
                await self.execute("device_del", {"id": device})
                with contextlib.suppress(TimeoutError):
                    await asyncio.wait_for(_deleted(gone, device), _UNPLUG_TIMEOUT)
        await self.execute("blockdev-del", {"node-name": node})

    async def load(self, state: int) -> None:
        """Start from what `save` left."""
        from qemu.qmp import EventListener

        assert self._client is not None
        wanted = [{"capability": "x-ignore-shared", "state": True}]
        # Before it runs, its serial port would lose what is sent.
        with self._client.listener("RESUME") as running:
            assert isinstance(running, EventListener)
            await asyncio.gather(
                self.execute("migrate-set-capabilities", {"capabilities": wanted}),
                self.execute("migrate-incoming", {"uri": f"fd:{state}"}),
            )
            await asyncio.wait_for(running.get(), _LOAD_TIMEOUT)

    async def save(self, state: int) -> None:
        """Write the state of the devices; the memory is in a shared file and stays there.

        The machine is stopped by it. It must run before: a clone goes on in the same way.

        https://www.qemu.org/docs/master/devel/migration/main.html
        """
        from qemu.qmp import EventListener

        assert self._client is not None
        wanted = [{"capability": name, "state": True} for name in ("events", "x-ignore-shared")]
        await self.execute("migrate-set-capabilities", {"capabilities": wanted})
        self._client.send_fd_scm(state)
        await self.execute("getfd", {"fdname": "state"})
        with self._client.listener("MIGRATION") as steps:
            assert isinstance(steps, EventListener)
            await self.execute("migrate", {"uri": "fd:state"})
            status = await asyncio.wait_for(_migrated(steps), _SAVE_TIMEOUT)
        if status != "completed":
            raise Unavailable(f"QEMU could not save the machine: the state of its migration is {status!r}")

    async def exchange(self, disks: Sequence[Disk]) -> None:
        """All commands at once: QEMU takes them in their order."""
        assert self._client is not None
        commands = []
        nodes: list[dict[str, Any]] = []
        for disk in disks:
            fd = os.open(disk.path, (os.O_RDONLY if disk.read_only else os.O_RDWR) | os.O_CLOEXEC)
            try:
                self._client.send_fd_scm(fd)
            finally:
                os.close(fd)
            fdset, name = FDSET_EXCHANGED + len(nodes), f"file-{disk.serial}"
            node = block_node(disk, f"disk-{disk.serial}", fdset)
            await self.execute("add-fd", {"fdset-id": fdset})  # QEMU keeps one descriptor at a time
            commands.append(self.execute("blockdev-add", {**node["file"], "node-name": name, "read-only": disk.read_only}))
            nodes.append({**node, "file": name})
        commands.append(self.execute("blockdev-reopen", {"options": nodes}))
        await asyncio.gather(*commands)


async def _migrated(steps: Any) -> str:
    async for step in steps:
        if (status := step["data"]["status"]) in ("completed", "failed", "cancelled"):
            return str(status)
    return "unknown"


async def _deleted(events: Any, device: str) -> None:
    async for event in events:
        if event["data"].get("device") == device:
            return
