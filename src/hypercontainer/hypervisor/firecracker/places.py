# SPDX-License-Identifier: Apache-2.0
"""Where a Firecracker process finds what it is handed, as pure functions.

It opens everything by its path. In a jail these are the same for all machines,
so that a saved machine's paths are right for its clones too.
"""

from __future__ import annotations

from dataclasses import dataclass
from pathlib import Path

from ..driver import MachineConfig

API, VSOCK, CONSOLE, STATE = "api.sock", "vsock.sock", "console.pipe", "state"
DIRECTORY, DISKS = Path("/machine"), Path("/disks")  # in a jail
PORT = 1024  # of the guest's agent, and of its call to the host (hyperstart/src/port.c)
FILES_PORT = 1025  # of the host, for directories
CALL = f"{VSOCK}_{PORT}"  # where Firecracker brings the guest's call: docs/vsock.md of its source
FILES = f"{VSOCK}_{FILES_PORT}"
NOTHING = "nothing"  # the file behind a drive without a disk


@dataclass(frozen=True)
class Places:
    """The machine's directory and its disks, as the process sees them."""

    directory: Path
    disks: tuple[Path, ...]


def places(config: MachineConfig, *, jailed: bool) -> Places:
    """In a jail, or where it sees the host's files."""
    if jailed:
        return Places(DIRECTORY, tuple(DISKS / str(index) for index in range(len(config.disks))))
    return Places(config.directory, tuple(d.path for d in config.disks if hasattr(d, "path")))
