# SPDX-License-Identifier: Apache-2.0
"""A machine, with its memory, as a stream of bytes: QEMU's migration, to and from a descriptor.

https://www.qemu.org/docs/master/devel/migration/main.html
"""

from __future__ import annotations

import contextlib
import os
import stat

from ...errors import Unavailable
from .monitor import Command, Monitor

_TIMEOUT = 120.0  # seconds between two words of QEMU's, while memory is copied
_STEPS_MAX = 20  # of a migration: QEMU 9 has 15 states
_BANDWIDTH, _DOWNTIME = 1 << 40, 500  # bytes per second: without limit; milliseconds
_CONFIGURATION_AT, _CONFIGURATION = 8, b"\x07"  # behind magic and version (migration/savevm.c)
# With events of its end; and all of the memory, wherever it lies.
_CAPABILITIES = Command(
    "migrate-set-capabilities",
    {"capabilities": [{"capability": n, "state": s} for n, s in (("events", True), ("x-ignore-shared", False))]},
)


def is_bare(stream: int) -> bool:
    """Whether it does not begin with the name of the machine type, as of one that went on from `save_devices`."""
    if not stat.S_ISREG(os.fstat(stream).st_mode):
        return False
    return os.pread(stream, 1, _CONFIGURATION_AT) != _CONFIGURATION


async def send(monitor: Monitor, stream: int) -> None:
    """Write all of a machine that runs to a stream; it stands still then, and `go_on` lets it run.

    :raise Unavailable: when that fails.
    """
    parameters = {"max-bandwidth": _BANDWIDTH, "downtime-limit": _DOWNTIME}
    await monitor.execute_all(
        [
            _CAPABILITIES,
            Command("migrate-set-parameters", parameters),
            Command("getfd", {"fdname": "stream"}, stream),
            Command("migrate", {"uri": "fd:stream"}),
        ]
    )
    await migrated(monitor, "put the machine away", _TIMEOUT)


async def go_on(monitor: Monitor) -> None:
    """End what `send` has begun, if it has not come to its end, and let the machine run."""
    if (await monitor.execute("query-migrate")).get("status") not in ("completed", "failed", "cancelled"):
        await monitor.execute("migrate_cancel")
    await monitor.execute("cont")


async def receive(monitor: Monitor, stream: int) -> None:
    """Become what `send` has sent, and stand still; `stream` is the descriptor's number in QEMU.

    :raise Unavailable: when it does not come.
    """
    await monitor.execute_all([_CAPABILITIES, Command("migrate-incoming", {"uri": f"fd:{stream}"})])
    await migrated(monitor, "take another machine in", _TIMEOUT)


async def migrated(monitor: Monitor, what: str, timeout: float) -> None:
    """Await the end of a migration, `timeout` seconds for each of its steps, of which there are a few.

    :raise Unavailable: it is none that is wanted.
    """
    status = "active"
    with contextlib.suppress(TimeoutError):
        for _ in range(_STEPS_MAX):
            status = (await monitor.event("MIGRATION", timeout))["status"]
            if status in ("completed", "failed", "cancelled"):
                break
    if status != "completed":
        raise Unavailable(f"QEMU could not {what}: the state of its migration is {status!r}")
