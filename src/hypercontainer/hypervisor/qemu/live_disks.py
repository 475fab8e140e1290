# SPDX-License-Identifier: Apache-2.0
"""Disks of a QEMU that runs: they come, go, and have other files put behind them."""

from __future__ import annotations

import contextlib
import os
import re
import secrets
from collections.abc import Iterator, Sequence
from typing import Any

from ...errors import InvalidState, Unavailable
from ..driver import AnyDisk, Disk
from .devices import FDSET_EXCHANGED, block_node, disk_device
from .formats import check_image
from .monitor import Command, Monitor, results

_UNPLUG_TIMEOUT = 10.0  # for the guest to let a disk go
_OF_A_DISK = re.compile(r"\bdev-(\w+)")  # in the device's name, or its path


async def add(monitor: Monitor, disk: AnyDisk) -> None:
    """A further disk; nothing of it is left where it is refused.

    :raise InvalidState: the machine takes no more. :raise InvalidArgument: it is no image of its format.
    """
    node, fdset = f"disk-{disk.serial}", _new_fdset()
    added = [Command("blockdev-add", block_node(disk, node, fdset))]
    async with contextlib.AsyncExitStack() as undo:
        with contextlib.ExitStack() as opened:
            if isinstance(disk, Disk):
                added.insert(0, Command("add-fd", {"fdset-id": fdset}, opened.enter_context(_opened(disk))))
            elif disk.keyring:
                key = {"qom-type": "secret", "id": _key(disk.serial), "data": disk.keyring, "format": "base64"}
                await monitor.execute("object-add", key)
                undo.push_async_callback(_forget_key, monitor, disk.serial)
            # Each answer is waited for while the guest has the processor: all is asked for at once.
            plug = Command("device_add", disk_device(disk, node, scsi=True))
            *answers, plugged = await monitor.ask([*added, plug])
        results(added, answers)
        if "error" in plugged:
            await monitor.execute("blockdev-del", {"node-name": node})
            raise InvalidState("this virtual machine takes no further disks while it runs", hint="stop the pod first")
        undo.pop_all()


async def remove(monitor: Monitor, serial: str) -> None:
    """Take one out by its serial number. Idempotent."""
    device, node = f"dev-{serial}", f"disk-{serial}"
    nodes = await monitor.execute("query-named-block-nodes", {"flat": True})
    if not any(n.get("node-name") == node for n in nodes):
        return
    with contextlib.suppress(Unavailable, TimeoutError):  # it may be gone already
        await monitor.execute("device_del", {"id": device})
        while (await monitor.event("DEVICE_DELETED", _UNPLUG_TIMEOUT)).get("device") != device:
            pass
    await monitor.execute("blockdev-del", {"node-name": node})
    await _forget_key(monitor, serial)


def _key(serial: str) -> str:
    """The object that has the key of a cluster's disk."""
    return f"disk-{serial}-key"


async def _forget_key(monitor: Monitor, serial: str) -> None:
    """Of a disk that has one."""
    with contextlib.suppress(Unavailable):
        await monitor.execute("object-del", {"id": _key(serial)})


async def exchange(monitor: Monitor, disks: Sequence[Disk], old: dict[str, str]) -> None:
    """Put other files behind disks, all in one go.

    `old` knows the nodes of earlier files by the disks' serial numbers, and is brought up to date.
    """
    commands: list[Command] = []
    nodes: list[dict[str, Any]] = []
    names: dict[str, str] = {}
    with contextlib.ExitStack() as stack:
        for disk in disks:
            fdset = _new_fdset()
            name = names[disk.serial] = f"file-{fdset}"
            node = block_node(disk, f"disk-{disk.serial}", fdset)
            file = {**node["file"], "node-name": name, "read-only": disk.read_only}
            commands += [
                Command("add-fd", {"fdset-id": fdset}, stack.enter_context(_opened(disk))),
                Command("blockdev-add", file),
            ]
            nodes.append({**node, "file": name})
        if nodes:
            gone = [Command("blockdev-del", {"node-name": old.pop(serial)}) for serial in names if serial in old]
            await monitor.execute_all([*commands, Command("blockdev-reopen", {"options": nodes}), *gone])
            old.update(names)


async def failed_requests(monitor: Monitor) -> dict[str, int]:
    """How many failed, by the serial numbers of disks."""
    found = {}
    for device in await monitor.execute("query-blockstats"):
        if match := _OF_A_DISK.search(device.get("qdev", "")):
            stats = device["stats"]
            found[match[1]] = sum(stats[f"failed_{kind}_operations"] for kind in ("rd", "wr", "flush"))
    return found


def _new_fdset() -> int:
    """One that was in use may still be."""
    return FDSET_EXCHANGED + secrets.randbelow(1 << 30)


@contextlib.contextmanager
def _opened(disk: Disk) -> Iterator[int]:
    fd = os.open(disk.path, (os.O_RDONLY if disk.read_only else os.O_RDWR) | os.O_CLOEXEC)
    try:
        check_image(fd, disk.format, disk.path)
        yield fd
    finally:
        os.close(fd)
