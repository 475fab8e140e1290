# SPDX-License-Identifier: Apache-2.0
"""What a machine is saved by: a file for its memory, which its process has from its start on, and its state.

Firecracker opens what it writes by a path, and a jail shows no more than it was made with. So each process is handed a
file of memory, empty until it is told to write its guest's there by the name of that descriptor.
"""

from __future__ import annotations

import os
import stat
from collections.abc import Mapping
from pathlib import Path
from typing import Any, NamedTuple

from ...errors import Unavailable
from ..memory_file import MemoryFile

STATE_MAX = 16 << 20  # bytes; it is some tens of KiB
_ENDED = "the virtual machine has ended"


class Saving(NamedTuple):
    """Where a machine that may be saved has what that takes."""

    directory: Path  # of the machine, as its process sees it
    memory: MemoryFile
    size: int  # bytes of the guest's memory

    @classmethod
    def noted(cls, handle: Mapping[str, Any]) -> Saving | None:
        """Of a machine's handle; one that an earlier version launched has none."""
        if not (handle.get("memory") and handle.get("memorySize") and handle.get("inside")):
            return None
        return cls(Path(handle["inside"]), MemoryFile(*handle["memory"]), handle["memorySize"])

    def opened(self, pid: int) -> int:
        """A descriptor of ours of the file of this process, its caller's to close.

        :raise Unavailable: it is not there any more, or hyperd may not.
        """
        try:
            return self.memory.open(pid, os.O_RDWR)
        except PermissionError as error:
            raise Unavailable(
                "hyperd may not read the memory of a virtual machine", hint="it needs the capability CAP_SYS_PTRACE"
            ) from error
        except OSError as error:
            raise Unavailable(_ENDED) from error


def read_state(path: Path, target: int) -> None:
    """What Firecracker has written there, to a descriptor; the file goes.

    :raise Unavailable: it is no such file: the process, which may be its guest's by now, may put anything there.
    """
    try:
        fd = os.open(path, os.O_RDONLY | os.O_NOFOLLOW | os.O_NONBLOCK | os.O_CLOEXEC)
    except OSError as error:
        raise Unavailable(f"the state of the virtual machine cannot be read: {error.strerror}") from error
    try:
        status = os.fstat(fd)
        if not stat.S_ISREG(status.st_mode) or status.st_nlink != 1 or status.st_size > STATE_MAX:
            raise Unavailable("what the virtual machine has written is no state")
        os.pwrite(target, os.pread(fd, STATE_MAX, 0), 0)
    finally:
        os.close(fd)
        path.unlink(missing_ok=True)
