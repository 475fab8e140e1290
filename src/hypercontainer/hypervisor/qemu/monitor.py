# SPDX-License-Identifier: Apache-2.0
"""QMP: what is asked of a running QEMU. One connection per need; QEMU takes one at a time."""

from __future__ import annotations

import asyncio
import contextlib
import os
from pathlib import Path
from typing import TYPE_CHECKING, Any

from ...errors import Conflict, InvalidState, Unavailable
from ..driver import AnyDisk, Disk
from .devices import block_node, disk_device

if TYPE_CHECKING:
    from qemu.qmp import QMPClient

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


async def _deleted(events: Any, device: str) -> None:
    async for event in events:
        if event["data"].get("device") == device:
            return
