# SPDX-License-Identifier: Apache-2.0
"""Spare NICs of a QEMU that runs.

The netdev of a NIC can never be another one; that of a spare one is a port of a hub (net/hub.c), which gets a second
port, to a tap, while the machine runs.
"""

from __future__ import annotations

import contextlib

from ...errors import Unavailable, Unsupported
from .devices import SLOT, nic_in_slot
from .monitor import Command, Monitor


async def plugged(monitor: Monitor, nic: int) -> bool:
    """Whether a spare NIC's hub has its second port."""
    (answer,) = await monitor.ask([Command("set_link", {"name": f"port{nic}", "up": True})])
    return "return" in answer


async def plug_in(monitor: Monitor, nic: int, fd: int) -> None:
    """Give the hub of a spare NIC a tap; the guest sees its carrier come."""
    tap, port = f"tap{nic}", f"port{nic}"
    try:
        await monitor.execute_all(
            [
                Command("getfd", {"fdname": tap}, fd),
                Command("netdev_add", {"type": "tap", "id": tap, "fd": tap}),
                Command("netdev_add", {"type": "hubport", "id": port, "hubid": nic, "netdev": tap}),
                Command("set_link", {"name": f"net{nic}", "up": True}),
            ]
        )
    except Unavailable:
        with contextlib.suppress(Unavailable):
            await pull_out(monitor, nic)
        raise


async def add(monitor: Monitor, nic: int, mac: str) -> None:
    """A further spare NIC, in a slot of its own.

    :raise Unsupported: the machine has no slot left. :raise Unavailable: QEMU refuses; nothing of it is left then.
    """
    found = await monitor.execute("qom-list", {"path": "/machine/peripheral"})
    names = {str(each["name"]) for each in found}
    if any(name.startswith(f"nic{nic}.") for name in names):
        return
    taken = {name.partition(".")[2] for name in names}
    free = sorted(name for name in names if name.startswith(SLOT) and name not in taken)
    if not free:
        raise Unsupported("the virtual machine has no slot left for a network interface")
    slot = int(free[0].removeprefix(SLOT))
    await monitor.execute("netdev_add", {"type": "hubport", "id": f"net{nic}", "hubid": nic})
    try:
        await monitor.execute("device_add", nic_in_slot(nic, mac, slot))
    except Unavailable:
        with contextlib.suppress(Unavailable):
            await monitor.execute("netdev_del", {"id": f"net{nic}"})
        raise


async def pull_out(monitor: Monitor, nic: int) -> None:
    """Take the tap away, and what is left of a `plug_in` that came to no end; what is not there is no error.

    Without a carrier the NIC drops what its guest sends: a hub without a second port would keep it.
    """
    await monitor.ask(
        [
            Command("set_link", {"name": f"net{nic}", "up": False}),
            Command("netdev_del", {"id": f"port{nic}"}),
            Command("netdev_del", {"id": f"tap{nic}"}),
            Command("closefd", {"fdname": f"tap{nic}"}),
        ]
    )
