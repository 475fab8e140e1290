# SPDX-License-Identifier: Apache-2.0
"""A machine is saved as its devices' state and goes on from that; its memory lies in a shared file and stays there.

https://www.qemu.org/docs/master/devel/migration/main.html
"""

from __future__ import annotations

import re
import secrets
from collections.abc import Sequence

from ...errors import Unavailable
from ..driver import Disk
from .devices import FDSET_STATE
from .live_disks import exchange
from .migration import migrated
from .monitor import Command, Monitor

_SAVE_TIMEOUT, _LOAD_TIMEOUT = 30.0, 10.0  # seconds
_ADDRESS = re.compile(r"\bis (0x[0-9a-f]+)")  # monitor/misc.c, hmp_gpa2hva
# With events of its end; memory that lies in a shared file stays there.
_CAPABILITIES = Command(
    "migrate-set-capabilities",
    {"capabilities": [{"capability": name, "state": True} for name in ("events", "x-ignore-shared")]},
)
# It would announce, for a second, the addresses that it was launched with, which are not those that the guest has.
_SILENT = Command("migrate-set-parameters", {"announce-rounds": 0})


async def load(monitor: Monitor, state: int) -> None:
    """Start from what `save` or `save_devices` left; `state` is the descriptor's number in QEMU.

    :raise Unavailable: when it does not come up.
    """
    await _take_in(monitor, state)
    await _resumed(monitor)


async def load_early(monitor: Monitor, state: int, disks: Sequence[Disk], old: dict[str, str]) -> None:
    """The same of a machine that was started with `-S`; other files lie behind disks, as `exchange` says, before
    anything of it runs.

    :raise Unavailable: when it does not come up.
    """
    await _take_in(monitor, state)
    await migrated(monitor, "go on from what was saved", _LOAD_TIMEOUT)
    await exchange(monitor, disks, old)
    await monitor.execute("cont")
    await _resumed(monitor)


async def _take_in(monitor: Monitor, state: int) -> None:
    await monitor.execute_all([_CAPABILITIES, _SILENT, Command("migrate-incoming", {"uri": f"fd:{state}"})])


async def _resumed(monitor: Monitor) -> None:
    try:
        await monitor.event("RESUME", _LOAD_TIMEOUT)  # before it runs, its serial port would lose what is sent
    except TimeoutError:
        raise Unavailable("QEMU did not take the saved machine up") from None


async def address_of_memory(monitor: Monitor, begin: int) -> int:
    """Where the guest's memory, which has its first byte at `begin`, lies in QEMU's.

    :raise Unavailable: QEMU does not say.
    """
    answer = await monitor.execute("human-monitor-command", {"command-line": f"gpa2hva {begin:#x}"})
    if match := _ADDRESS.search(answer):
        return int(match[1], 16)
    raise Unavailable(f"QEMU does not say where the guest's memory is: {answer.strip()}")


async def save_devices(monitor: Monitor, state: int) -> None:
    """Write the state of the devices of a machine that runs; it stands still then, and `cont` lets it go on.

    What starts from it runs at once. `state` is a descriptor that can only be written.
    """
    fdset = FDSET_STATE + secrets.randbelow(1 << 29)  # one that was in use may still be
    asked = [
        Command("stop"),
        Command("add-fd", {"fdset-id": fdset}, state),
        # `live` as seen by Xen: whether QEMU is to let go of its disks.
        Command("xen-save-devices-state", {"filename": f"/dev/fdset/{fdset}", "live": False}),
        Command("remove-fd", {"fdset-id": fdset}),
    ]
    await monitor.execute_all(asked)


async def save(monitor: Monitor, state: int) -> None:
    """Write the state of the devices; the memory is in a shared file and stays there.

    The machine is stopped by it. It must run before: a clone goes on in the same way.
    """
    migrate = [Command("getfd", {"fdname": "state"}, state), Command("migrate", {"uri": "fd:state"})]
    await monitor.execute_all([_CAPABILITIES, *migrate])
    await migrated(monitor, "save the machine", _SAVE_TIMEOUT)
